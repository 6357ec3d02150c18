"""Estimates of how much random variables tell about each other, and the contrastive terms built on them.

Total correlation by minibatch (Chen et al. 2018) and by density ratio (Kim and Mnih 2018; Daunhawer et al. 2021),
InfoNCE (van den Oord et al. 2018), and the kernel hinge of Hsu and Glass (2018).  All of them compare the items of a
batch with each other, in nats.  None is exact: each docstring says on which side of the truth it lies.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from mmvae_lite.checks import check_name
from mmvae_lite.distributions import LOG_2PI, Concrete, Normal

WEIGHTS = ("unbiased", "mws", "batch_mean", "probtorch", "mss")
DISCRETE_LOGPROBS = ("argmax", "soft", "concrete")
CRITICS = ("inner", "cosine")


def check_items(what: str, n: int) -> None:
    """Raise ValueError unless there are two items to compare."""
    if n < 2:
        raise ValueError(f"{what} needs at least 2 items, got {n}")


def derangement(
    n: int, generator: torch.Generator | None = None, device: torch.device | str | None = None
) -> Int[Tensor, "items"]:
    """A random permutation of n items, one cycle, that leaves no item in its place.

    Raises ValueError for fewer than two items.
    """
    check_items("a derangement", n)
    device = generator.device if generator is not None else device
    cycle = torch.randperm(n, generator=generator, device=device)
    return torch.empty_like(cycle).scatter_(0, cycle, cycle.roll(1))


# ---- total correlation by minibatch -------------------------------------------------------------------------------


def factor_log_prob(
    q: Normal | Concrete, z: Float[Tensor, "..."], discrete_logprob: str = "argmax"
) -> Float[Tensor, "... factors"]:
    """log q(z) of each factor: a coordinate of a `Normal`, a whole variable of a `Concrete`.

    A `Normal` [*batch, latent] gives [*batch, latent].  A `Concrete` [batch, classes] gives [batch, 1]; with
    several variables, [batch, variables, classes], it gives [batch, variables].  For a `Concrete`,
    `discrete_logprob` chooses

    - `argmax`: the log-probability of the largest coordinate's class, as in the code of Lee and Pavlovic (2020);
      gradients reach the class probabilities only;
    - `soft`: sum_k z_k log pi_k, which agrees with it at the vertices;
    - `concrete`: the density of the relaxed variable.
    """
    if isinstance(q, Normal):
        return (z - q.mean).square() * (-0.5 * q.precision) - 0.5 * (q.logvar + LOG_2PI)
    check_name("discrete_logprob", discrete_logprob, DISCRETE_LOGPROBS)
    values = q.log_prob(z) if discrete_logprob == "concrete" else (_classes(z, discrete_logprob) * q.log_probs).sum(-1)
    return values if q.logits.ndim > 2 else values[..., None]


def _classes(z: Float[Tensor, "... classes"], discrete_logprob: str) -> Float[Tensor, "... classes"]:
    """How much of each class counts: z itself, or all of its largest."""
    return z if discrete_logprob == "soft" else torch.zeros_like(z).scatter_(-1, z.argmax(-1, keepdim=True), 1.0)


def log_q_matrix(
    q: Normal | Concrete, z: Float[Tensor, "batch ..."], discrete_logprob: str = "argmax"
) -> Float[Tensor, "batch batch factors"]:
    """log q(z_i | x_j) of every draw under every item's posterior, factor by factor: entry [i, j, factor].

    `q` holds one posterior an item, with z drawn from it.  The matrices of several latents are joined by
    `torch.cat(..., -1)`; see `factor_log_prob` for the factors.
    """
    if isinstance(q, Normal):
        # (z_i - mean_j) / std_j of all pairs as one product of matrices; factors first in memory, since what follows sums over j
        scale = 1 / q.std
        residual = torch.baddbmm(-(q.mean * scale).T[:, None], z.T[:, :, None], scale.T[:, None])
        return torch.add(-0.5 * (q.logvar + LOG_2PI).T[:, None], residual.square(), alpha=-0.5).movedim(0, -1)
    one_variable = q.logits.ndim == 2
    logits, draws = (q.logits[:, None], z[:, None]) if one_variable else (q.logits, z)
    if discrete_logprob in ("argmax", "soft"):  # a product of matrices for each variable
        return torch.einsum("ivk,jvk->ijv", _classes(draws, discrete_logprob), logits.log_softmax(-1))
    return factor_log_prob(Concrete(logits[None], q.temperature), draws[:, None], discrete_logprob)


def log_batch_weights(
    batch: int, n_data: int, weights: str = "unbiased", like: Tensor | None = None
) -> Float[Tensor, "batch batch"]:
    """log W_ij of the estimate q(z_i) = sum_j W_ij q(z_i | x_j) from a batch out of `n_data` items.

    Equation `eq-batch-weights` of the book gives the unbiased ones.

    - `unbiased`: row i knows its own posterior, so its diagonal is 1/N and the rest share the other N - 1 items.
    - `mws`: 1/(N B) everywhere (Chen et al. 2018); every log q(z) is too low by log N.
    - `batch_mean`: 1/B everywhere; the own item weighs too much.
    - `probtorch`: 1/B with the diagonal times (B - 1)/(N - 1), as in the code of Lee and Pavlovic (2020); `unbiased`
      up to a constant.
    - `mss`: stratified sampling (Chen et al. 2018), with the diagonal and its right neighbour where their
      derivation puts them; the released code fills two columns instead.

    Raises KeyError for an unknown scheme and ValueError where N is smaller than the batch.
    """
    check_name("weights", weights, WEIGHTS)
    check_items("mi_tc_dw", batch)
    if weights not in ("mws", "batch_mean") and n_data < batch:
        raise ValueError(f"n_data: found {n_data} for a batch of {batch}, wanted the number of training items")
    eye = torch.eye(batch, dtype=torch.bool, device=None if like is None else like.device)
    dtype = torch.get_default_dtype() if like is None else like.dtype

    def fill(off: float, diagonal: float, neighbour: float | None = None) -> Tensor:
        w = torch.full((batch, batch), off, dtype=dtype, device=eye.device)
        if neighbour is not None:
            w = w.masked_fill(eye.roll(1, 1), neighbour)
        return w.masked_fill(eye, diagonal).log()

    others = batch - 1
    if weights == "mws":
        return fill(1 / (n_data * batch), 1 / (n_data * batch))
    if weights == "batch_mean":
        return fill(1 / batch, 1 / batch)
    if weights == "unbiased":
        return fill((n_data - 1) / (n_data * others), 1 / n_data)
    if weights == "probtorch":
        return fill(1 / batch, others / ((n_data - 1) * batch))
    return fill(1 / others, 1 / n_data, (n_data - others) / (n_data * others))


def mi_tc_dw(
    log_q: Float[Tensor, "batch batch factors"],
    log_qz_given_x: Float[Tensor, "batch"],
    log_pz: Float[Tensor, "batch"],
    n_data: int,
    weights: str = "unbiased",
) -> tuple[Float[Tensor, ""], Float[Tensor, ""], Float[Tensor, ""]]:
    """Mutual information, total correlation and dimension-wise KL of the aggregate posterior, each a scalar.

    Equation `eq-kl-split` of the book, from densities that are estimated in a batch.

    `log_q` comes from `log_q_matrix`; `log_qz_given_x` is log q(z_i | x_i) and `log_pz` is log p(z_i), summed over the
    factors.  For any weights MI + TC + DW is the one-sample KL, mean(log q(z | x) - log p(z)), exactly.

    The estimates are biased although the densities are not, because the logarithm is concave: with `unbiased` weights
    MI comes out too high and the other terms too low, so that TC may be negative.  With `mws` weights TC carries
    (factors - 1) log N on top.  Source: Chen et al. (2018).

    Raises ValueError for fewer than two items, see also `log_batch_weights`.
    """
    log_w = log_batch_weights(len(log_q), n_data, weights, like=log_q)
    return decomposed(log_q.sum(-1), log_product(log_q, log_w), log_qz_given_x, log_pz, log_w)


def log_product(log_q: Float[Tensor, "batch batch factors"], log_w: Float[Tensor, "batch batch"]) -> Float[Tensor, "batch"]:
    """sum_f log q(z_if), the product of the aggregate posterior's marginals at every draw."""
    return (log_q + log_w[..., None]).logsumexp(1).sum(-1)


