"""Wrong answers that a student may well give in the chapter on the concrete product: (answer, words of the hint)."""

import math

import pytest
import torch
from torch.nn import functional as F

from mmvae_lite.exercises import check


def _log_density(z1, odds, tau, jacobian=1.0, scale=1.0, location=1.0):
    s = tau * (z1.log() - (1 - z1).log()) - location * math.log(odds)
    bell = F.logsigmoid(s) + F.logsigmoid(-s)
    return scale * math.log(tau) + bell - jacobian * (z1.log() + (1 - z1).log())


def _hard(logits, tau, noise):
    z = ((logits + noise) / tau).softmax(-1)
    return F.one_hot(z.argmax(-1), z.shape[-1]).to(z), z


def _through(logits, tau, noise):
    hard, z = _hard(logits, tau, noise)
    return hard + (z - z.detach())


def _through_logits(logits, tau, noise):
    hard, z = _hard(logits, tau, noise)
    return hard + (logits - logits.detach()) + 0 * z


def _without_temperature(logits, tau, noise):
    hard, z = _hard(logits, tau, noise)
    return hard + tau * (z - z.detach())


def _almost(logits, tau, noise):
    hard, z = _hard(logits, tau, noise)
    return hard + z - z.detach()


def _exact(first, second):
    weights = [a * b for a, b in zip(first, second)]
    return weights[0] / sum(weights)


def _products(first, second, tau, jacobians=1, limit=None):
    t = torch.linspace(-1, 1, 100_001, dtype=torch.float64) * (limit or 60 / (2 * tau - 1))
    log_f = (2 - jacobians) * (F.softplus(t) + F.softplus(-t))
    for a, b in (first, second):
        s = tau * t - math.log(a / b)
        log_f = log_f + F.logsigmoid(s) + F.logsigmoid(-s)
    return _exact(first, second), log_f.softmax(0)[t > 0].sum().item()


def _together(beliefs, prior, count=1):
    return (beliefs.log().sum(0) - (len(beliefs) - count) * prior.log()).softmax(-1)


WRONG = {
    "concrete-podium": [
        (lambda pi, a, b: pi[a] / sum(pi), "whoever comes second"),
        (lambda pi, a, b: pi[a] * pi[b] / sum(pi) ** 2, "one runner less"),
        (lambda pi, a, b: pi[a] * pi[b], ""),
        (lambda pi, a, b: 10 * pi[a] * pi[b], "no probability"),
        (lambda pi, a, b: pi[a] / (pi[a] + pi[b]) / 3, "take the winner away"),
    ],
    "concrete-logistic": [
        (lambda *a: _log_density(*a).exp(), "its logarithm"),
        (lambda *a: _log_density(*a, jacobian=0.0), "density of the logit"),
        (lambda *a: _log_density(*a, jacobian=-1.0), "turned round"),
        (lambda *a: _log_density(*a, scale=0.0), "in front is missing"),
        (lambda *a: _log_density(*a, location=-1.0), "swapped"),
        (lambda z, o, t: _log_density(z, o**t, t), "not right"),
        (lambda *a: _log_density(*a).sum(), "shape"),
    ],
    "concrete-straight-through": [
        (lambda *a: _hard(*a)[0], "no gradient"),
        (lambda *a: _hard(*a)[1], "relaxed draws"),
        (lambda *a: _through_logits(*a), "not that of the relaxed draw"),
        (lambda *a: _without_temperature(*a), "lacks the temperature"),
        (lambda *a: 1 - _through(*a), "not one-hot"),
        (lambda logits, tau, noise: _through(logits.detach(), tau, noise), "no gradient"),
        (_almost, "rounding"),
    ],
    "concrete-error": [
        (lambda *a: (1 - _products(*a)[0], _products(*a)[1]), "class two"),
        (lambda *a: (64 / 145, _products(*a)[1]), "squared odds"),
        (lambda a, b, t: (_exact(a, b),) * 2, "repeats the exact one"),
        (lambda *a: _products(*a, jacobians=2), "densities of the logit"),
        (lambda *a: (_products(*a)[0], 1 - _products(*a)[1]), "other side"),
        (lambda *a: _products(*a, limit=2.0), "reach far enough"),
        (lambda *a: (0.4, 0.4), "class by class"),
        (lambda *a: _products(*a)[1], "pair"),
    ],
    "concrete-threshold": [
        (lambda e, n: (e - 1) * (n - 1) / e, "prior is missing"),
        (lambda e, n: e / (e + 1), "two classes"),
        (lambda e, n: e * n / (e + 1), "does not vanish"),
        (lambda e, n: e * (n - 1), "every factor helps"),
        (lambda e, n: 0.66, "count the powers"),
    ],
    "concrete-prior-once": [
        (lambda b, p: _together(b, p, count=len(b)), "counted"),
        (lambda b, p: _together(b, p, count=len(b) + 1), "counted"),
        (lambda b, p: _together(b, p, count=0), "gone altogether"),
        (lambda b, p: b.prod(0) / p ** (len(b) - 1), "sum to one"),
        (lambda b, p: b.mean(0), "mixture"),
        (lambda b, p: _together(b, p, count=3.5), "not right"),
        (lambda b, p: _together(b, p)[:2], "shape"),
    ],
}

MISTAKES = [pytest.param(name, *wrong, id=f"{name}-{i}") for name, some in WRONG.items() for i, wrong in enumerate(some)]


@pytest.mark.parametrize("name, answer, words", MISTAKES)
def test_a_plausible_mistake_gets_a_hint_that_fits(name, answer, words):
    verdict = check(name, answer)
    assert not verdict.passed
    assert words in verdict.message


def _by_library(z1, odds, tau):
    odds, tau = torch.tensor(odds, dtype=z1.dtype), torch.tensor(tau, dtype=z1.dtype)
    q = torch.distributions.RelaxedOneHotCategorical(tau, probs=torch.stack([odds, torch.ones_like(odds)]) / (1 + odds))
    return q.log_prob(torch.stack([z1, 1 - z1], -1))


def test_other_ways_to_be_right_pass():
    assert check("concrete-podium", lambda pi, a, b: torch.tensor(pi[a] * pi[b] / sum(pi) / (sum(pi) - pi[a]), dtype=torch.float64)).passed
    assert check("concrete-logistic", _by_library).passed
    assert check("concrete-straight-through", _through).passed
    assert check("concrete-error", _products).passed
    assert check("concrete-threshold", lambda e, n: torch.tensor(e * (n - 1) / (e + 1), dtype=torch.float64)).passed
    assert check("concrete-prior-once", lambda b, p: (b / p).prod(0) * p / ((b / p).prod(0) * p).sum()).passed
