"""Wrong answers that a student may well give in the chapter on bounds: (answer, words of the hint)."""

import math

import pytest
import torch

from mmvae_lite.bounds import iwae
from mmvae_lite.data import LG3, LG3_OBSERVATION
from mmvae_lite.exercises import check
from mmvae_lite.exercises_bounds import _mixture_elbo
from mmvae_lite.experts import Mixture

EXPERTS = [LG3.posterior({m: x}) for m, x in LG3_OBSERVATION.items()]
ELBO = _mixture_elbo(EXPERTS, own=False)


def _bound(q, noise, log_joint, *, live=False, hook="z", power=1, value=iwae):
    z = q.mean + q.std * noise
    log_w = log_joint(z) - (q if live else q.detach()).log_prob(z)
    weight = log_w.detach().softmax(0) ** power
    if hook:
        (z if hook == "z" else torch.stack(list(z))).register_hook(lambda grad: weight[..., None] * grad)
    return value(log_w)


def _z(draws, exact):
    return ((draws.mean(0) - exact) / draws.std(0)).abs().max() * math.sqrt(len(draws))


def _factor(log_joint, log_q, j, own=False, over=0, front=True):
    rho = log_q.softmax(over)[j]
    weight = (log_joint - (log_q[j] if own else log_q.logsumexp(0))).softmax(0)
    return (weight if front else 1) * (1 - rho + rho * weight)


WRONG = {
    "bounds-order": [
        (lambda w: w.logsumexp(1), "no distribution"),
        (lambda w: w.exp().sum(1) / w.exp().sum(), "NaN"),
        (lambda w: w.mean(1).softmax(0), "averages of the logarithms"),
        (lambda w: w.amax(1).softmax(0), "largest weight"),
        (lambda w: (-w.logsumexp(1)).softmax(0), "wrong way up"),
        (lambda w: w.flatten().softmax(0), "shape"),
        (lambda w: torch.full((len(w),), 1 / len(w)), "tight minus loose"),
    ],
    "bounds-moe-elbo": [
        (lambda: _mixture_elbo(EXPERTS, own=True), "naive"),
        (lambda: -ELBO, "sign"),
        (lambda: LG3.log_prob(LG3_OBSERVATION), "evidence itself"),
        (lambda: 3 * ELBO, "averages them"),
        (lambda: ELBO - math.log(3), "one over three"),
        (lambda: -1.0, "above the evidence"),
        (lambda: -5.0, "is not the ELBO"),
    ],
    "bounds-hook": [
        (lambda *a: _bound(*a, hook="copy"), "still that of STL"),
        (lambda *a: _bound(*a, hook=None), "still that of STL"),
        (lambda *a: _bound(*a, hook=None, live=True), "plain IWAE"),
        (lambda *a: _bound(*a, live=True), "detach q"),
        (lambda *a: _bound(*a, power=2), "once too often"),
        (lambda *a: -_bound(*a), "other sign"),
        (lambda *a: _bound(*a, value=lambda w: (w.detach().softmax(0) * w).sum(0)), "not the bound"),
        (lambda *a: _bound(*a, value=lambda w: w.mean(0)), "not that of DReG"),
        (lambda *a: _bound(*a).detach(), "no gradient"),
        (lambda *a: _bound(*a).mean(), "shape"),
    ],
    "bounds-detect": [
        (lambda d, e: _z(d, e) / math.sqrt(len(d)), "one draw"),
        (lambda d, e: _z(d, e) * math.sqrt(len(d)), "root of n"),
        (lambda d, e: (d.mean(0) - e).abs().max(), "difference"),
        (lambda d, e: ((d.mean(0) - e) / d.std(0)).abs().mean() * math.sqrt(len(d)), "average over parameters"),
        (lambda d, e: ((d.mean(0) - e) / d.std(0)).max() * math.sqrt(len(d)), "z-score"),
        (lambda d, e: (d.mean(0) - e) / d.std(0), "one number"),
    ],
    "bounds-budget": [
        (lambda m, s, K, c: (c * s / m) ** 2, "takes K samples"),
        (lambda m, s, K, c: K * c * s / m, "root is still on"),
        (lambda m, s, K, c: K * c * (s / m) ** 2, "inside the square"),
        (lambda m, s, K, c: K * (s / m) ** 2, "for c of them"),
        (lambda m, s, K, c: -K, "not positive"),
        (lambda m, s, K, c: K * c, "do not make"),
    ],
    "bounds-factor": [
        (lambda p, q, j: (p - q.logsumexp(0)).softmax(0) ** 2, "squared weight"),
        (lambda p, q, j: _factor(p, q, j, front=False), "weight in front"),
        (lambda p, q, j: _factor(p, q, j, own=True), "own density"),
        (lambda p, q, j: _factor(p, q, j, over=1), "over the experts"),
        (lambda p, q, j: _factor(p, q, 0), "is not right"),
        (lambda p, q, j: _factor(p, q, j)[None], "shape"),
    ],
}


def test_the_elbo_of_the_check_agrees_with_draws():
    g = torch.Generator().manual_seed(0)
    mixture = Mixture(tuple(EXPERTS))
    z = mixture.rsample((200_000,), g)
    terms = [torch.distributions.Normal(w * z[..., 0], math.sqrt(v)).log_prob(x) for x, w, v in zip(LG3_OBSERVATION.values(), LG3.weights, LG3.variances)]
    values = sum(terms) + torch.distributions.Normal(0.0, 1.0).log_prob(z[..., 0]) - mixture.log_prob(z)
    error = values.std().item() / math.sqrt(values.numel())
    assert ELBO == pytest.approx(values.mean().item(), abs=4 * error)


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("bounds-order", lambda w: (w - w.max()).exp().mean(1) / (w - w.max()).exp().mean(1).sum()),
        ("bounds-moe-elbo", lambda: torch.tensor([ELBO])),
        ("bounds-budget", lambda m, s, K, c: torch.tensor(K * (c * s / m) ** 2)),
    ],
)
def test_other_ways_to_be_right_pass(name, answer):
    assert check(name, answer).require()


def test_computing_the_weights_from_the_stack_repairs_the_hook_too():
    def repaired(q, noise, log_joint):
        z = torch.stack([q.mean + q.std * part for part in noise])
        log_w = log_joint(z) - q.detach().log_prob(z)
        z.register_hook(lambda grad: log_w.detach().softmax(0)[..., None] * grad)
        return iwae(log_w)

    assert check("bounds-hook", repaired).require()