def decomposed(
    log_q: Float[Tensor, "*lead batch batch"],
    log_marginals: Float[Tensor, "*lead batch"],
    log_qz_given_x: Float[Tensor, "*lead batch"],
    log_pz: Float[Tensor, "*lead batch"],
    log_w: Float[Tensor, "batch batch"],
) -> tuple[Float[Tensor, "*lead"], Float[Tensor, "*lead"], Float[Tensor, "*lead"]]:
    """MI, TC and DW as `mi_tc_dw`, from log q(z_i | x_j) summed over the factors and from `log_product`.

    Given x the factors are independent, so all four densities of several latents together are the sums of theirs.
    """
    log_qz = (log_q + log_w).logsumexp(-1)
    return (log_qz_given_x - log_qz).mean(-1), (log_qz - log_marginals).mean(-1), (log_marginals - log_pz).mean(-1)


# ---- total correlation by density ratio ---------------------------------------------------------------------------


class Discriminator(nn.Module):
    """Tells joint pairs (s, c) ~ q(s, c), class 0, from product pairs (s, c) ~ q(s) q(c), class 1.

    `forward` maps style [batch, style_dim] and code [batch, code_dim] to two logits [batch, 2].  Sizes by default as
    in the code of Daunhawer et al. (2021).
    """

    def __init__(
        self,
        style_dim: int,
        code_dim: int,
        hidden: Sequence[int] = (500, 500, 500),
        joint: Sequence[int] = (1000, 1000),
    ) -> None:
        super().__init__()
        self.style = nn.Sequential(*_leaky(style_dim, hidden))
        self.code = nn.Sequential(*_leaky(code_dim, hidden))
        self.joint = nn.Sequential(*_leaky(2 * hidden[-1], joint), nn.Linear(joint[-1], 2))

    def forward(self, style: Float[Tensor, "batch style"], code: Float[Tensor, "batch code"]) -> Float[Tensor, "batch 2"]:
        return self.joint(torch.cat([self.style(style), self.code(code)], -1))


