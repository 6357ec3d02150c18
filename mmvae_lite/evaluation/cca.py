"""Whether images and captions belong together, by canonical correlation analysis (Shi et al. 2019, section 4.3).

Projections of image features and sentence vectors are fitted on real training pairs; the score of other pairs is the mean
cosine of their projections.  The paper's features are those of a ResNet-101 trained on ImageNet; whatever is used here is
named beside the number, and numbers of other features or other sentence vectors cannot be compared.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int, Num
from torch import Tensor, nn
from torch.nn import functional as F

from mmvae_lite.checks import check_name, check_positive
from mmvae_lite.data.parts import Part, as_float
from mmvae_lite.evaluation._common import at_rest, generator_for, in_chunks
from mmvae_lite.evaluation.sentences import SentenceVectors, fit_sentences, variety
from mmvae_lite.models._common import parameter_like

Features = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class CCA:
    """Projections of two views, float64: means [p] and [q], matrices [p, k] and [q, k], the correlations [k] of the fit."""

    means: tuple[Tensor, Tensor]
    projections: tuple[Tensor, Tensor]
    correlations: Float[Tensor, "k"]

    def cosines(self, first: Float[Tensor, "n p"], second: Float[Tensor, "n q"]) -> Float[Tensor, "n"]:
        """The cosine between the projections of each pair, less the means of the fit; 0 where one of them vanishes.

        Equation `eq-cca-score` of the book (Shi et al. 2019, equation 4).
        """
        if len(first) != len(second):
            raise ValueError(f"cosines: found {len(first)} and {len(second)} items, wanted pairs")
        a, b = ((x.double().cpu() - m) @ w for x, m, w in zip((first, second), self.means, self.projections))
        return F.cosine_similarity(a, b, dim=1)


def fit_cca(first: Float[Tensor, "n p"], second: Float[Tensor, "n q"], k: int = 40, ridge: int | float = 1e-4) -> CCA:
    """The k pairs of directions in which two views [n, p] and [n, q] of the same items correlate most, in float64.

    Equation `eq-cca` of the book (Shi et al. 2019, section 4.3).
    Each projection has variance 1 and is uncorrelated with the others of its view.  ridge: a share of the mean variance
    that is added to each, so that features which never vary do no harm; the paper's program adds 1e-12.

    Raises ValueError when the items do not pair up, are too few, hold NaN or infinity, or k is more than p or q.
    """
    check_positive("k", k)
    if len(first) != len(second):
        raise ValueError(f"fit_cca: found {len(first)} and {len(second)} items, wanted pairs")
    if k > min(first.shape[1], second.shape[1]):
        raise ValueError(f"k: found {k}, wanted at most {min(first.shape[1], second.shape[1])}, the smaller number of features")
    if len(first) <= k:
        raise ValueError(f"fit_cca: found {len(first)} pairs, wanted more than k = {k}, better many times as many")
    if not ridge >= 0:
        raise ValueError(f"ridge: found {ridge}, wanted 0 or more")
    views = [x.double().cpu() for x in (first, second)]
    for name, x in zip(("first", "second"), views):
        if not bool(torch.isfinite(x).all()):
            raise ValueError(f"fit_cca: the {name} view holds NaN or infinity; wanted finite features")
    means = tuple(x.mean(0) for x in views)
    centred = [x - m for x, m in zip(views, means)]
    whitening = [_inverse_root(x.T @ x / (len(x) - 1), ridge) for x in centred]
    cross = centred[0].T @ centred[1] / (len(first) - 1)
    u, s, vh = torch.linalg.svd(whitening[0] @ cross @ whitening[1])
    sign = u[:, :k].gather(0, u[:, :k].abs().argmax(0, keepdim=True)).sign()
    return CCA(means, (whitening[0] @ u[:, :k] * sign, whitening[1] @ vh.T[:, :k] * sign), s[:k])


def _inverse_root(covariance: Tensor, ridge: int | float) -> Tensor:
    """Its inverse square root with the ridge; directions without any variance are left out."""
    values, vectors = torch.linalg.eigh(covariance)
    mean = values.clamp_min(0).mean()
    values = values + ridge * mean
    kept = values > 1e-12 * values.max()
    return vectors * torch.where(kept, values.clamp_min(1e-300).rsqrt(), 0.0) @ vectors.T


@dataclass(frozen=True)
class CaptionJudge:
    """What scores pairs of images and captions: image features, sentence vectors and the CCA of real training pairs.

    features: images [n, *event] -> [n, features]; None for images that are features already.  training: the captions,
    as word numbers, that `variety` compares with.  Called with images and word numbers it gives the cosines [n].
    """

    features: Features | None
    vectors: SentenceVectors
    cca: CCA
    training: Int[Tensor, "captions length"]
    image: str = "image"
    caption: str = "caption"

    def __call__(self, images: Num[Tensor, "n *event"], ids: Int[Tensor, "n length"]) -> Float[Tensor, "n"]:
        return self.cca.cosines(described(self.features, images), self.vectors(ids))

    def score(self, images: Num[Tensor, "n *event"], ids: Int[Tensor, "n length"]) -> dict[str, float]:
        """`value`, the mean cosine, its standard error `se` and `n`; `shuffled`, that of the same images and captions,
        each with another's; `distinct` and `copied` of the captions, as in `variety`.

        `se` takes the pairs for independent, and is too small where an image comes with several captions.
        Raises ValueError for fewer than two pairs.
        """
        if len(images) < 2:
            raise ValueError(f"score: found {len(images)} pairs, wanted at least 2")
        first, second = described(self.features, images), self.vectors(ids)
        cosines, n = self.cca.cosines(first, second), len(images)
        shuffled = self.cca.cosines(first, second.roll(n // 2, 0))
        spread = variety(ids, self.training)
        found = {"value": cosines.mean(), "se": cosines.std() / n**0.5, "shuffled": shuffled.mean()}
        return {name: float(x) for name, x in found.items()} | spread


@torch.no_grad()
def described(features: Features | None, images: Num[Tensor, "n *event"], chunk: int = 500) -> Float[Tensor, "n features"]:
    """The features of images [n, *event], uint8 or float, in chunks, on the device of the network if it is a module.

    Flattened images where there is no network.
    """
    if features is None:
        return as_float(images).flatten(1)
    like = parameter_like(features) if isinstance(features, nn.Module) else torch.empty(0)
    parts = (as_float(part) for part in images.split(chunk))
    return torch.cat([features(part.to(like) if like.numel() else part) for part in parts])


def fit_caption_judge(
    data: Part, features: Features | None, *, size: int = 100, k: int = 40, ridge: int | float = 1e-4, image: str = "image", caption: str = "caption"
) -> CaptionJudge:
    """A judge of images with captions from a training partition whose captions are word numbers.

    features: see `CaptionJudge`.  size, k, ridge: as in `fit_sentences` and `fit_cca`.
    Raises KeyError for a modality that the data lack, ValueError where the captions are no word numbers.
    """
    for name in (image, caption):
        check_name("modality", name, data.batch)
    if caption not in data.words:
        raise ValueError(f"modality {caption!r}: found no word numbers, wanted a Part whose `words` names it")
    captions = data.batch[caption]
    vectors = fit_sentences(captions, data.words[caption], min(size, data.words[caption]))
    seen = described(features, data.batch[image])
    rows = [data.index.get(name, torch.arange(len(data))) for name in (image, caption)]
    cca = fit_cca(seen.cpu()[rows[0]], vectors(captions)[rows[1]], k, ridge)
    return CaptionJudge(features, vectors, cca, captions, image, caption)


def real_correlation(data: Part, judge: CaptionJudge) -> dict[str, float]:
    """The score of real tuples, which no generator should be expected to exceed; as `CaptionJudge.score`."""
    seen = {judge.image: described(judge.features, data.batch[judge.image]).cpu(), judge.caption: data.batch[judge.caption].cpu()}
    images, ids = (x[data.index[m].cpu()] if m in data.index else x for m, x in seen.items())
    return _without_network(judge).score(images, ids)


def joint_correlation(model: Any, judge: CaptionJudge, n: int = 1000, chunk: int = 250, seed: int = 0) -> dict[str, float]:
    """The score of n joint draws from the model's prior, the likeliest word at each place; 1000 in the paper.

    model: has `sample(n, generator)`.
    """
    check_positive("n", n)
    check_positive("chunk", chunk)
    images, ids = [], []
    with at_rest(model) as like:
        generator = generator_for(seed, "joint correlation", like)
        for start in range(0, n, chunk):
            made = model.sample(min(chunk, n - start), generator=generator)
            images.append(described(judge.features, made[judge.image]).cpu())
            ids.append(made[judge.caption].argmax(-1).cpu())
    return _without_network(judge).score(torch.cat(images), torch.cat(ids))


def cross_correlation(
    model: Any, data: Part, judge: CaptionJudge, *, sample: bool = True, chunk: int = 250, seed: int = 0
) -> dict[str, dict[str, float]]:
    """The scores of real images with the captions made from them, and of real captions with the images made from them.

    model: has `translate(batch, to, sample, generator)`; sample: latents are drawn, as in the paper.
    Returns `image->caption` and `caption->image`, each as `CaptionJudge.score`; one caption is made for each tuple.
    """
    image, caption, results = judge.image, judge.caption, {}
    for given, to in ((image, caption), (caption, image)):
        images, ids = [], []
        with at_rest(model) as like:
            generator = generator_for(seed, f"{given}->{to}", like)
            for _, batch in in_chunks(data, (image, caption), chunk, like):
                pair = batch | {to: model.translate({given: batch[given]}, to, sample=sample, generator=generator)}
                images.append(described(judge.features, pair[image]).cpu())
                ids.append(pair[caption].argmax(-1).cpu())
        results[f"{given}->{to}"] = _without_network(judge).score(torch.cat(images), torch.cat(ids))
    return results


def _without_network(judge: CaptionJudge) -> CaptionJudge:
    """The same judge for images whose features are known."""
    return CaptionJudge(None, judge.vectors, judge.cca, judge.training, judge.image, judge.caption)
