"""e-, me- and m-MNIST: digits with garments that share what varies within a class, that do not, and as they come.

e-MNIST is made by two conditional autoencoders, one of digits and one of garments, from one latent (Korthals et al. 2019,
section 1.1).  The authors publish no file, so that the set is a generator's: ours are small dense networks whose decoders
ship with the package, and numbers on it compare with the paper's in their gaps only.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn
from torch.nn import functional as F

from mmvae_lite.checks import check_name, check_positive
from mmvae_lite.data.entangled import permuted_within_classes, radius_of, truncated_normal
from mmvae_lite.data.labelled_images import DIGITS, Split, fashion_mnist, mnist
from mmvae_lite.data.parts import MultimodalSet, Part
from mmvae_lite.distributions import BernoulliLikelihood
from mmvae_lite.models import CVAE
from mmvae_lite.networks import ConditionalEncoder, mlp
from mmvae_lite.pretrained import load_network

KINDS = {
    "e": "digits and garments decoded from one latent by our conditional autoencoders (our generated set)",
    "me": "the items of e-MNIST with the garments permuted within each class (our generated set)",
    "m": "MNIST beside Fashion-MNIST, both sorted by class",
}
SOURCES = ("best", "real", "stand-in")
GENERATORS = ("digit", "garment")
TEST_SHARE = 0.01


def generator_network(latent_dim: int = 2, classes: int = 10, hidden: int = 256) -> nn.Sequential:
    """The decoder of our conditional autoencoders, [batch, latent + classes] -> logits [batch, 1, 28, 28].

    Dense where the paper has convolutions (`cvae_decoder`): a sixth of the weights, and a picture in well under a millisecond.
    """
    return nn.Sequential(*mlp([latent_dim + classes, hidden, hidden, 784], nn.SiLU), nn.Unflatten(1, (1, 28, 28)))


def generator_cvae(modality: str, latent_dim: int = 2, classes: int = 10, beta: float = 4.0) -> CVAE:
    """The conditional autoencoder around `generator_network`, as it was trained: beta 4 as in the authors' program."""
    merge = nn.Sequential(mlp([784 + classes, 512, 256], nn.SiLU), nn.SiLU())
    encoder = ConditionalEncoder(nn.Flatten(), merge, 256, latent_dim)
    return CVAE(encoder, generator_network(latent_dim, classes), BernoulliLikelihood(), latent_dim, classes, modality=modality, beta=beta)


def generators() -> dict[str, nn.Sequential]:
    """The shipped decoders, `digit` and `garment`, each as `generator_network`; both read the same latent and class.

    Raises BadWeights where they are missing or broken.
    """
    return {modality: load_network(f"cvae-{modality}", generator_network)[0] for modality in GENERATORS}


@torch.no_grad()
def generate(
    decoder: nn.Module, z: Float[Tensor, "items latent"], classes: Int[Tensor, "items"], chunk: int = 2000
) -> UInt8[Tensor, "items 1 28 28"]:
    """The mean pictures of latents in their classes, in 256 levels, without pixel noise."""
    labels = F.one_hot(classes, 10).to(z)
    parts = zip(z.split(chunk), labels.split(chunk))
    return torch.cat([(255 * decoder(torch.cat([a, b], -1)).sigmoid()).round().to(torch.uint8) for a, b in parts])