def _leaky(size: int, hidden: Sequence[int]) -> list[nn.Module]:
    pairs = zip([size, *hidden], hidden)
    return [layer for a, b in pairs for layer in (nn.Linear(a, b), nn.LeakyReLU(0.2))]


def density_ratio_tc(logits: Float[Tensor, "batch 2"]) -> Float[Tensor, ""]:
    """The mean log-odds of joint pairs, which estimates KL(q(s, c) || q(s) q(c)) = I(s; c), a scalar.

    Equation `eq-density-ratio` of the book.

    With the optimal discriminator the log-odds are the log density ratio; with any other one the estimate may lie on
    either side, also below 0.  Source: Kim and Mnih (2018); Daunhawer et al. (2021).
    Raises ValueError for fewer than two items.
    """
    check_items("density_ratio_tc", len(logits))
    return (logits[:, 0] - logits[:, 1]).mean()


def discriminator_loss(
    joint_logits: Float[Tensor, "batch 2"], product_logits: Float[Tensor, "batch 2"]
) -> Float[Tensor, ""]:
    """The mean cross-entropy of calling joint pairs class 0 and product pairs class 1, each half, a scalar.

    Equation `eq-discriminator` of the book.

    Product pairs are joint ones with the styles permuted over the batch as whole vectors.
    Raises ValueError for fewer than two items.
    """
    check_items("discriminator_loss", len(joint_logits))
    joint, product = joint_logits.log_softmax(-1)[:, 0], product_logits.log_softmax(-1)[:, 1]
    return -0.5 * (joint.mean() + product.mean())


# ---- contrast -----------------------------------------------------------------------------------------------------


def info_nce_from_scores(scores: Float[Tensor, "items contrasts"]) -> Float[Tensor, ""]:
    """InfoNCE with any critic: the positive of anchor i is scores[i, i], the rest of its row are negatives.

    Equation `eq-info-nce` of the book; its ceiling is `eq-info-nce-ceiling`.

    log K + mean_i(f_ii - log sum_j e^f_ij), where K is the number of contrasts of a row, those of score -inf left out.
    With independent negatives the expectation is a lower bound of the mutual information; the value is never above
    log K.  Source: van den Oord et al. (2018); Poole et al. (2019).
    Raises ValueError for fewer than two items.
    """
    check_items("info_nce", len(scores))
    contrasts = (scores > -math.inf).sum(-1).to(scores)
    return (scores.diagonal() - scores.logsumexp(-1) + contrasts.log()).mean()


