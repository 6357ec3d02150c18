"""The shuffle test: its level is exact, it sees what is shared, and the class alone is not taken for entanglement."""

import pytest
import torch

from mmvae_lite.data.entangled import permuted_within_classes
from mmvae_lite.data.entangled_sets import entangled
from mmvae_lite.evaluation.entanglement import distance_correlation_by_class, shuffle_test


def pairs(n, rho, g, classes=2):
    """n pairs of numbers [2] for each class, correlated by rho within it; the classes lie far apart."""
    labels = torch.arange(classes).repeat_interleave(n)
    a, free = torch.randn(2, len(labels), 2, generator=g)
    b = rho * a + (1 - rho**2) ** 0.5 * free
    return a + 10 * labels[:, None], b - 10 * labels[:, None], labels


@pytest.mark.equation("eq-shuffle-p")
def test_where_nothing_is_shared_p_is_uniform():
    """With R = 9 shuffles the p-values are 0.1, ..., 1, each with probability one tenth."""
    g, repeats = torch.Generator().manual_seed(0), 600
    p = torch.tensor([shuffle_test(*pairs(6, 0.0, g), 9, g)["p"] for _ in range(repeats)])
    counts = torch.bincount((10 * p).round().long() - 1, minlength=10)
    chi2 = ((counts - repeats / 10) ** 2 / (repeats / 10)).sum()
    assert chi2 < 27.9  # 0.999 quantile with nine degrees of freedom


def test_what_is_shared_is_seen_and_more_pairs_see_less():
    g = torch.Generator().manual_seed(1)
    assert shuffle_test(*pairs(10, 1.0, g), 99, g)["p"] == 0.01
    power = [sum(shuffle_test(*pairs(n, 0.6, g), 19, g)["p"] <= 0.05 for _ in range(40)) for n in (6, 40)]
    assert power[0] + 8 < power[1]


def test_the_class_alone_is_no_entanglement_unless_one_forgets_it():
    g = torch.Generator().manual_seed(2)
    a, b, labels = pairs(15, 0.0, g)
    assert shuffle_test(a, b, labels, 99, g)["p"] > 0.05
    assert shuffle_test(a, b, torch.zeros_like(labels), 99, g)["p"] == 0.01


def test_the_statistic_against_a_loop_over_pairs_of_items():
    g = torch.Generator().manual_seed(3)
    a, b, labels = pairs(5, 0.5, g, classes=3)
    found = []
    for c in range(3):
        rows = (labels == c).nonzero()[:, 0].tolist()
        da, db = (torch.tensor([float((x[i] - x[j]).norm()) for i in rows for j in rows if i != j]) for x in (a, b))
        found.append(torch.corrcoef(torch.stack([da, db]))[0, 1])
    assert float(distance_correlation_by_class(a, b, labels)) == pytest.approx(float(torch.stack(found).mean()), abs=1e-5)
    same = {c: torch.arange(5)[None] for c in range(3)}
    assert distance_correlation_by_class(a, b, labels, same).tolist() == pytest.approx([float(distance_correlation_by_class(a, b, labels))])


def test_it_tells_e_from_me_mnist():
    found = {kind: entangled(kind=kind, per_class=12, seed=4).train.take(slice(None)) for kind in ("e", "me")}
    p = {k: shuffle_test(x["digit"], x["garment"], x["label"].argmax(1), 99, torch.Generator().manual_seed(0)) for k, x in found.items()}
    assert p["e"]["p"] == 0.01 and p["e"]["value"] > 0.5 and abs(p["me"]["value"]) < 0.2 and p["me"]["p"] > 0.01


def test_same_generator_same_p_and_bad_input_is_named(as_a_reader):
    a, b, labels = pairs(6, 0.3, torch.Generator().manual_seed(5))
    one, two = (shuffle_test(a, b, labels, 19, torch.Generator().manual_seed(6)) for _ in range(2))
    assert one == two and one["n"] == 12
    order = permuted_within_classes(labels, torch.Generator().manual_seed(7))
    assert shuffle_test(a, b[order], labels, 19, torch.Generator().manual_seed(6))["value"] != one["value"]
    with pytest.raises(ValueError, match="11, 12 and 12"):
        shuffle_test(a[:11], b, labels)
    with pytest.raises(ValueError, match="at least 3"):
        shuffle_test(a[:8], b[:8], labels[:8])
    with pytest.raises(ValueError, match="shuffles"):
        shuffle_test(a, b, labels, 0)
