"""Sentence vectors against hand counts and numpy."""

import math

import numpy as np
import pytest
import torch

from mmvae_lite.evaluation.sentences import SentenceVectors, cooccurrence, fit_sentences, ppmi, variety, word_vectors

A, B, C, D = 3, 4, 5, 6


def rows(*sentences, length=6):
    return torch.tensor([[*s, 2, *[1] * (length - len(s) - 1)] for s in sentences])


def corpus(n=300, seed=0):
    """Two topics, so that words of one stand together; word 3 occurs in all."""
    g = torch.Generator().manual_seed(seed)
    topics = torch.randint(2, (n,), generator=g)
    words = torch.randint(4, 9, (n, 5), generator=g) + 5 * topics[:, None]
    return torch.cat([torch.full((n, 1), 3), words, torch.full((n, 1), 2), torch.ones(n, 1, dtype=torch.int64)], 1), topics


def test_counts_by_hand():
    counts = cooccurrence(rows([A, B, C, A], [B, D]), 7, window=2)
    wanted = torch.zeros(7, 7, dtype=torch.float64)
    for a, b in [(A, B), (B, C), (C, A), (A, C), (B, A), (B, D)]:  # next to each other, then one between, then the other caption
        wanted[a, b] += 1
        wanted[b, a] += 1
    assert torch.equal(counts, wanted)


def test_the_window():
    x = rows([A, B, C, D])
    assert cooccurrence(x, 7, window=3)[A, D] == 1 and cooccurrence(x, 7, window=2)[A, D] == 0
    assert torch.equal(cooccurrence(x, 7, window=3), cooccurrence(x, 7, window=50))


def test_what_follows_the_end_is_no_word():
    assert cooccurrence(torch.tensor([[A, 2, B, C]]), 7).sum() == 0
    assert cooccurrence(torch.tensor([[A, 1, B, 2]]), 7, window=1).sum() == 0


def test_mutual_information_by_hand():
    counts = torch.tensor([[0.0, 3.0, 1.0], [3.0, 0.0, 0.0], [1.0, 0.0, 0.0]], dtype=torch.float64)
    m = ppmi(counts)
    assert m[0, 1].item() == pytest.approx(math.log(3 * 8 / (4 * 3)))
    assert m[1, 2] == 0 and m[0, 0] == 0
    apart = ppmi(torch.tensor([[9.0, 1.0], [1.0, 9.0]], dtype=torch.float64))
    assert apart[0, 1] == 0, "words that shun each other count as if they were strangers"
    assert apart[0, 0].item() == pytest.approx(math.log(9 * 20 / 100))
    even = ppmi(torch.ones(3, 3, dtype=torch.float64) * 4)
    assert even.abs().max() < 1e-12, "independent words have no information"
    assert (ppmi(torch.zeros(3, 3, dtype=torch.float64)) == 0).all()


def test_vectors_are_the_truncated_decomposition_of_numpy():
    m = ppmi(cooccurrence(corpus()[0], 14))
    u, s, vt = np.linalg.svd(m.numpy())
    w = word_vectors(m, 6)
    best = (u[:, :6] * s[:6]) @ u[:, :6].T  # U S U', the same for either sign of each column
    assert torch.allclose(w @ w.T, torch.from_numpy(best), atol=1e-9)
    assert (w.gather(0, w.abs().argmax(0, keepdim=True)) > 0).all()


def test_sentences_against_numpy():
    ids, _ = corpus()
    vectors = fit_sentences(ids, 14, size=8, a=1e-2)
    share = np.bincount(ids[:, :6].flatten().numpy(), minlength=14) / (300 * 6)
    w = vectors.words.numpy() * (1e-2 / (1e-2 + share))[:, None]
    means = np.stack([w[row[:6]].mean(0) for row in ids.numpy()])
    v = np.linalg.svd(means - means.mean(0))[2][0]
    assert np.allclose(vectors(ids).numpy(), means - np.outer(means @ v, v), atol=1e-10)


def test_frequent_words_weigh_little_and_the_common_direction_is_gone():
    ids, _ = corpus()
    vectors = fit_sentences(ids, 14, size=8)
    assert vectors.weights[3] < vectors.weights[4:].min() and vectors.weights[0] == 1
    x = vectors(ids)
    assert (x @ vectors.common).abs().max() < 1e-12
    kept = torch.linalg.svd(x - x.mean(0)).S
    assert kept[-1] < 1e-9 * kept[0], "one direction less"


def test_order_and_padding_do_not_matter_and_empty_captions_have_no_vector():
    vectors = fit_sentences(corpus()[0], 14, size=8)
    x = vectors(torch.tensor([[4, 5, 6, 2, 1, 1], [6, 4, 5, 2, 7, 7], [4, 1, 5, 6, 1, 1], [2, 4, 4, 4, 4, 4]]))
    assert torch.allclose(x[0], x[1]) and torch.allclose(x[0], x[2]) and (x[3] == 0).all()


def test_words_of_one_topic_are_near():
    ids, topics = corpus()
    x = fit_sentences(ids, 14, size=2)
    w = torch.nn.functional.normalize(x.words[4:], dim=1) @ torch.nn.functional.normalize(x.words[4:], dim=1).T
    same = torch.block_diag(torch.ones(5, 5), torch.ones(5, 5)).bool()
    assert w[same].mean() > w[~same].mean() + 0.5


def test_the_same_numbers_again():
    ids, _ = corpus()
    assert torch.equal(fit_sentences(ids, 14, 8)(ids), fit_sentences(ids, 14, 8)(ids))


def test_variety():
    training = rows([A, B], [C])
    assert variety(rows([A, B], [A, B], [A, B], [D]), training) == {"distinct": 0.5, "copied": 0.75, "n": 4}
    assert variety(torch.tensor([[A, B, 2, D]]), training)["copied"] == 1, "what follows the end does not count"


def test_refusals(as_a_reader):
    with pytest.raises(ValueError, match="captions without words"):
        fit_sentences(torch.tensor([[2, 1, 1]]), 7)
    with pytest.raises(ValueError, match="found 1 to 9, wanted 0 to 6"):
        fit_sentences(torch.tensor([[9, 2, 1]]), 7)
    with pytest.raises(ValueError, match="size: found 100, wanted at most 7"):
        fit_sentences(rows([A, B]), 7)
    with pytest.raises(ValueError, match="a: found 0"):
        fit_sentences(rows([A, B]), 7, 2, a=0)
    with pytest.raises(ValueError, match="found 3 to 20, wanted 0 to 6"):
        SentenceVectors(torch.zeros(7, 2, dtype=torch.float64), torch.ones(7, dtype=torch.float64), torch.zeros(2, dtype=torch.float64))(torch.tensor([[3, 20]]))
    with pytest.raises(ValueError, match="no captions"):
        variety(torch.zeros(0, 4, dtype=torch.int64), rows([A]))
