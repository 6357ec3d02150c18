"""DMVAE-D: shared and private latents, told apart by contrast and by an adversary (Daunhawer et al. 2021)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from mmvae_lite.checks import check_batch, check_name, check_positive
from mmvae_lite.distributions import Likelihood, Normal, kl
from mmvae_lite.ex_post import ExPostDensity
from mmvae_lite.information import Discriminator, check_items, info_nce
from mmvae_lite.models import _private as split
from mmvae_lite.models._adversary import adversarial_step, frozen_tc, permuted_loss
from mmvae_lite.models._common import (
    add_mean, check_same_modalities, check_target, parameter_like, presence, reparameterised,
)  # fmt: skip

Batch = Mapping[str, Float[Tensor, "batch ..."]]
A, B, ALL, SUBSET = range(4)
INNER = {"critic": "inner"}
NT_XENT = {"critic": "cosine", "symmetric": True, "same_view": True}


@dataclass(frozen=True)
class Codes:
    """What one step encodes and draws.  Sets of modalities: A, its complement B, all, and one subset a batch."""

    private: dict[str, Normal]  # q(s_m | x_m), [batch, private]
    s: dict[str, Tensor]  # a draw of each
    shared: Normal  # q(c | x_S) for the four sets, [4, batch, shared]
    c: Tensor  # a draw of each
    present: dict[str, Bool[Tensor, "4 batch"]]  # whether modality m of the item is in the set


class DMVAE_D(nn.Module):
    """p(c) prod_m p(s_m) p(x_m | c, s_m); contrast alone teaches c, and an adversary keeps s_m from knowing c.

    encoders: modality -> module from [batch, *event] to {"private": Normal, "shared": Normal}.
    decoders: modality -> module from [batch, private + shared] to the parameters of its likelihood.
    weights, betas, gamma, deltas: of log p(x_m | c, s_m), style KL, InfoNCE, total correlation (one number, or one for
        each modality); a contrast or a correlation of weight 0 is not computed.  `kl_warmup` scales `betas`.
    contrast: keyword arguments of `info_nce`.
    halves: True as in the code: the averages over the items with m in A and in B are added, so that reconstruction counts
        twice, and items without a modality in A are not contrasted.  False averages over all items, once.
    pool: "product" as in the code; "quotient" for the paper's equation 2, which raises where it is no density; or "prior"
        for a prior expert.
    discriminators: modality -> module from ([batch, private], [batch, shared]) to two logits.

    Set `density` to an `ExPostDensity` after training, to sample: c has no prior.  Source: Daunhawer et al. (2021),
    section 3, and the authors' code.  Raises ValueError or KeyError for settings that do not agree.
    """

    _MNIST_SVHN = {"weights": {"mnist": 3.92}, "betas": {"mnist": 100.0, "svhn": 50.0}, "gamma": 1000.0,
                   "deltas": {"mnist": 500.0, "svhn": 100.0}}  # fmt: skip
    PRESETS = {
        # Laplace scale 0.1, kl_warmup(6), batches of 1024.  The paper's text has no weights; these are the code's.
        "paper": {**_MNIST_SVHN, "contrast": INNER, "halves": False},
        "code": {**_MNIST_SVHN, "contrast": NT_XENT, "halves": True},
        # Paired noisy MNIST, kl_warmup(51); learning rate 3e-3 in the paper and 1e-3 in the code.
        "paper_paired": {"betas": 100.0, "gamma": 100.0, "deltas": 100.0, "contrast": INNER, "halves": False},
        "code_paired": {"betas": 10.0, "gamma": 100.0, "deltas": 100.0, "contrast": NT_XENT, "halves": True},
    }

    def __init__(
        self,
        encoders: Mapping[str, nn.Module],
        decoders: Mapping[str, nn.Module],
        likelihoods: Mapping[str, Likelihood],
        private_dim: int,
        shared_dim: int,
        weights: Mapping[str, float] | None = None,
        betas: float | int | Mapping[str, float] = 1.0,
        gamma: float | int = 1.0,
        deltas: float | int | Mapping[str, float] = 1.0,
        contrast: Mapping[str, object] = INNER,
        halves: bool = False,
        pool: str = "product",
        discriminators: Mapping[str, nn.Module] | None = None,
    ) -> None:
        super().__init__()
        check_positive("private_dim", private_dim)
        check_positive("shared_dim", shared_dim)
        check_name("pool", pool, split.POOLS)
        for option in contrast:
            check_name("option of the contrast", option, ("critic", "temperature", "symmetric", "same_view"))
        names = tuple(encoders)
        discriminators = discriminators or {m: Discriminator(private_dim, shared_dim) for m in names}
        check_same_modalities(encoders, decoders=decoders, likelihoods=likelihoods, discriminators=discriminators)
        self.encoders, self.decoders = nn.ModuleDict(encoders), nn.ModuleDict(decoders)
        self.discriminators, self.likelihoods = nn.ModuleDict(discriminators), dict(likelihoods)
        self.private_dims, self.shared_dim = dict.fromkeys(names, private_dim), shared_dim
        self.weights, self.betas, self.deltas = (split.for_each(names, w) for w in (weights, betas, deltas))
        self.gamma, self.beta, self.contrast = gamma, 1.0, dict(contrast)
        self.halves, self.pool, self.density = halves, pool, None
        self.event_shapes = split.split_event_shapes(decoders, dict.fromkeys(names, private_dim + shared_dim))

    @property
    def modalities(self) -> tuple[str, ...]:
        return tuple(self.encoders)

    def private_prior(self, modality: str, n: int) -> Normal:
        """p(s_m) = N(0, I) of shape [n, private]."""
        return Normal.standard(n, self.private_dims[modality], like=parameter_like(self))

    decode, log_px, translate, swap, traverse = split.decode, split.log_px, split.translate, split.swap, split.traverse

    def posterior(self, batch: Batch) -> dict[str, Normal]:
        """q(c | x_S) under `shared`; under `private/<modality>` q(s_m | x_m), or its prior where x_m is missing.

        The product is equation `eq-dmvae-d-product` of the book.
        """
        check_batch(batch, self.likelihoods, self.event_shapes, like=parameter_like(self))
        codes = {m: self.encoders[m](x) for m, x in batch.items()}
        shared = split.pooled({m: q["shared"] for m, q in codes.items()}, presence(batch, None, self.modalities), self.pool)
        styles = {m: self.private_prior(m, len(shared.mean)) for m in self.modalities}
        styles |= {m: q["private"] for m, q in codes.items()}
        return {"shared": shared, **{split.key(m): q for m, q in styles.items()}}

    def draw(self, batch: Batch, observed: Mapping[str, Tensor] | None = None, generator: torch.Generator | None = None) -> Codes:
        """Encode a batch; put each modality of each item into A or B by a coin; draw one subset of modalities for all.

        In evaluation mode A is everything, and means stand for draws.
        """
        check_batch(batch, self.likelihoods, self.event_shapes, like=parameter_like(self))
        there = presence(batch, observed, self.modalities)
        codes = {m: self.encoders[m](batch[m]) for m in there}
        here = torch.stack(list(there.values()))
        coins, kept = (torch.rand(s, device=here.device, generator=generator) for s in (here.shape, (len(here), 1)))
        in_a = here & (coins < 0.5) if self.training else here
        # The least of uniform numbers belongs to a uniformly drawn modality, so that the subset is never empty.
        subset = (kept < 0.5) | (kept == kept.min())
        present = dict(zip(there, torch.stack([in_a, here & ~in_a, here, here & subset], 1)))
        shared = split.pooled({m: q["shared"] for m, q in codes.items()}, present, self.pool)
        private = {m: q["private"] for m, q in codes.items()}
        s = {m: reparameterised(q, self.training, generator) for m, q in private.items()}
        return Codes(private, s, shared, reparameterised(shared, self.training, generator), present)

    def loss(
        self,
        batch: Batch,
        target: Batch | None = None,
        observed: Mapping[str, Bool[Tensor, "batch"]] | None = None,
        generator: torch.Generator | None = None,
    ) -> dict[str, Float[Tensor, ""]]:
        """The negative objective of equation 4, with the sign of its contrast mended; the discriminators stay as they are.

        `target` holds what is to be reconstructed, the input by default; a denoising model has clean targets.  Returns
        the total under `loss` and the unweighted `recon/<modality>` (with `halves` `A/recon/..` and `B/recon/..`),
        `kl/<modality>`, `tc/<modality>` and `info_nce`, which the code counts from its ceiling log(2N - 1).
        Raises ValueError for a batch of one, which leaves nothing to contrast.
        """
        return self.objective(self.draw(batch, observed, generator), batch if target is None else target)

    def objective(self, codes: Codes, target: Batch) -> dict[str, Float[Tensor, ""]]:
        """The terms of the loss from one draw, equation `eq-dmvae-d-loss` of the book.

        Decoders see the detached pooled mean of c, from the set that holds x_m.
        """
        check_batch(target, self.likelihoods, self.event_shapes, like=parameter_like(self))
        check_target(target, {m: q.mean for m, q in codes.private.items()})
        terms: dict[str, Tensor] = {}
        for m, q in codes.private.items():
            in_a, in_b, here, _ = codes.present[m]
            c = torch.where(in_a[:, None], codes.shared.mean[A], codes.shared.mean[B]).detach()
            log_px = self.log_px(m, {split.key(m): codes.s[m], "shared": c}, target[m])
            for name, rows in {"A/recon": in_a, "B/recon": in_b}.items() if self.halves else [("recon", here)]:
                add_mean(terms, f"{name}/{m}", log_px, rows)
            add_mean(terms, f"kl/{m}", kl(q, self.private_prior(m, len(c))), here)
        terms |= {f"tc/{m}": frozen_tc(self.discriminators[m], pair) for m, pair in self._pairs(codes).items()}
        if self.gamma:
            terms |= self._contrasted(codes)
        return {"loss": sum(self._weight(name) * value for name, value in terms.items()), **terms}

    def _weight(self, term: str) -> float:
        kind, _, m = term.rpartition("/")
        if kind.endswith("recon"):
            return -self.weights[m]
        return -self.gamma if not kind else self.beta * self.betas[m] if kind == "kl" else self.deltas[m]

    def _contrasted(self, codes: Codes) -> dict[str, Float[Tensor, ""]]:
        """InfoNCE between c of all modalities and c of the subset, over the items that have both; equation 5."""
        sets = torch.stack(list(codes.present.values())).any(0)
        check_items("info_nce", sets.shape[1])
        rows = sets[SUBSET] & sets[A if self.halves else ALL]
        enough = int(rows.sum()) >= 2
        return {"info_nce": info_nce(codes.c[ALL][rows], codes.c[SUBSET][rows], **self.contrast)} if enough else {}

    def _pairs(self, codes: Codes) -> dict[str, tuple[Tensor, Tensor]]:
        """(s_m, c) with c from A and detached, over the items with m in A, where those are two or more."""
        wanted = {m: s for m, s in codes.s.items() if self.deltas[m]}
        for s in wanted.values():
            check_items("density_ratio_tc", len(s))
        rows = {m: codes.present[m][A] for m in wanted}
        return {m: (s[rows[m]], codes.c[A][rows[m]].detach()) for m, s in wanted.items() if int(rows[m].sum()) >= 2}

    def discriminator_losses(self, codes: Codes, generator: torch.Generator | None = None) -> dict[str, Float[Tensor, ""]]:
        """Each discriminator's cross-entropy, in which nothing else learns."""
        return {m: permuted_loss(self.discriminators[m], pair, generator) for m, pair in self._pairs(codes).items()}

    def optimizers(self, lr: float | int = 1e-3, discriminator_lr: float | int = 1e-4) -> dict[str, torch.optim.Optimizer]:
        """What `fit` trains with unless told otherwise: Adam, and another Adam for the discriminators."""
        model = torch.optim.Adam([*self.encoders.parameters(), *self.decoders.parameters()], lr=lr)
        adversary = torch.optim.Adam(self.discriminators.parameters(), lr=discriminator_lr, betas=(0.5, 0.9))
        return {"model": model, "discriminators": adversary}

    step = staticmethod(adversarial_step)

    def _fitted(self, verb: str) -> ExPostDensity:
        """The density of c, where the model is."""
        if self.density is None:
            raise NotImplementedError(f"DMVAE-D has no prior of c; {verb} needs model.density = ExPostDensity.of(model, data)")
        if (found := self.density.means.shape[1]) != self.shared_dim:
            raise ValueError(f"model.density has {found} dimensions and c has {self.shared_dim}; fit it with ExPostDensity.of(model, data)")
        return self.density.to(parameter_like(self))

    def sample(self, n: int, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """Means of p(x_m | c, s_m) at n draws of c from `density`, and of s from its prior, each [n, *event]."""
        check_positive("n", n)
        c = self._fitted("sample").sample(n, generator)
        styles = {split.key(m): self.private_prior(m, n).rsample(generator=generator) for m in self.modalities}
        return self.decode({"shared": c, **styles})

    def _latents(self, batch: Batch, sample: bool, generator: torch.Generator | None) -> dict[str, Tensor]:
        """Posterior means; with `sample` the styles are drawn, while c enters a decoder as a mean, as in training."""
        q = self.posterior(batch)
        return {name: reparameterised(d, sample and name != "shared", generator) for name, d in q.items()}

    def log_likelihood(
        self, batch: Batch, samples: int = 1000, chunk: int = 100, generator: torch.Generator | None = None
    ) -> Float[Tensor, "batch"]:
        """An importance-sampled lower bound of log p(x_S) per item, with `density` as p(c)."""
        density, q = self._fitted("log_likelihood"), self.posterior(batch)
        priors = {"shared": density, **{split.key(m): self.private_prior(m, len(x)) for m, x in batch.items()}}
        proposals = {name: q[name] for name in priors}
        log_px = lambda z: sum(self.log_px(m, z, x) for m, x in batch.items())  # noqa: E731
        return split.split_log_likelihood(proposals, priors, log_px, samples, chunk, generator)

