"""Canonical correlation against other computations, known correlations, and generators that cheat."""

import numpy as np
import pytest
import torch
from torch import nn

from mmvae_lite.data.drawn_birds import drawn_birds
from mmvae_lite.data.parts import Part
from mmvae_lite.evaluation.bird_features import (
    FEATURES,
    SIZES,
    WEIGHTS,
    attribute_accuracy,
    attribute_loss,
    bird_features,
    bird_network,
    train_bird_network,
    training_birds,
)
from mmvae_lite.evaluation.cca import cross_correlation, described, fit_caption_judge, fit_cca, joint_correlation, real_correlation
from mmvae_lite.pretrained import cards, load_weights


def gaussian(n, correlations, p=6, q=5, seed=0, mixed=True):
    """Two views whose canonical correlations are known, each mixed by a random matrix."""
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(n, p, generator=g, dtype=torch.float64)
    y = torch.randn(n, q, generator=g, dtype=torch.float64)
    for i, rho in enumerate(correlations):
        y[:, i] = rho * x[:, i] + (1 - rho**2) ** 0.5 * y[:, i]
    mix = [torch.randn(d, d, generator=g, dtype=torch.float64) if mixed else torch.eye(d, dtype=torch.float64) for d in (p, q)]
    return x @ mix[0] + 3, y @ mix[1] - 1


@pytest.mark.equation("eq-cca")
def test_the_generalised_eigenvalues_of_scipy():
    from scipy.linalg import eigh

    x, y = gaussian(500, [0.9, 0.5, 0.2])
    c = np.cov(np.concatenate([x.numpy(), y.numpy()], 1).T)
    a, b = c.copy(), c.copy()
    a[:6, :6] = a[6:, 6:] = 0
    b[:6, 6:] = b[6:, :6] = 0
    values, vectors = eigh(a, b)
    fit = fit_cca(x, y, k=4, ridge=0)
    assert np.allclose(fit.correlations.numpy(), values[::-1][:4], atol=1e-10)
    for i in range(4):
        theirs = vectors[:6, -1 - i]
        ours = fit.projections[0][:, i].numpy()
        assert abs(np.dot(ours, theirs)) == pytest.approx(np.linalg.norm(ours) * np.linalg.norm(theirs))


def test_the_scores_of_scikit_learn():
    from sklearn.cross_decomposition import CCA

    x, y = gaussian(400, [0.9, 0.5])
    theirs = CCA(2, max_iter=5000, tol=1e-12).fit_transform(x.numpy(), y.numpy())
    fit = fit_cca(x, y, k=2, ridge=0)
    for view, ours, other in zip((x, y), fit.projections, theirs):
        ours = ((view - view.mean(0)) @ ours).numpy()
        for i in range(2):
            assert abs(np.corrcoef(ours[:, i], other[:, i])[0, 1]) > 1 - 1e-4


def test_projections_are_white_and_correlate_as_said():
    x, y = gaussian(800, [0.8, 0.4, 0.1])
    fit = fit_cca(x, y, k=3, ridge=0)
    a, b = ((v - m) @ w for v, m, w in zip((x, y), fit.means, fit.projections))
    eye = torch.eye(3, dtype=torch.float64)
    assert torch.allclose(torch.cov(a.T), eye, atol=1e-9) and torch.allclose(torch.cov(b.T), eye, atol=1e-9)
    assert torch.allclose(a.T @ b / 799, fit.correlations.diag(), atol=1e-9)


@pytest.mark.equation("eq-cca-score")
def test_a_score_is_the_cosine_of_two_projections():
    x, y = gaussian(300, [0.9, 0.5])
    fit = fit_cca(x, y, k=2)
    new, other = gaussian(20, [0.9, 0.5])
    scores = fit.cosines(new, other)
    for i in range(20):
        u, v = ((row[i].numpy() - m.numpy()) @ w.numpy() for row, m, w in zip((new, other), fit.means, fit.projections))
        assert scores[i].item() == pytest.approx(u @ v / (np.linalg.norm(u) * np.linalg.norm(v)), abs=1e-12)


def test_known_correlations_are_found():
    x, y = gaussian(40_000, [0.9, 0.6, 0.3])
    fit = fit_cca(x, y, k=4)
    assert torch.allclose(fit.correlations[:3], torch.tensor([0.9, 0.6, 0.3], dtype=torch.float64), atol=0.02)
    assert fit.correlations[3] < 0.03