def info_nce(
    a: Float[Tensor, "items code"],
    b: Float[Tensor, "items code"],
    critic: str = "inner",
    temperature: float = 1.0,
    symmetric: bool = False,
    same_view: bool = False,
) -> Float[Tensor, ""]:
    """A lower bound of I(a; b) from the items' two views, a scalar to be maximised.

    Equation `eq-nt-xent` of the book with `symmetric`, `same_view` and `cosine`; its ceiling is `eq-cosine-ceiling`.

    `critic` is the inner product or the cosine of two codes, divided by the temperature.  `symmetric` averages over
    both views as anchors.  `same_view` also contrasts an anchor with the other items of its own view; with `symmetric`
    and `cosine` the value is log(2N - 1) minus the NT-Xent loss of Chen et al. (2020).

    Daunhawer et al. (2021) print the first form, with the sign reversed; their code has the last.  The value is at
    most the log of the number of contrasts.  With the cosine it is also at most 1 / temperature for the first form, and
    hardly more for the last, however many items there are: the log of an average of exponentials is at least the
    average score, and unit vectors do not vary by more than 1.

    Raises KeyError for an unknown critic, ValueError for fewer than two items or a temperature that is not positive.
    """
    check_name("critic", critic, CRITICS)
    if not temperature > 0:
        raise ValueError(f"temperature: found {temperature!r}, wanted more than 0")
    if critic == "cosine":
        a, b = F.normalize(a, dim=-1), F.normalize(b, dim=-1)

    def bound(anchor: Tensor, other: Tensor) -> Tensor:
        scores = anchor @ other.T
        if same_view:
            itself = torch.eye(len(a), dtype=torch.bool, device=a.device)
            scores = torch.cat([scores, (anchor @ anchor.T).masked_fill(itself, -math.inf)], 1)
        return info_nce_from_scores(scores / temperature)

    return 0.5 * (bound(a, b) + bound(b, a)) if symmetric else bound(a, b)


def rbf_kernel(a: Float[Tensor, "*batch latent"], b: Float[Tensor, "*batch latent"]) -> Float[Tensor, "*batch"]:
    """exp(-|a - b|^2 / 2), in (0, 1]: [*batch, latent] twice -> [*batch].  Equation `eq-pvae-kernel` of the book."""
    return (-0.5 * (a - b).square().sum(-1)).exp()


def contrastive_hinge(
    anchors: Mapping[str, Float[Tensor, "batch latent"]],
    negatives: Mapping[str, Float[Tensor, "batch latent"]],
    margin: float = 0.5,
) -> Float[Tensor, "batch"]:
    """The cross-modal hinge of PVAE per item, at most 0 and to be maximised (Hsu and Glass 2018, equation 8).

    Equation `eq-pvae-hinge` of the book.

    For every ordered pair of modalities (m', m): the kernel of the two means of one item is to exceed the kernel with
    a negative item's mean of m by the margin.  The hinges are summed and divided by the number M of modalities, as
    printed, although there are M (M - 1) of them.  `negatives` are the same means of other items, for example of
    `derangement(batch)`; the gradient dies out when means are several units apart.

    Raises ValueError for fewer than two modalities or where the names differ.
    """
    if len(anchors) < 2:
        raise ValueError(f"contrastive_hinge needs at least 2 modalities, got {len(anchors)}")
    if set(anchors) != set(negatives):
        raise ValueError(f"negatives are given for {sorted(negatives)}, anchors for {sorted(anchors)}; wanted the same modalities")
    hinges = [
        (margin - rbf_kernel(anchor, positive) + rbf_kernel(anchor, negatives[m])).clamp_min(0)
        for other, anchor in anchors.items()
        for m, positive in anchors.items()
        if m != other
    ]
    return -torch.stack(hinges).sum(0) / len(anchors)
