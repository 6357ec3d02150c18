"""Pairing by class: the papers' totals from the published counts, and what must hold for any classes at all."""


import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmvae_lite.data.pairing import pair_by_class, repair_each_epoch

# How many images of 0, 1 .. 9 the published sets hold.
COUNTS = {
    "train": {
        "mnist": (5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949),
        "svhn": (4948, 13861, 10585, 8497, 7458, 6882, 5727, 5595, 5045, 4659),
    },
    "test": {
        "mnist": (980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009),
        "svhn": (1744, 5099, 4149, 2882, 2523, 2384, 1977, 2019, 1660, 1595),
    },
}


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def classes_of(counts):
    """Items of these classes in random order."""
    classes = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    return classes[torch.randperm(len(classes), generator=seeded())]


@pytest.mark.parametrize(("split", "sizes", "kept"), [("train", (60_000, 73_257), 56_068), ("test", (10_000, 26_032), 10_000)])
def test_the_papers_totals(split, sizes, kept):
    """Twenty partners for every digit image that has one: the numbers of Shi et al. (2019)."""
    classes = {name: classes_of(counts) for name, counts in COUNTS[split].items()}
    assert tuple(len(c) for c in classes.values()) == sizes
    rows = pair_by_class(classes, limit=10_000, times=20, generator=seeded())
    assert {len(r) for r in rows.values()} == {20 * kept}
    assert torch.equal(*(classes[name][r] for name, r in rows.items()))
    for name, r in rows.items():
        seen = r.bincount(minlength=len(classes[name]))
        assert set(seen.tolist()) <= {0, 20}
        assert int((seen > 0).sum()) == kept
    if split == "test":
        assert bool((rows["mnist"].bincount() == 20).all()), "every test digit of MNIST is used"


def test_paired_mnist_keeps_every_image():
    """Five modalities of one set: each is a permutation of the whole set within the classes."""
    classes = classes_of(COUNTS["test"]["mnist"])
    rows = pair_by_class({f"x{m}": classes for m in range(1, 6)}, generator=seeded(42))
    assert all(torch.equal(r.sort().values, torch.arange(10_000)) for r in rows.values())
    assert all(torch.equal(classes[r], classes[rows["x1"]]) for r in rows.values())
    assert len({tuple(r.tolist()) for r in rows.values()}) == 5


class_lists = st.lists(st.integers(0, 4), min_size=1, max_size=30).map(torch.tensor)


@settings(max_examples=80, deadline=None, derandomize=True)
@given(st.lists(class_lists, min_size=1, max_size=4), st.integers(1, 6), st.integers(1, 3), st.integers(0, 9))
def test_what_holds_for_any_classes(lists, limit, times, seed):
    classes = {str(m): c for m, c in enumerate(lists)}
    common = set.intersection(*(set(c.tolist()) for c in lists))
    if not common:
        with pytest.raises(ValueError, match="no class occurs in every modality"):
            pair_by_class(classes, limit, times, seeded(seed))
        return
    rows = pair_by_class(classes, limit, times, seeded(seed))
    of_tuples = [classes[name][r] for name, r in rows.items()]
    assert all(torch.equal(c, of_tuples[0]) for c in of_tuples)
    for name, r in rows.items():
        for label in range(5):
            n = min(limit, *(int((c == label).sum()) for c in lists)) if label in common else 0
            first = (classes[name] == label).nonzero()[:n, 0]
            assert torch.equal(r[of_tuples[0] == label].sort().values, first.repeat_interleave(times))


def test_partners_differ_from_round_to_round_and_from_seed_to_seed():
    classes = {"a": torch.zeros(50, dtype=torch.int64), "b": torch.zeros(50, dtype=torch.int64)}
    one, same, other = (pair_by_class(classes, times=2, generator=seeded(s)) for s in (1, 1, 2))
    assert all(torch.equal(one[m], same[m]) and not torch.equal(one[m], other[m]) for m in "ab")
    partner = [one["b"][half][one["a"][half].argsort()] for half in (slice(0, 50), slice(50, 100))]
    assert (partner[0] == partner[1]).sum() < 10


PROGRAM = """
import torch
from mmvae_lite.data.pairing import pair_by_class, repair_each_epoch
c, g = {"a": torch.arange(300) % 7, "b": torch.arange(200) % 5}, torch.Generator().manual_seed(3)
rows = pair_by_class(c, times=2, generator=g)
found = [*(r.tolist() for r in rows.values()), repair_each_epoch({"a": c["b"], "b": c["a"]})({}, g)["b"].tolist()]
"""


def test_the_same_bits_in_another_process(elsewhere):
    here: dict = {}
    exec(PROGRAM, here)
    there = elsewhere(PROGRAM + "print(found)")
    assert there.strip() == str(here["found"]) and len(there) > 1000


@settings(max_examples=60, deadline=None, derandomize=True)
@given(class_lists, class_lists, class_lists, st.integers(0, 9))
def test_partners_of_an_epoch_have_the_class_and_come_from_the_rows(first, second, third, seed):
    classes = {"a": first, "b": second, "c": third}
    if not set(first.tolist()) <= set(second.tolist()) & set(third.tolist()):
        with pytest.raises(ValueError, match="wanted a partner for every item"):
            repair_each_epoch(classes)
        return
    rows = repair_each_epoch(classes)({}, seeded(seed))
    assert torch.equal(rows["a"], torch.arange(len(first)))
    for name in "bc":
        assert torch.equal(classes[name][rows[name]], first)


def test_a_new_epoch_draws_every_partner_equally_often():
    classes = {"a": torch.tensor([0, 1, 1]), "b": torch.tensor([1, 0, 1, 0, 1, 1])}
    pair, g = repair_each_epoch(classes), seeded()
    drawn = torch.stack([pair({}, g)["b"] for _ in range(4000)])
    for item, rows in ((0, [1, 3]), (1, [0, 2, 4, 5]), (2, [0, 2, 4, 5])):
        shares = drawn[:, item].bincount(minlength=6) / 4000
        assert shares[rows].tolist() == pytest.approx([1 / len(rows)] * len(rows), abs=0.03)
    independent = (drawn[:, 1] == drawn[:, 2]).float().mean().item()
    assert independent == pytest.approx(0.25, abs=0.03)


def test_an_index_names_the_items_and_stays_as_it_is():
    classes = {"a": torch.tensor([0, 1, 2]), "b": torch.tensor([2, 1, 0, 2])}
    index = {"a": torch.tensor([2, 2, 0]), "b": torch.tensor([0, 0, 2])}
    before = {name: r.clone() for name, r in index.items()}
    rows = repair_each_epoch(classes)(index, seeded())
    assert rows["a"].tolist() == [2, 2, 0] and classes["b"][rows["b"]].tolist() == [2, 2, 0]
    assert all(torch.equal(index[m], before[m]) for m in index)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"limit": 0}, "limit: found 0"),
        ({"times": 1.5}, "times: found 1.5"),
        ({"classes": {}}, "found no modality"),
        ({"classes": {"a": torch.tensor([1]), "b": torch.zeros(0, dtype=torch.int64)}}, "'b': found no items"),
        ({"classes": {"a": torch.tensor([1]), "b": torch.tensor([2])}}, "no class occurs in every modality"),
    ],
)
def test_what_cannot_be_paired_is_refused(as_a_reader, change, message):
    with pytest.raises(ValueError, match=message):
        pair_by_class(**{"classes": {"a": torch.tensor([1]), "b": torch.tensor([1])}, **change})