def test_mixing_a_view_changes_nothing():
    x, y = gaussian(300, [0.9, 0.5])
    g = torch.Generator().manual_seed(9)
    m = torch.randn(6, 6, generator=g, dtype=torch.float64)
    one, two = fit_cca(x, y, 2, ridge=0), fit_cca(x @ m + 5, y, 2, ridge=0)
    assert torch.allclose(one.correlations, two.correlations)
    assert torch.allclose(one.cosines(x, y), two.cosines(x @ m + 5, y))


def test_features_that_never_vary_do_no_harm():
    x, y = gaussian(300, [0.9, 0.5])
    padded = torch.cat([x, torch.full((300, 2), 7.0, dtype=torch.float64), x[:, :1]], 1)
    plain = fit_cca(x, y, 2, ridge=0)
    for ridge, tolerance in ((0, 1e-8), (1e-4, 0.03)):
        fit = fit_cca(padded, y, 2, ridge=ridge)
        assert torch.isfinite(fit.projections[0]).all()
        assert torch.allclose(fit.correlations, plain.correlations, atol=tolerance)


def test_pairs_score_high_and_shuffled_pairs_nothing():
    x, y = gaussian(4000, [0.95, 0.95, 0.95, 0.95], mixed=True)
    fit = fit_cca(x[:2000], y[:2000], k=4)
    held = fit.cosines(x[2000:], y[2000:])
    assert held.mean() > 0.85
    assert abs(fit.cosines(x[2000:], y[2000:].roll(7, 0)).mean()) < 0.04
    assert held.shape == (2000,) and held.max() <= 1 + 1e-9


@pytest.mark.parametrize(
    "change, message",
    [
        ({"k": 6}, "k: found 6, wanted at most 5"),
        ({"n": 3, "k": 4}, "found 3 pairs, wanted more than k = 4"),
        ({"k": 0}, "k: found 0"),
        ({"ridge": -1.0}, "ridge: found -1"),
    ],
)
def test_refusals(change, message):
    x, y = gaussian(50, [0.5])
    n = change.pop("n", 50)
    with pytest.raises(ValueError, match=message):
        fit_cca(x[:n], y[:n], **{"k": 3} | change)


def test_refuses_what_does_not_pair_up(as_a_reader):
    x, y = gaussian(50, [0.5])
    with pytest.raises(ValueError, match="found 50 and 49 items, wanted pairs"):
        fit_cca(x, y[:49], 2)
    x[3, 1] = torch.nan
    with pytest.raises(ValueError, match="first view holds NaN"):
        fit_cca(x, y, 2)


def small(images):
    """Coarse pixels as features, so that this file needs no weights."""
    return nn.functional.adaptive_avg_pool2d(images, 5).flatten(1)


@pytest.fixture(scope="module")
def world():
    data = drawn_birds(30, 10, 8, 10)
    return data, fit_caption_judge(data.train, small, size=60, k=20, ridge=1e-2)


class Generator:
    """Stands where a model does: says what it is told to."""

    modalities = ("image", "caption")

    def __init__(self, data, pairs):
        self.part, self.pairs = data.train, pairs

    def sample(self, n, generator=None):
        self.pairs = self.pairs.roll(-n)
        return self.part.take(self.pairs[-n:])

    def translate(self, batch, to, sample=False, generator=None):
        n = len(next(iter(batch.values())))
        return self.sample(n)[to]


def test_real_pairs_beat_shuffled_ones(world):
    data, judge = world
    train, test = real_correlation(data.train, judge), real_correlation(data.test, judge)
    assert train["value"] > train["shuffled"] + 0.2
    assert test["value"] > test["shuffled"] + 5 * test["se"] and abs(test["shuffled"]) < 0.1
    assert test["n"] == 800


def test_each_caption_is_fitted_with_its_own_image(world):
    data, judge = world
    first = small(data.train.take(slice(None))["image"])
    wanted = fit_cca(first, judge.vectors(data.train.batch["caption"]), 20, 1e-2)
    assert torch.allclose(judge.cca.correlations, wanted.correlations, atol=1e-9)
    assert torch.equal(judge.training, data.train.batch["caption"])


def test_a_constant_caption_is_caught(world):
    data, judge = world
    cheat = Generator(data, torch.zeros(2000, dtype=torch.int64))
    found = cross_correlation(cheat, data.test, judge)["image->caption"]
    real = real_correlation(data.test, judge)
    assert abs(found["value"]) < real["value"] / 2
    assert found["distinct"] * found["n"] == pytest.approx(1)


