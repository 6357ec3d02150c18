"""DMVAE-L: private and shared latents, the shared ones Gaussian or categorical (Lee and Pavlovic 2020)."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from mmvae_lite.checks import check_batch, check_name, check_positive
from mmvae_lite.distributions import Concrete, Likelihood, Normal
from mmvae_lite.experts import concrete_root
from mmvae_lite.information import (
    DISCRETE_LOGPROBS, WEIGHTS, check_items, decomposed, factor_log_prob, log_batch_weights, log_product, log_q_matrix,
)  # fmt: skip
from mmvae_lite.models import _private as split
from mmvae_lite.models._common import all_weights, check_same_modalities, check_target, parameter_like, presence

Batch = Mapping[str, Float[Tensor, "batch ..."]]
Densities = tuple[Tensor, Tensor, Tensor, Tensor]
JOINT = "joint"


class DMVAE_L(nn.Module):
    """p(z_s) prod_m p(z_pm) p(x_m | z_pm, z_s), with q(z_s | x) proportional to p(z_s) prod_m q(z_s | x_m).

    encoders: modality -> module from [batch, *event] to {"private": Normal, "shared": Normal or Concrete}.
    decoders: modality -> module from [batch, private + shared] to the parameters of its likelihood.
    private_dims: the size of each private latent; 0 for a modality without one, such as a label.
    shared: so many Gaussian dimensions, or (variables, classes) of concrete variables, read flat by decoders.
    n_data: the number of training items, which the weighting of the minibatch estimates needs.
    weights, tc_weights: lambda_m and beta_m of the paper, 1 unless given.
    weighting, discrete_logprob: see `log_batch_weights` and `factor_log_prob`.
    blocks: False takes MI, TC and DW of the concatenation [z_pm, z_s], as in section 4.1 and the code; True takes those
        of each block and adds them up, as equation 5 reads, which leaves private and shared free to depend on each other.
    root: whether decoders read the root of a joint concrete draw (see `concrete_root`).
    unpaired: the modalities that learn from items that have nothing else; all by default, the image alone in the code.

    Source: Lee and Pavlovic (2020), section 4.  Raises ValueError or KeyError for settings that do not agree.
    """

    PRESETS = {
        # The text gives no lambda, no beta and no weighting of its own; T is in appendix A.2.  Adam at 1e-3 and batches of 100 for MNIST.
        "paper": {"temperature": 0.66, "root": True, "weighting": "unbiased"},
        # Of the first author's development code, near the reported MNIST setting with few labels; lambda rises to 1e5.
        "code": {"temperature": 0.66, "root": True, "weighting": "probtorch", "weights": {"label": 1e4},
                 "tc_weights": {"image": 3.0}, "unpaired": ("image",)},
    }  # fmt: skip

    def __init__(
        self,
        encoders: Mapping[str, nn.Module],
        decoders: Mapping[str, nn.Module],
        likelihoods: Mapping[str, Likelihood],
        private_dims: Mapping[str, int],
        shared: int | tuple[int, int],
        n_data: int,
        weights: Mapping[str, float] | None = None,
        tc_weights: Mapping[str, float] | None = None,
        temperature: float = 0.66,
        root: bool = True,
        weighting: str = "unbiased",
        discrete_logprob: str = "argmax",
        blocks: bool = False,
        unpaired: Collection[str] | None = None,
    ) -> None:
        super().__init__()
        self.sizes = shared if isinstance(shared, tuple) else (shared,)
        for name, value in (("n_data", n_data), *(("shared", size) for size in self.sizes)):
            check_positive(name, value)
        check_same_modalities(encoders, decoders=decoders, likelihoods=likelihoods, private_dims=private_dims)
        check_name("weighting", weighting, WEIGHTS)
        check_name("discrete_logprob", discrete_logprob, DISCRETE_LOGPROBS)
        for m in unpaired or ():
            check_name("modality", m, encoders)
        self.encoders, self.decoders = nn.ModuleDict(encoders), nn.ModuleDict(decoders)
        self.likelihoods, self.private_dims, self.n_data = dict(likelihoods), dict(private_dims), n_data
        self.weights, self.tc_weights = (all_weights(tuple(encoders), w) for w in (weights, tc_weights))
        self.temperature, self.root, self.weighting, self.blocks = temperature, root, weighting, blocks
        self.discrete_logprob, self.beta = discrete_logprob, 1.0
        self.unpaired = tuple(encoders) if unpaired is None else tuple(unpaired)
        self.shared_dim = torch.Size(self.sizes).numel()
        self.event_shapes = split.split_event_shapes(decoders, {m: dim + self.shared_dim for m, dim in private_dims.items()})

    @property
    def modalities(self) -> tuple[str, ...]:
        return tuple(self.encoders)

    def prior(self, n: int) -> dict[str, Normal | Concrete]:
        """N(0, I) for every private latent; N(0, I) or equal classes for the shared one, n items of each."""
        like = parameter_like(self)
        private = {split.key(m): Normal.standard(n, dim, like=like) for m, dim in self.private_dims.items() if dim}
        if len(self.sizes) == 1:
            return {"shared": Normal.standard(n, *self.sizes, like=like), **private}
        return {"shared": Concrete.uniform(n, *self.sizes, temperature=self.temperature, like=like), **private}

    decode, log_px, traverse = split.decode, split.log_px, split.traverse

    def posterior(self, batch: Batch, n: int = 1) -> dict[str, Normal | Concrete]:
        """q(z_s | x_S) under `shared`, and under `private/<modality>` q(z_pm | x_m), or its prior where x_m is missing.

        Equation `eq-hybrid-posterior` of the book.

        One modality alone gives its own expert, without the prior, as in the text; an empty batch gives the prior.
        """
        check_batch(batch, self.likelihoods, self.event_shapes, allow_empty=True, like=parameter_like(self))
        if not batch:
            return self.prior(n)
        prior = self.prior(len(next(iter(batch.values()))))
        codes = split.encoded(self.encoders, batch, prior["shared"])
        private = {split.key(m): q["private"] for m, q in codes.items() if self.private_dims[m]}
        return {**prior, **private, "shared": split.combined([q["shared"] for q in codes.values()])}

    def loss(
        self,
        batch: Batch,
        target: Batch | None = None,
        observed: Mapping[str, Bool[Tensor, "batch"]] | None = None,
        generator: torch.Generator | None = None,
    ) -> dict[str, Float[Tensor, ""]]:
        """The negative of equation 4 with the KL terms of equation 5, mean over the items that can learn.

        Equation `eq-hybrid-loss` of the book, with every KL split and weighted as in its equation `eq-tc-weight`.

        An item with several modalities has, for each of them, a term for every source of z_s: the joint posterior and
        each modality's own.  An item with one has its own source alone, M + 1 times, so that it weighs as much.
        Items that have the same modalities form a group, whose minibatch estimates are its own.  Returns the total
        under `loss` and the unweighted `<source>/recon/<modality>`, and likewise `mi`, `tc` and `dw`, each the mean over the
        items that have it.  In a group of one item they cannot be told apart and stand together as `kl`.

        `target` holds what is to be reconstructed, the input by default.  Raises ValueError for a batch of one.
        """
        check_batch(batch, self.likelihoods, self.event_shapes, like=parameter_like(self))
        if target is not None:
            check_batch(target, self.likelihoods, self.event_shapes, like=parameter_like(self))
        target = batch if target is None else target
        there = presence(batch, observed, self.modalities)
        check_target(target, there)
        n = len(next(iter(there.values())))
        check_items("mi_tc_dw", n)
        groups = [(s, rows) for s, rows in split.groups(there) if len(s) > 1 or s[0] in self.unpaired]
        if not groups:
            raise ValueError(f"no item can learn: each has one modality, and unpaired is {list(self.unpaired)}; pair some items")
        items, total, found = sum(len(rows) for _, rows in groups), 0.0, {}
        for members, rows in groups:
            terms = self._terms(*({m: side[m] if len(rows) == n else side[m][rows] for m in members} for side in (batch, target)), generator)
            sources = len(members) + 1 if len(members) > 1 else 1
            share = len(rows) / items * (len(self.encoders) + 1) / sources
            values = torch.stack(list(terms.values()))
            total = total + share * (values @ values.new_tensor([self._weight(name) for name in terms]))
            for name, value in terms.items():
                found.setdefault(name, []).append((len(rows), value))
        return {"loss": total, **{name: split.average(values) for name, values in found.items()}}

    def _weight(self, term: str) -> float:
        _, kind, m = term.split("/")
        return {"recon": -self.weights[m], "tc": self.beta * self.tc_weights[m]}.get(kind, self.beta)

    def _terms(self, batch: Batch, target: Batch, generator: torch.Generator | None) -> dict[str, Tensor]:
        """The terms of a group of items that have all the modalities of the batch; one private draw serves every source."""
        n = len(next(iter(batch.values())))
        prior = self.prior(n)
        codes = split.encoded(self.encoders, batch, prior["shared"])
        private = {m: q["private"] for m, q in codes.items() if self.private_dims[m]}
        z = {m: q.rsample(generator=generator) for m, q in private.items()}
        log_w = log_batch_weights(n, self.n_data, self.weighting, parameter_like(self)) if n > 1 else None
        styles = {m: self._densities(q, prior[split.key(m)], z[m], log_w) for m, q in private.items()}
        experts = {m: q["shared"] for m, q in codes.items()}
        sources = experts if len(experts) == 1 else {JOINT: split.combined(list(experts.values())), **experts}
        z_shared = {source: q.rsample(generator=generator) for source, q in sources.items()}
        read = torch.stack([self._flat(z_s, len(experts) if source == JOINT else 1) for source, z_s in z_shared.items()])
        each = [self._densities(q, prior["shared"], z_shared[source], log_w) for source, q in sources.items()]
        shared = tuple(torch.stack(parts) for parts in zip(*each))
        terms = {}
        for m, x in target.items():  # every source at once, [sources, batch, latent]
            style = {split.key(m): z[m].expand(len(sources), -1, -1)} if m in z else {}
            log_px = self.log_px(m, {"shared": read, **style}, x).mean(-1)
            divergences = self._divergences([shared, styles[m]] if m in styles else [shared], log_w)
            for kind, values in {"recon": log_px, **divergences}.items():
                terms |= {f"{source}/{kind}/{m}": value for source, value in zip(sources, values.unbind())}
        return terms

    def _densities(self, q: Normal | Concrete, prior: Normal | Concrete, z: Tensor, log_w: Tensor | None) -> Densities:
        """What `decomposed` takes for one latent: log q(z_i | x_j), of z_i the marginals, log q(z_i | x_i) and log p(z_i)."""
        log_q, log_p = log_q_matrix(q, z, self.discrete_logprob), factor_log_prob(prior, z, self.discrete_logprob).sum(-1)
        joint = log_q.sum(-1)
        return joint, joint.diagonal() if log_w is None else log_product(log_q, log_w), joint.diagonal(), log_p

    def _divergences(self, latents: Sequence[Densities], log_w: Tensor | None) -> dict[str, Tensor]:
        """MI, TC and DW of the latents together, or of each and summed if `blocks`."""
        if log_w is None:
            return {"kl": sum((own - log_p).sum(-1) for _, _, own, log_p in latents)}
        together = latents if self.blocks else [[sum(parts) for parts in zip(*latents)]]
        return {name: sum(values) for name, values in zip(("mi", "tc", "dw"), zip(*(decomposed(*d, log_w) for d in together)))}

    def _flat(self, z: Float[Tensor, "..."], experts: int = 1) -> Float[Tensor, "..."]:
        """What a decoder reads of a shared draw; of a joint one the root, because the prior and the experts multiply."""
        if len(self.sizes) == 1:
            return z
        return (concrete_root(z, experts + 1) if self.root and experts > 1 else z).flatten(-2)

    def _latents(self, batch: Batch, sample: bool, generator: torch.Generator | None, hard: bool, n: int = 1) -> dict[str, Tensor]:
        """Flat draws from the posterior, or its means and modes; `hard` rounds a concrete draw to its class."""
        z = {name: split.drawn(q, sample, hard, generator) for name, q in self.posterior(batch, n).items()}
        return {**z, "shared": self._flat(z["shared"], len(batch) if sample and not hard else 1)}

    def _mixed(
        self, content: Batch, style: Batch | None, sample: bool, generator: torch.Generator | None, hard: bool
    ) -> dict[str, Tensor]:
        """z_s of one batch with the private latents of another, or of the prior."""
        ours = self._latents(content, sample, generator, hard)
        theirs = ours if style is content else self._latents(style or {}, sample, generator, hard, len(ours["shared"]))
        return split.swapped(ours, theirs)

    def sample(self, n: int, generator: torch.Generator | None = None, hard: bool = True) -> dict[str, Tensor]:
        """Means of p(x_m | z_pm, z_s) at n draws from the priors, each [n, *event]; concrete draws rounded if `hard`."""
        check_positive("n", n)
        return self.decode(self._latents({}, True, generator, hard, n))

    def translate(
        self, batch: Batch, to: str, sample: bool = False, generator: torch.Generator | None = None,
        style: Batch | None = None, hard: bool = True,
    ) -> Float[Tensor, "batch *event"]:  # fmt: skip
        """The mean of p(x_to | z_pto, z_s) with z_s from the batch and z_pto from `style`, which is the batch by default.

        Where the style lacks x_to its prior is taken.  Means and modes unless `sample`; the paper classifies an image with
        `sample=True, hard=False`, by a relaxed draw.
        """
        check_name("modality", to, self.modalities)
        z = split.joined(self._mixed(batch, batch if style is None else style, sample, generator, hard), to)
        return self.likelihoods[to].mean(self.decoders[to](z))

    def swap(
        self, content: Batch, style: Batch | None = None, sample: bool = False,
        generator: torch.Generator | None = None, hard: bool = True,
    ) -> dict[str, Tensor]:  # fmt: skip
        """z_s of one batch with the private latents of another, item by item; without `style`, with those of the prior."""
        return self.decode(self._mixed(content, style, sample, generator, hard))

    def log_likelihood(
        self, batch: Batch, samples: int = 1000, chunk: int = 100, generator: torch.Generator | None = None
    ) -> Float[Tensor, "batch"]:
        """An importance-sampled lower bound of log p(x_S) per item, in which a concrete z_s is relaxed and has no root."""
        check_batch(batch, self.likelihoods, self.event_shapes, like=parameter_like(self))
        q, priors = self.posterior(batch), self.prior(len(next(iter(batch.values()))))
        proposals = {name: q[name] for name in q if name == "shared" or name.removeprefix("private/") in batch}

        def log_px(z: Mapping[str, Tensor]) -> Tensor:
            flat = {**z, "shared": self._flat(z["shared"])}
            return sum(self.log_px(m, flat, x) for m, x in batch.items())

        return split.split_log_likelihood(proposals, priors, log_px, samples, chunk, generator)
