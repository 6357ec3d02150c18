"""Vectors of sentences, without a network: what words stand near which, weighted by how rare they are.

Shi et al. (2019) train FastText on the captions and average it with the weights of Arora et al. (2017).  Here a word's
vector comes from a truncated singular value decomposition of positive pointwise mutual information (Levy and Goldberg
2014), which needs no training and no package, and gives the same numbers each time.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mmvae_lite.checks import check_positive
from mmvae_lite.data.captions import END, PADDING, SPECIAL

NAME = "SVD of PPMI, SIF weights"
"""What these vectors are called beside a number."""

_PADDING, _END = SPECIAL.index(PADDING), SPECIAL.index(END)


def cooccurrence(ids: Int[Tensor, "captions length"], vocabulary: int, window: int = 3) -> Float[Tensor, "words words"]:
    """How often two words stand at most `window` words apart in a caption, counted both ways: [vocabulary, vocabulary].

    The end and what follows it, and padding, are no words.
    """
    check_positive("window", window)
    ids, real = ids.long(), _real(ids)
    counts = torch.zeros(vocabulary * vocabulary, dtype=torch.float64)
    for gap in range(1, min(window, ids.shape[1] - 1) + 1):
        both = real[:, :-gap] & real[:, gap:]
        pairs = (ids[:, :-gap] * vocabulary + ids[:, gap:])[both]
        counts += torch.bincount(pairs.cpu(), minlength=vocabulary * vocabulary)
    counts = counts.view(vocabulary, vocabulary)
    return counts + counts.T


def ppmi(counts: Float[Tensor, "words words"]) -> Float[Tensor, "words words"]:
    """max(0, log p(a, b) / p(a) p(b)) of counted pairs; 0 where a pair never occurs."""
    total, single = counts.sum(), counts.sum(1)
    ratio = counts * total / (single[:, None] * single[None, :]).clamp_min(1e-300)
    return torch.where(counts > 0, ratio.clamp_min(1).log(), 0.0)


def word_vectors(ppmi: Float[Tensor, "words words"], size: int) -> Float[Tensor, "words size"]:
    """U sqrt(S) of the largest `size` singular values of a symmetric matrix; the largest entry of each column is positive.

    Raises ValueError for a size above the number of words.
    """
    check_positive("size", size)
    if size > len(ppmi):
        raise ValueError(f"size: found {size}, wanted at most {len(ppmi)}, the number of words")
    values, vectors = torch.linalg.eigh(ppmi)  # its singular values are the eigenvalues without their sign
    order = values.abs().argsort(descending=True, stable=True)[:size]
    vectors = vectors[:, order]
    sign = vectors.gather(0, vectors.abs().argmax(0, keepdim=True)).sign()
    return vectors * sign * values[order].abs().sqrt()


def _real(ids: Tensor) -> Tensor:
    """True for words before the end that are no padding."""
    return ((ids == _END).cumsum(1) == 0) & (ids != _PADDING)


@dataclass(frozen=True)
class SentenceVectors:
    """What `fit_sentences` learnt: called with word numbers [captions, length] it gives vectors [captions, size].

    words: vectors [words, size].  weights: a / (a + p(word)) [words].  common: the direction that all sentences share,
    removed from each [size].  All are float64 on the CPU, and so is the result.
    """

    words: Float[Tensor, "words size"]
    weights: Float[Tensor, "words"]
    common: Float[Tensor, "size"]

    def __call__(self, ids: Int[Tensor, "captions length"]) -> Float[Tensor, "captions size"]:
        ids = ids.cpu().long()
        if ids.numel() and not 0 <= int(ids.min()) <= int(ids.max()) < len(self.words):
            raise ValueError(f"word numbers: found {int(ids.min())} to {int(ids.max())}, wanted 0 to {len(self.words) - 1}")
        mean = _means(ids, self.words * self.weights[:, None])
        return mean - (mean @ self.common)[:, None] * self.common


def _means(ids: Tensor, weighted: Tensor) -> Tensor:
    """The mean of the words' weighted vectors; a caption without words has 0."""
    real = _real(ids)
    bag = torch.zeros(len(ids), len(weighted), dtype=weighted.dtype).scatter_add_(1, ids, real.to(weighted.dtype))
    return bag @ weighted / real.sum(1, keepdim=True).clamp_min(1)


def fit_sentences(ids: Int[Tensor, "captions length"], vocabulary: int, size: int = 100, window: int = 3, a: int | float = 1e-3) -> SentenceVectors:
    """Sentence vectors from training captions, word numbers [captions, length].

    vocabulary: the number of words.  size: of a vector, 300 in the paper; at most the number of words that occur is of
    use.  window: words this far apart count as neighbours.  a: how little frequent words count.
    As in the paper's program the common direction is the first principal component of the centred training vectors.

    Raises ValueError for no captions, or numbers that are no words.
    """
    ids = ids.cpu().long()
    if not len(ids) or not bool(_real(ids).any()):
        raise ValueError("fit_sentences: found captions without words, wanted those of the training partition")
    if not 0 <= int(ids.min()) <= int(ids.max()) < vocabulary:
        raise ValueError(f"word numbers: found {int(ids.min())} to {int(ids.max())}, wanted 0 to {vocabulary - 1}")
    if not a > 0:
        raise ValueError(f"a: found {a}, wanted more than 0")
    words = word_vectors(ppmi(cooccurrence(ids, vocabulary, window)), size)
    share = torch.bincount(ids[_real(ids)], minlength=vocabulary).double()
    weights = a / (a + share / share.sum())
    means = _means(ids, words * weights[:, None])
    common = torch.linalg.svd(means - means.mean(0), full_matrices=False).Vh[0]
    return SentenceVectors(words, weights, common)


def variety(ids: Int[Tensor, "captions length"], training: Int[Tensor, "others positions"]) -> dict[str, float]:
    """How many of the captions are different, and how many are copies of training captions, as shares.

    A generator that always says the same, or recites, is only seen here: its captions may well be coherent.
    Returns `distinct`, `copied` and `n`.  Raises ValueError for no captions.
    """
    if not len(ids):
        raise ValueError("variety: found no captions, wanted at least 1")
    rows, known = _sentences(ids), set(_sentences(training))
    return {"distinct": len(set(rows)) / len(rows), "copied": sum(r in known for r in rows) / len(rows), "n": len(rows)}


def _sentences(ids: Tensor) -> list[tuple[int, ...]]:
    return [tuple(w for w, kept in zip(row, real) if kept) for row, real in zip(ids.tolist(), _real(ids).tolist())]
