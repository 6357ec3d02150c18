"""The ex-post density of a trained model's latents, with torch alone."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from mmvae_lite.evaluation.clustering import kmeans
from mmvae_lite.ex_post import ExPostDensity

RIDGE = 1e-6  # added to the variances, as scikit-learn does


def fit_mixture(z: Float[Tensor, "items latent"], components: int = 100, max_iter: int = 2000, tol: float | int = 1e-3, seed: int = 0) -> ExPostDensity:
    """A mixture of Gaussians with full covariances by expectation maximisation from a k-means start, in float64.

    It stops when the mean log-likelihood gains less than `tol`, as `ExPostDensity.fit` does, which needs scikit-learn.
    Raises ValueError for fewer items than components.
    """
    if len(z) < components:
        raise ValueError(f"fit_mixture: found {len(z)} latents for {components} components, wanted at least as many")
    x = z.detach().cpu().double()
    share = torch.nn.functional.one_hot(kmeans(x, components, restarts=1, seed=seed).assignment.cpu(), components).double()
    best = -math.inf
    for _ in range(max_iter):
        density = _maximised(x, share)
        joint = _log_joint(density, x)
        value = float(joint.logsumexp(1).mean())
        share = joint.softmax(1)
        if value - best < tol:
            break
        best = value
    return density.to(z)


def _maximised(x: Float[Tensor, "items latent"], share: Float[Tensor, "items components"]) -> ExPostDensity:
    count = share.sum(0) + 1e-12
    means = share.T @ x / count[:, None]
    second = torch.einsum("nk,ni,nj->kij", share, x, x) if x.shape[1] <= 4 else torch.stack([(s[:, None] * x).T @ x for s in share.T])
    covariances = second / count[:, None, None] - means[:, :, None] * means[:, None, :]
    covariances = covariances + RIDGE * torch.eye(x.shape[1], dtype=x.dtype)
    return ExPostDensity(count / len(x), means, torch.linalg.cholesky(covariances))


def _log_joint(density: ExPostDensity, x: Float[Tensor, "items latent"]) -> Float[Tensor, "items components"]:
    """log w_k N(x; mean_k, cov_k), [items, components]."""
    gaps = (x - density.means[:, None]).mT
    squares = torch.linalg.solve_triangular(density.factors, gaps, upper=False).square().sum(1)
    constant = density.weights.log() - density.factors.diagonal(dim1=1, dim2=2).log().sum(1) - 0.5 * x.shape[1] * math.log(2 * math.pi)
    return (constant[:, None] - 0.5 * squares).T