def entangled(
    source: str = "best",
    *,
    kind: str = "e",
    radius: str | float = "paper",
    per_class: int = 7000,
    disjoint: bool = False,
    download: bool = False,
    seed: int = 0,
) -> MultimodalSet:
    """Pairs `digit` and `garment` [items, 1, 28, 28] with their one-hot `label` [items, 10]; digit k goes with garment k.

    kind: `e`, where one latent makes both pictures of a pair; `me`, the fair control, with the same pictures and classes but
        the garments of each class permuted; `m`, the original pictures sorted by class and put side by side, without the
        pairs whose classes differ at the borders.
    radius: how far from the origin a latent may lie, `paper` 2 or `code` 1.645 standard deviations, or a number.
    per_class: how many latents are drawn, once; each is decoded in all ten classes.  7000 is the paper's.
    disjoint: the paper shuffles all pairs before it takes one in a hundred as the test set, so that a test latent was seen
        in training with other classes.  True holds out one latent in a hundred with all its pairs.

    `e` and `me` need no data: shipped decoders make them, for every source but `real`, and they are marked as a stand-in.
    Their facts are `latent` [items, 2], and `garment_latent` in `me`, whose partitions hold the same pictures as those of `e`.
    `m` needs MNIST and Fashion-MNIST, and its test set is that of their test files.

    Source: Korthals et al. (2019), sections 1.1 and 3.  Raises KeyError for an unknown source, kind or radius, ValueError for a
    number out of range, FileNotFoundError where the files are missing.
    """
    check_name("source", source, SOURCES)
    check_name("kind", kind, KINDS)
    if kind == "m":
        return _side_by_side(source, download)
    check_positive("per_class", per_class)
    if source == "real":
        raise FileNotFoundError(f"{kind}-mnist: the authors publish no file of it; take source 'best', which is generated by our networks, or kind 'm'")
    g = torch.Generator().manual_seed(seed)
    drawn = truncated_normal(per_class, 2, radius_of(radius), g)
    rows, classes = torch.arange(per_class).repeat(10), torch.arange(10).repeat_interleave(per_class)
    order = torch.randperm(len(rows), generator=g)
    rows, classes = rows[order], classes[order]
    held_out = _held_out(rows, per_class, disjoint)
    decoders = generators()
    train, test = (_generated(decoders, drawn[rows[part]], classes[part], kind, g) for part in (~held_out, held_out))
    return MultimodalSet(f"{kind}-mnist", KINDS[kind], True, train, test, class_names=DIGITS)


def _held_out(rows: Int[Tensor, "items"], per_class: int, disjoint: bool) -> Tensor:
    """True for the test items: the first hundredth of the shuffled pairs, or all pairs of a hundredth of the latents."""
    if disjoint:
        return rows < max(1, round(TEST_SHARE * per_class))
    return torch.arange(len(rows)) < max(1, round(TEST_SHARE * len(rows)))


def _generated(decoders: dict[str, nn.Sequential], z: Tensor, classes: Tensor, kind: str, g: torch.Generator) -> Part:
    batch = {modality: generate(decoder, z, classes) for modality, decoder in decoders.items()}
    batch["label"] = F.one_hot(classes, 10).float()
    if kind == "e":
        return Part(batch, classes, facts={"latent": z})
    partner = permuted_within_classes(classes, g)
    return Part(batch, classes, {"garment": partner}, {"latent": z, "garment_latent": z[partner]})


def _side_by_side(source: str, download: bool) -> MultimodalSet:
    if source == "stand-in":
        raise FileNotFoundError("m-mnist: nothing stands in for it, since it is the original pictures side by side; take kind 'me', or put the data in place")
    digits, garments = mnist(download), fashion_mnist(download)
    train, test = (_zipped(getattr(digits, part), getattr(garments, part)) for part in ("train", "test"))
    return MultimodalSet("m-mnist", KINDS["m"], False, train, test, class_names=DIGITS)


def _zipped(digits: Split, garments: Split) -> Part:
    """Both sorted by class and put side by side, without the pairs of two classes."""
    n = min(len(digits), len(garments))
    left, right = (split.classes.argsort(stable=True)[:n] for split in (digits, garments))
    same = digits.classes[left] == garments.classes[right]
    classes = digits.classes[left][same]
    batch = {"digit": digits.images, "garment": garments.images}
    batch = {m: (255 * x).round().to(torch.uint8) for m, x in batch.items()}
    batch["label"] = F.one_hot(classes, 10).float()
    return Part(batch, classes, {"digit": left[same], "garment": right[same]})
