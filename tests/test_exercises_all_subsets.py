"""Wrong answers that a student may well give in the chapter on all subsets: (answer, words of the hint)."""

import itertools
import math
from fractions import Fraction

import pytest

from mmvae_lite.exercises import check
from mmvae_lite.models.m2vae import omega


def _weights(M):
    return [omega(s, M) for s in range(1, M + 1)]


def _masses(M):
    n = M * 2 ** (M - 1)
    return n, n - M, sum(Fraction(1, s) for s in range(1, M + 1)), M - 1


def _shares(v, M):
    found = [0.0] * M
    for order in itertools.permutations(range(M)):
        for k, m in enumerate(order):
            found[m] += (v[frozenset(order[: k + 1])] - v[frozenset(order[:k])]) / math.factorial(M)
    return found


def _sets(M, least=2):
    return [s for size in range(least, M + 1) for s in itertools.combinations(range(M), size)]


def _told(w, s2, s):
    return 0.5 * math.log(1 + sum(w[m] ** 2 / s2[m] for m in s))


def _price(w, s2, least=2):
    M = len(w)
    return sum(float(omega(len(s), M)) * _told(w, s2, s) for s in _sets(M, least))


EXACT = [(0.5, 0.5), (0.6, 0.2), (2 / 3, 1 / 6)]
WRONG = {
    "subsets-weights": [
        (lambda M: [w * math.comb(M, s) for s, w in enumerate(_weights(M), 1)], "of all sets of a size together"),
        (lambda M: [w * s for s, w in enumerate(_weights(M), 1)], "one more factor"),
        (lambda M: [Fraction(1)] * M, "even the full set"),
        (lambda M: [Fraction(1, M)] * M, "hands down a share"),
        (lambda M: _weights(M)[:-1], "one for each size"),
    ],
    "subsets-masses": [
        (lambda M: (2**M - 1, *_masses(M)[1:]), "counts the sets"),
        (lambda M: (_masses(M)[0], _masses(M)[0], *_masses(M)[2:]), "nothing is left"),
        (lambda M: (*_masses(M)[:2], 1, M - 1), "without the divergences"),
        (lambda M: (*_masses(M)[:3], M), "their share must go"),
        (lambda M: (*_masses(M)[:3], 0), "times its weight"),
        (lambda M: _masses(M)[:3], "four numbers"),
    ],
    "subsets-shapley": [
        (lambda v, M: [v[frozenset({m})] for m in range(M)], "comes first"),
        (lambda v, M: [v[frozenset(range(M))] - v[frozenset(range(M)) - {m}] for m in range(M)], "comes last"),
        (lambda v, M: [v[frozenset(range(M))] / M] * M, "not fair ones"),
        (lambda v, M: [sum(v[S] - v[S - {m}] for S in v if m in S) / 2 ** (M - 1) for m in range(M)], "all sets count alike"),
        (lambda v, M: [2 * s for s in _shares(v, M)], "add up"),
        (lambda v, M: _shares(v, M)[::-1], "means over all orders"),
    ],
    "subsets-gap": [
        (lambda w, s2: -_price(w, s2), "sign"),
        (lambda w, s2: _price(w, s2, least=1), "single senses are charged"),
        (lambda w, s2: 2 * _price(w, s2), "half a logarithm"),
        (lambda w, s2: sum(_told(w, s2, s) for s in _sets(len(w))), "weights of the lattice"),
        (lambda w, s2: _told(w, s2, range(len(w))) / len(w), "sets in between"),
        (lambda w, s2: 0.0, "every set of two or more"),
    ],
    "subsets-excess": [
        (lambda: EXACT, "not more"),
        (lambda: [(0.5, 0.1), (0.6, 0.05), (2 / 3, 0.02)], "below"),
        (lambda: [(0.52, 0.48), (0.605, 0.198), (2 / 3, 0.165)], "a twentieth"),
        (lambda: [(0.5, -1.0), (0.6, 0.2), (0.6, 0.2)], "positive"),
        (lambda: [0.5, 0.6, 0.7], "pair"),
    ],
}

MISTAKES = [pytest.param(name, *wrong, id=f"{name}-{i}") for name, some in WRONG.items() for i, wrong in enumerate(some)]


@pytest.mark.parametrize("name, answer, words", MISTAKES)
def test_a_plausible_mistake_gets_a_hint_that_fits(name, answer, words):
    verdict = check(name, answer)
    assert not verdict.passed
    assert words in verdict.message


def test_other_ways_to_be_right_pass():
    assert check("subsets-weights", lambda M: [float(w) for w in _weights(M)]).passed
    assert check("subsets-masses", _masses).passed
    assert check("subsets-shapley", _shares).passed
    assert check("subsets-gap", _price).passed
    assert check("subsets-excess", lambda: [[0.628, 0.264], [0.653, 0.165], [0.696, 0.135]]).passed
