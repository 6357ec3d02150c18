"""k-means against scikit-learn and enumeration, purity by hand, and clusters that are known."""

import itertools

import pytest
import torch

from mmvae_lite.evaluation.clustering import cluster_purity, elbow, inertia_curve, purity
from mmvae_lite.kmeans import Clusters, kmeans


def blobs(clusters=10, each=60, dim=5, spread=0.3, seed=0):
    g = torch.Generator().manual_seed(seed)
    centres = 6 * torch.randn(clusters, dim, generator=g, dtype=torch.float64)
    classes = torch.arange(clusters).repeat(each)
    return centres[classes] + spread * torch.randn(len(classes), dim, generator=g, dtype=torch.float64), classes, centres


def overlapping(n=500, dim=4):
    return torch.randn(n, dim, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def test_finds_separate_clusters():
    x, classes, _ = blobs()
    found = kmeans(x)
    assert purity(found.assignment, classes) == 1
    means = torch.stack([x[classes == k].mean(0) for k in range(10)])
    order = found.assignment[:10]
    assert torch.allclose(found.centres[order], means, atol=1e-12)
    assert found.inertia == pytest.approx(float((x - means[classes]).square().sum()))


@pytest.mark.parametrize("clusters", [2, 7, 10])
def test_inertia_is_that_of_scikit_learn(clusters):
    from sklearn.cluster import KMeans

    x, _, _ = blobs()
    assert kmeans(x, clusters).inertia == pytest.approx(KMeans(clusters, n_init=10, random_state=0).fit(x.numpy()).inertia_, rel=1e-9)
    x = overlapping()
    theirs = [KMeans(clusters, n_init=10, random_state=s).fit(x.numpy()).inertia_ for s in range(3)]
    ours = [kmeans(x, clusters, seed=s).inertia for s in range(3)]
    assert sum(ours) / 3 == pytest.approx(sum(theirs) / 3, rel=0.005)


def test_the_same_start_ends_as_in_scikit_learn():
    """Lloyd's algorithm from our starts, theirs and ours: the same centres."""
    from sklearn.cluster import KMeans

    from mmvae_lite.kmeans import _start

    x = overlapping()
    start = _start(x, 6, torch.Generator().manual_seed(4))
    theirs = KMeans(6, init=start.numpy(), n_init=1, max_iter=300, tol=0).fit(x.numpy())
    ours = kmeans(x, 6, restarts=1, seed=4)
    assert torch.allclose(ours.centres, torch.as_tensor(theirs.cluster_centers_), atol=1e-10)
    assert ours.assignment.tolist() == theirs.labels_.tolist()


def test_the_best_of_all_partitions():
    """Of every way to split 8 points into 3 groups none has less inertia."""
    x = torch.randn(8, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(3))

    def inertia(groups):
        members = [x[[i for i, g in enumerate(groups) if g == k]] for k in range(3)]
        return sum(float((m - m.mean(0)).square().sum()) for m in members if len(m))

    assert kmeans(x, 3, restarts=20).inertia == pytest.approx(min(map(inertia, itertools.product(range(3), repeat=8))))


def test_more_restarts_are_no_worse_and_a_seed_is_a_seed():
    x = overlapping()
    few, many = kmeans(x, 8, restarts=1), kmeans(x, 8, restarts=20)
    assert many.inertia <= few.inertia, "the first start of both is the same"
    assert torch.equal(kmeans(x, 8).centres, kmeans(x, 8).centres)
    assert kmeans(x.float(), 8).centres.dtype == torch.float64


def test_no_cluster_is_empty():
    """Nine copies of one point and three others, four clusters: each must have a member, whatever the start."""
    x = torch.cat([torch.zeros(9, 2), torch.eye(2), -torch.ones(1, 2)]).double()
    for seed in range(20):
        found = kmeans(x, 4, restarts=1, seed=seed)
        assert found.assignment.unique().tolist() == [0, 1, 2, 3] and found.inertia == pytest.approx(0)


def test_an_empty_cluster_takes_the_farthest_item():
    from mmvae_lite.kmeans import _means

    x = torch.tensor([[0.0], [1.0], [9.0]], dtype=torch.float64)
    gaps = torch.tensor([[0.0, 1.0, 81.0]], dtype=torch.float64)
    means = _means(x, torch.zeros(1, 3, dtype=torch.int64), gaps, 2)
    assert means.flatten().tolist() == [0.5, 9.0]


def test_same_bits_in_another_process(elsewhere):
    program = "from tests.test_clustering import *; r = kmeans(overlapping(), 8); print(r.inertia.hex(), r.assignment.sum().item())"
    there = elsewhere(program)
    here = kmeans(overlapping(), 8)
    assert there == f"{here.inertia.hex()} {here.assignment.sum().item()}\n"


@pytest.mark.equation("eq-purity")
def test_purity_by_hand():
    assignment = torch.tensor([0, 0, 0, 1, 1, 2])
    classes = torch.tensor([4, 4, 2, 1, 1, 0])
    assert purity(assignment, classes) == pytest.approx(5 / 6)
    assert purity(torch.zeros(6, dtype=torch.int64), classes) == pytest.approx(2 / 6), "one cluster: the largest class"
    assert purity(torch.arange(6), classes) == 1, "clusters of one item are pure, which is why their number is fixed"


def test_purity_by_enumeration():
    """Purity is the best accuracy of any map from clusters to classes."""
    g = torch.Generator().manual_seed(2)
    assignment, classes = torch.randint(3, (50,), generator=g), torch.randint(4, (50,), generator=g)
    best = max(float((torch.tensor(m)[assignment] == classes).double().mean()) for m in itertools.product(range(4), repeat=3))
    assert purity(assignment, classes) == pytest.approx(best)


def test_value_and_controls():
    x, classes, _ = blobs()
    good = cluster_purity(x, classes)
    assert good["value"] == 1 and good["n"] == 600 and good["largest"] == pytest.approx(0.1)
    assert good["random"] < 0.25, "small clusters of noise are purer than a tenth"
    noise = cluster_purity(torch.randn(600, 5, generator=torch.Generator().manual_seed(8)), classes)
    assert noise["value"] == pytest.approx(noise["random"], abs=0.05)
    assert good["random"] == cluster_purity(x, classes)["random"]


def test_the_curve_bends_at_the_number_of_clusters():
    for clusters in (5, 10):
        x, _, _ = blobs(clusters=clusters)
        curve = inertia_curve(x, range(2, 15), restarts=4)
        assert list(curve) == list(range(2, 15))
        values = list(curve.values())
        assert all(a > b for a, b in zip(values, values[1:]))
        assert elbow(curve) == clusters


def test_latents_without_clusters_have_a_curve_without_a_bend():
    """The step to the right number of clusters takes most of what is left; noise has no such step."""

    def steps(x):
        values = list(inertia_curve(x, range(2, 15), restarts=2).values())
        return [b / a for a, b in zip(values, values[1:])]

    noise, clustered = steps(overlapping(400)), steps(blobs(each=40)[0])
    assert min(clustered) < 0.3 and min(noise) > 0.75


def test_elbow_by_hand():
    assert elbow({1: 10.0, 2: 1.0, 3: 0.9, 4: 0.8}) == 2
    assert elbow({4: 0.8, 2: 5.0, 1: 10.0, 3: 0.9}) == 3


def test_a_test_split_takes_seconds():
    """Not a timing: ten thousand latents of 32 numbers must not need memory for every pair."""
    x = torch.randn(10_000, 32, generator=torch.Generator().manual_seed(0))
    found = kmeans(x, 10, restarts=2, max_iter=5)
    assert isinstance(found, Clusters) and found.assignment.shape == (10_000,)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: kmeans(torch.ones(5, 2), 2), "found 1 distinct items, wanted at least 2"),
        (lambda: kmeans(torch.ones(5), 2), r"found shape \[5\]"),
        (lambda: kmeans(torch.full((5, 2), float("nan")), 2), "NaN or infinity"),
        (lambda: kmeans(torch.ones(5, 2), 0), "clusters: found 0"),
        (lambda: purity(torch.tensor([1]), torch.tensor([1, 2])), "1 assignments of 2 items"),
        (lambda: elbow({1: 2.0, 3: 1.0}), "found 2 points"),
    ],
)
def test_refuses_in_one_sentence(as_a_reader, call, message):
    with pytest.raises(ValueError, match=message):
        call()
