"""Lower bounds of the log-evidence log p(x), in nats, one value per item."""

from __future__ import annotations

import math

from jaxtyping import Float
from torch import Tensor


def elbo(
    log_px: Float[Tensor, "*batch"], kl: Float[Tensor, "*batch"], beta: float = 1.0
) -> Float[Tensor, "*batch"]:
    """The evidence lower bound E_q[log p(x | z)] - beta KL(q(z | x) || p(z)).

    Equation `eq-elbo` of the book (Kingma and Welling 2014, equation 3; beta as in Higgins et al. 2017).
    `log_px` is log p(x | z) at a sample z ~ q, or its expectation; both arguments have shape [*batch].
    With beta other than 1 the value is no bound of log p(x).
    """
    return log_px - beta * kl


def log_weights(
    log_px: Float[Tensor, "samples *batch"],
    log_pz: Float[Tensor, "samples *batch"],
    log_qz: Float[Tensor, "samples *batch"],
) -> Float[Tensor, "samples *batch"]:
    """The log importance weights log w = log p(x | z) + log p(z) - log q(z | x) at samples z ~ q."""
    return log_px + log_pz - log_qz


def iwae(log_w: Float[Tensor, "samples *batch"]) -> Float[Tensor, "*batch"]:
    """The importance-weighted bound log 1/K sum_k w_k over the leading axis of K samples.

    Equation `eq-iwae` of the book (Burda et al. 2016, equation 8).  K = 1 is the one-sample ELBO; in expectation
    the bound rises with K towards log p(x).
    """
    return log_w.logsumexp(0) - math.log(log_w.shape[0])