def test_copies_of_training_captions_are_caught(world):
    data, judge = world
    order = torch.randperm(len(data.train), generator=torch.Generator().manual_seed(1))
    found = cross_correlation(Generator(data, order), data.test, judge)
    for score in found.values():
        assert abs(score["value"]) < real_correlation(data.test, judge)["value"] / 2
    assert found["image->caption"]["copied"] == 1 and found["image->caption"]["distinct"] > 0.8


def test_one_good_pair_again_and_again_is_caught_by_its_variety(world):
    data, judge = world
    best = judge(data.train.take(slice(0, 400))["image"], data.train.batch["caption"][:400]).argmax()
    found = joint_correlation(Generator(data, best.repeat(2000)), judge, n=500)
    honest = joint_correlation(Generator(data, torch.randperm(2000, generator=torch.Generator().manual_seed(2))), judge, n=500)
    assert found["value"] > honest["value"], "its score alone would win"
    assert found["distinct"] == 1 / 500 and found["shuffled"] == pytest.approx(found["value"]) and found["copied"] == 1
    assert honest["distinct"] > 0.9 and abs(honest["shuffled"]) < 0.1 and honest["n"] == 500


def test_features_of_the_images_may_be_the_images(world):
    data, _ = world
    part = Part({"image": small(data.train.take(slice(0, 2400))["image"]), "caption": data.train.batch["caption"]}, words=data.train.words)
    judge = fit_caption_judge(part, None, size=60, k=20, ridge=1e-2)
    assert real_correlation(part, judge)["value"] == pytest.approx(real_correlation(data.train, world[1])["value"], abs=1e-6)


def test_images_come_to_the_network_in_its_precision_and_in_chunks():
    images = torch.randint(256, (7, 3, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(48, 5)).double()
    found = described(network, images, chunk=3)
    assert torch.allclose(found, network((images.float() / 255).double())) and not found.requires_grad


def test_the_judge_refuses(world, as_a_reader):
    data, judge = world
    with pytest.raises(ValueError, match="'image': found no word numbers"):
        fit_caption_judge(data.train, small, caption="image")
    with pytest.raises(KeyError, match="'picture'"):
        fit_caption_judge(data.train, small, image="picture")
    with pytest.raises(ValueError, match="at least 2"):
        judge.score(torch.zeros(1, 3, 64, 64), data.train.batch["caption"][:1])
    with pytest.raises(ValueError, match="wanted pairs"):
        judge(torch.zeros(3, 3, 64, 64), data.train.batch["caption"][:2])


def test_the_bird_network_learns_and_its_loss_is_the_mean_cross_entropy():
    images, attributes = training_birds(32)
    torch.manual_seed(0)
    logits = bird_network().eval()(images / 255)
    by_hand, start = [], 0
    for size, y in zip(SIZES, attributes.unbind(1)):
        p = logits[:, start : start + size].softmax(1)
        by_hand.append(-p[range(32), y].log().mean())
        start += size
    assert attribute_loss(logits, attributes).item() == pytest.approx(torch.stack(by_hand).mean().item(), rel=1e-5)
    one, two = (train_bird_network(images, attributes, epochs=8, batch_size=8) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), two.state_dict().values()))
    assert attribute_loss(one(images / 255), attributes) < attribute_loss(logits, attributes) - 0.1


def test_the_features_that_ship_tell_which_caption_belongs_to_a_bird(world):
    data, _ = world
    features = bird_features()
    card = cards()[WEIGHTS]
    assert card["bytes"] < 300_000 and card["data"].startswith("drawn birds")
    judge = fit_caption_judge(data.train, features, size=60, k=20, ridge=1e-2)
    score = real_correlation(data.test, judge)
    assert features(torch.zeros(2, 3, 64, 64)).shape == (2, FEATURES)
    assert score["value"] > abs(score["shuffled"]) + 8 * score["se"]
    network = bird_network()
    load_weights(WEIGHTS, network)
    attributes = data.test.facts["attributes"][::10]
    found = attribute_accuracy(network.eval(), data.test.batch["image"], attributes)
    guess = torch.stack([y.bincount().max() / len(y) for y in attributes.long().unbind(1)]).mean().item()
    assert found["mean"] > guess + 0.2, "better than naming the most frequent value"
