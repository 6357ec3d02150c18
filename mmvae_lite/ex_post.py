"""Ex-post density estimation: a Gaussian mixture fitted to the latents of a trained model, to sample from instead of p(z).

A model whose aggregate posterior differs from its prior decodes prior draws that it never saw; the mixture stands
where the data are (Ghosh et al. 2020; Daunhawer et al. 2021, section 4).
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path

import torch
from jaxtyping import Float, Int
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from mmvae_lite.checks import check_positive
from mmvae_lite.distributions import LOG_2PI
from mmvae_lite.kmeans import kmeans

FORMAT = "mmvae_lite ex-post density 1"
POINTS = 10_000  # that are compared with every component at once
RIDGE = 1e-6  # on the variances
EMPTY = 1e-12  # items that every component has


class ExPostDensity:
    """A mixture of Gaussians with full covariances.

    weights [components], means [components, latent], factors [components, latent, latent]: the lower Cholesky
    factors of the covariances.  Use it for any continuous shared latent: `model.decode({"shared": density.sample(n)})`,
    with private latents from their priors where the model has them, or `DMVAE_D.density`.

    Raises ValueError for shapes that do not agree.
    """

    def __init__(
        self,
        weights: Float[Tensor, "components"],
        means: Float[Tensor, "components latent"],
        factors: Float[Tensor, "components latent latent"],
    ) -> None:
        k, d = means.shape
        if tuple(weights.shape) != (k,) or tuple(factors.shape) != (k, d, d):
            raise ValueError(f"ExPostDensity: found {list(weights.shape)} weights and {list(factors.shape)} factors for means {list(means.shape)}")
        self.weights, self.means, self.factors = weights, means, factors

    @classmethod
    @torch.no_grad()
    def fit(
        cls,
        z: Float[Tensor, "items latent"],
        components: int = 100,
        max_iter: int = 2000,
        tol: float | int = 1e-3,
        restarts: int = 3,
        seed: int = 0,
    ) -> "ExPostDensity":
        """Fit the mixture to latents by expectation maximisation, in float64 on the CPU.

        The first of several runs starts from k-means, the others from a k-means++ start as it is.  Each stops when the mean
        log-likelihood gains less than `tol`, or after `max_iter` rounds, and the most likely one is kept.  100 components,
        full covariances and up to 2000 rounds are those of Daunhawer et al. (2021); a ridge of 1e-6 on the variances, as
        scikit-learn has it, keeps a component off a single point.
        Raises ValueError for fewer distinct items than components or for values that are not finite.
        """
        check_positive("components", components)
        check_positive("max_iter", max_iter)
        check_positive("restarts", restarts)
        if z.ndim != 2:
            raise ValueError(f"ExPostDensity: found latents of shape {list(z.shape)}, wanted [items, latent]")
        if len(z) < max(2, components):
            raise ValueError(f"ExPostDensity: found {len(z)} latents for {components} components, wanted at least {max(2, components)}")
        if not bool(torch.isfinite(z).all()):
            raise ValueError("ExPostDensity: the latents hold NaN or infinity, wanted finite values; train the model first")
        x = z.detach().cpu().double()
        centre = x.mean(0)
        x = x - centre
        if components > 1 and (found := len(x.unique(dim=0))) < components:
            raise ValueError(f"ExPostDensity: found {found} distinct latents for {components} components; the latent has collapsed, or take fewer")
        starts = [kmeans(x, components, restarts=1, max_iter=1 if n else 300, seed=seed + n).assignment for n in range(restarts)]
        runs = [_maximised_from(x, start, components, max_iter, tol) for start in starts]
        best = max(runs, key=lambda run: run[0])[1]
        return cls(best.weights, best.means + centre, best.factors).to(z)

    @classmethod
    @torch.no_grad()
    def of(
        cls,
        model: nn.Module,
        data: Mapping[str, Float[Tensor, "items ..."]],
        items: int = 5000,
        components: int = 100,
        chunk: int = 1000,
        **fit: float | int,
    ) -> "ExPostDensity":
        """Fit the mixture to the means of q(shared | x) of the first `items` items, all their modalities given.

        Works for every model whose `posterior` has a continuous `shared` latent; of a mixture of experts it takes the
        mean of each expert.  The model is in evaluation mode meanwhile.  Raises ValueError for empty data and TypeError
        for a discrete latent, which has a prior to sample from.
        """
        check_positive("items", items)
        check_positive("chunk", chunk)
        if not isinstance(data, Mapping) or not data:
            raise ValueError(f"ExPostDensity: the data are an empty or nameless {type(data).__name__}, wanted a dict from modality name to tensor")
        total = min(items, len(next(iter(data.values()))))
        means, training = [], model.training
        model.eval()
        try:
            for start in range(0, total, chunk):
                rows = slice(start, min(start + chunk, total))
                q = model.posterior({name: x[rows] for name, x in data.items()})["shared"]
                means += [_mean(expert) for expert in getattr(q, "experts", (q,))]
        finally:
            model.train(training)
        return cls.fit(torch.cat(means), components, **fit)

    def sample(self, n: int, generator: torch.Generator | None = None) -> Float[Tensor, "n latent"]:
        """n draws: a component by its weight, then a point of its Gaussian."""
        check_positive("n", n)
        k = torch.multinomial(self.weights, n, replacement=True, generator=generator)
        noise = torch.randn(n, self.means.shape[1], dtype=self.means.dtype, device=self.means.device, generator=generator)
        return self.means[k] + (self.factors[k] @ noise[..., None]).squeeze(-1)

    def log_prob(self, z: Float[Tensor, "*lead latent"]) -> Float[Tensor, "*lead"]:
        """log sum_k w_k N(z; mean_k, cov_k), for any leading axes; equation `eq-ex-post` of the book."""
        points = z.reshape(-1, z.shape[-1])
        return torch.cat([self._of_components(part).logsumexp(1) for part in points.split(POINTS)]).reshape(z.shape[:-1])

    def responsibilities(self, z: Float[Tensor, "items latent"]) -> Float[Tensor, "items components"]:
        """The posterior probability of each component given each point; rows add up to one."""
        return torch.cat([self._of_components(part).softmax(1) for part in z.split(POINTS)])

    def _of_components(self, points: Float[Tensor, "items latent"]) -> Float[Tensor, "items components"]:
        """log w_k N(z; mean_k, cov_k)."""
        gaps = (points - self.means[:, None]).mT
        squares = torch.linalg.solve_triangular(self.factors, gaps, upper=False).square().sum(1)
        return self._constant() - 0.5 * squares.T

    def _constant(self) -> Float[Tensor, "components"]:
        return self.weights.log() - self.factors.diagonal(dim1=1, dim2=2).log().sum(1) - 0.5 * self.means.shape[1] * LOG_2PI

    def to(self, like: Tensor | torch.device | str) -> "ExPostDensity":
        """The same density on another device, or with the dtype and device of a tensor."""
        return ExPostDensity(self.weights.to(like), self.means.to(like), self.factors.to(like))

    def save(self, path: str | os.PathLike) -> None:
        """Write the mixture as safetensors, to a new file that then takes the place of the old one."""
        path = Path(path)
        trial = path.with_name(path.name + ".tmp")
        tensors = {"weights": self.weights, "means": self.means, "factors": self.factors}
        try:
            save_file({k: v.detach().cpu().contiguous() for k, v in tensors.items()}, trial, {"format": FORMAT})
            os.replace(trial, path)
        except (OSError, SafetensorError) as e:
            trial.unlink(missing_ok=True)
            raise OSError(f"density {path.name} could not be written ({e}); choose another folder or free some space") from None

    @classmethod
    def load(cls, path: str | os.PathLike) -> "ExPostDensity":
        """Read what `save` wrote.  Raises FileNotFoundError, or ValueError for a file that is broken or something else."""
        path = Path(path)
        if not path.exists():
            raise FileNotFoundError(f"density {path.name}: no such file; fit one with ExPostDensity.of(model, data)")
        try:
            with safe_open(path, "pt") as f:
                form, tensors = (f.metadata() or {}).get("format"), {k: f.get_tensor(k) for k in f.keys()}
        except SafetensorError as e:
            raise ValueError(f"density {path.name} is broken ({e}); fit and save it again") from None
        if form != FORMAT:
            raise ValueError(f"density {path.name}: found format {form!r}, wanted {FORMAT!r}; fit and save it again")
        return cls(**tensors)


def _maximised_from(
    x: Float[Tensor, "items latent"], assignment: Int[Tensor, "items"], components: int, max_iter: int, tol: float | int
) -> tuple[float, ExPostDensity]:
    """The mean log-likelihood and the mixture that expectation maximisation reaches from clusters.

    Both steps are products of matrices with the points and their squares, which float64 allows for points around the origin.
    """
    squares = (x[:, :, None] * x[:, None]).flatten(1)
    share, before = torch.nn.functional.one_hot(assignment, components).to(x), -math.inf
    for _ in range(max_iter):
        density = _maximised(x, squares, share)
        joint = _log_joint(density, x, squares)
        value, share = float(joint.logsumexp(1).mean()), joint.softmax(1)
        if value - before < tol:
            break
        before = value
    return value, density


def _maximised(x: Float[Tensor, "items latent"], squares: Float[Tensor, "items _"], share: Float[Tensor, "items components"]) -> ExPostDensity:
    """The most likely mixture when so much of each item belongs to each component; equation `eq-em` of the book."""
    count = share.sum(0) + EMPTY
    means = share.T @ x / count[:, None]
    second = (share.T @ squares / count[:, None]).unflatten(1, (x.shape[1], x.shape[1]))
    covariances = second - means[:, :, None] * means[:, None] + RIDGE * torch.eye(x.shape[1], dtype=x.dtype)
    return ExPostDensity(count / count.sum(), means, torch.linalg.cholesky(covariances))


def _log_joint(
    density: ExPostDensity, x: Float[Tensor, "items latent"], squares: Float[Tensor, "items _"]
) -> Float[Tensor, "items components"]:
    """log w_k N(x; mean_k, cov_k) with the squares multiplied out."""
    precisions = torch.cholesky_inverse(density.factors)
    pulls = (precisions @ density.means[..., None])[..., 0]
    constant = density._constant() - 0.5 * (pulls * density.means).sum(1)
    return constant + x @ pulls.T - 0.5 * squares @ precisions.flatten(1).T


def _mean(q: object) -> Float[Tensor, "items latent"]:
    if not hasattr(q, "mean"):
        raise TypeError(f"ExPostDensity: the shared latent is a {type(q).__name__}, wanted a continuous one; sample its prior")
    return q.mean
