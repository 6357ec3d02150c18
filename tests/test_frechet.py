"""Fréchet distances: closed forms, an independent computation, and generators that cheat."""

import sys
import types

import pytest
import torch

from mmvae_lite.data.celeba import ATTRIBUTES
from mmvae_lite.data.entangled_sets import entangled
from mmvae_lite.data.faces import drawn_faces
from mmvae_lite.data.street_numbers import street_numbers
from mmvae_lite.evaluation import frechet as fr
from mmvae_lite.evaluation.frechet import Moments, between, class_conditional, copied, distance, extract, extrapolated, frechet

F64 = torch.float64


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def draws(n, dim, seed=0):
    return torch.randn(n, dim, generator=seeded(seed), dtype=F64)


def moments(mean, covariance):
    """Moments that are given, not estimated."""
    m = Moments(len(mean))
    m.n, m.mean, m._scatter = 2, torch.as_tensor(mean, dtype=F64), torch.as_tensor(covariance, dtype=F64)
    return m


def spd(dim, seed, rank=None):
    a = draws(dim, rank or 2 * dim, seed)
    return a @ a.T / dim


def test_a_shift_of_unit_gaussians_is_its_square():
    eye = torch.eye(5, dtype=F64)
    assert distance(moments(torch.zeros(5), eye), moments([3.0, 4, 0, 0, 0], eye)) == pytest.approx(25, abs=1e-10)


def test_a_scale_of_unit_gaussians_is_its_square_for_each_feature():
    eye = torch.eye(5, dtype=F64)
    assert distance(moments(torch.zeros(5), eye), moments(torch.zeros(5), 9 * eye)) == pytest.approx(5 * (3 - 1) ** 2, abs=1e-10)


def test_commuting_covariances_in_closed_form():
    rotation = torch.linalg.qr(draws(6, 6))[0]
    a, b = (draws(1, 6, s)[0].square() for s in (1, 2))
    found = distance(*(moments(torch.zeros(6), rotation * v @ rotation.T) for v in (a, b)))
    assert found == pytest.approx((a.sqrt() - b.sqrt()).square().sum().item(), abs=1e-10)


@pytest.mark.equation("eq-frechet")
@pytest.mark.parametrize("dim", [1, 3, 40])
def test_against_the_matrix_root_of_scipy(dim):
    linalg = pytest.importorskip("scipy.linalg")
    a, b = spd(dim, 1), spd(dim, 2)
    mean = draws(2, dim, 3)
    wanted = (mean[0] - mean[1]).square().sum() + a.trace() + b.trace() - 2 * linalg.sqrtm((a @ b).numpy()).real.trace()
    assert distance(moments(mean[0], a), moments(mean[1], b)) == pytest.approx(float(wanted), rel=1e-8)


def test_it_is_symmetric_zero_for_itself_and_finite_where_a_covariance_is_singular():
    a, b = moments(torch.zeros(8), spd(8, 1)), moments(torch.ones(8), spd(8, 2, rank=3))
    assert distance(a, b) == pytest.approx(distance(b, a), rel=1e-7) and distance(a, b) > 0
    for m in (a, b):
        assert abs(distance(m, m)) < 1e-6
    flat = moments(torch.zeros(8), torch.zeros(8, 8))
    assert distance(a, flat) == pytest.approx(a.covariance.trace().item())


@pytest.mark.parametrize("parts", [[100], [1, 99], [40, 30, 30], [2] * 50])
def test_moments_do_not_depend_on_the_parts(parts):
    x = 1000 + draws(100, 4)
    m = Moments(4)
    for part in x.split(parts):
        m.add(part)
    assert m.n == 100 and torch.allclose(m.mean, x.mean(0), atol=1e-10) and torch.allclose(m.covariance, torch.cov(x.T), atol=1e-9)


def test_moments_are_exact_in_double_precision_for_single_features():
    x = (1e4 + draws(1000, 3)).float()
    assert torch.allclose(Moments.of(x).covariance, torch.cov(x.double().T), rtol=1e-9)


# Bias.


def test_two_samples_of_one_truth_are_apart_and_the_less_the_more_there_are():
    dim, values = 10, []
    for n in (100, 400, 1600):
        pairs = [between(draws(n, dim, s), draws(n, dim, s + 50)) for s in range(8)]
        values.append(sum(pairs) / len(pairs))
    assert values[0] > 3 * values[1] > 9 * values[2] > 0
    # to first order 2 d / n from the means and a quarter of the squared error of both covariances, 2 d (d + 1) / n
    assert values[2] == pytest.approx((2 * dim + dim * (dim + 1) / 2) / 1600, rel=0.15)


def test_a_line_in_one_over_n_takes_most_of_the_bias_away():
    pairs = [(draws(400, 10, s), draws(400, 10, s + 500)) for s in range(30)]
    plain = sum(between(a, b) for a, b in pairs) / 30
    corrected = sum(extrapolated(a, b, seeded(s)) for s, (a, b) in enumerate(pairs)) / 30
    assert plain > 0.15 and abs(corrected) < plain / 4


def test_few_images_are_refused_or_warned_of():
    with pytest.raises(ValueError, match="real: found 10 images for 10 features, wanted more than 10, and 50 or more"):
        between(draws(10, 10), draws(100, 10))
    with pytest.warns(UserWarning, match="generated: 49 images for 10 features make the distance mostly bias"):
        between(draws(50, 10), draws(49, 10))
    between(draws(50, 10), draws(50, 10))


# Our network, on pictures that need no data folder.


@pytest.fixture(scope="module")
def real():
    """Digits of e-MNIST in place of real ones: features, classes, pictures of two disjoint halves."""
    part = entangled(per_class=400, seed=1).train
    x, y = part.batch["digit"], part.classes
    return {"x": x, "features": extract(x), "classes": y, "half": len(x) // 2}


def halves(real):
    return real["features"][: real["half"]], real["features"][real["half"] :]


def test_the_honest_generator_is_near_zero(real):
    a, b = halves(real)
    scale = Moments.of(a).covariance.trace().item()
    assert 0 < between(a, b) < 0.05 * scale


def test_a_constant_picture_and_noise_are_far(real):
    a, b = halves(real)
    honest = between(a, b)
    x = real["x"]
    constant = x.float().mean(0, keepdim=True).div(255).expand(600, -1, -1, -1)
    noise = torch.rand(600, 1, 28, 28, generator=seeded())
    for cheat in (constant, noise, torch.zeros(600, 1, 28, 28)):
        assert between(a, extract(cheat)) > 50 * honest


def test_noise_and_blur_count_by_their_amount(real):
    a, _ = halves(real)
    x = real["x"][real["half"] :].float() / 255
    noise = torch.randn(x.shape, generator=seeded())
    for worse in ([between(a, extract(x + s * noise)) for s in (0, 0.1, 0.2, 0.4)],
                  [between(a, extract(torch.nn.functional.avg_pool2d(x, k, 1, k // 2))) for k in (1, 3, 5, 7)]):  # fmt: skip
        assert worse == sorted(worse) and worse[1] > 1.5 * worse[0]


def test_the_more_classes_a_generator_drops_the_farther_it_is(real):
    a, b = halves(real)
    classes = real["classes"][real["half"] :]
    values = [between(a, b[classes < kept]) for kept in (10, 8, 6, 4, 2)]
    assert values == sorted(values) and values[1] > 2 * values[0]


def test_the_right_pictures_for_the_wrong_class_are_seen_by_class(real):
    a, b = halves(real)
    ya, yb = real["classes"][: real["half"]], real["classes"][real["half"] :]
    good, shuffled = class_conditional(a, ya, b, yb), class_conditional(a, ya, b, (yb + 1) % 10)
    assert set(good) == {*"0123456789", "mean"} and good["mean"] == pytest.approx(sum(good[k] for k in "0123456789") / 10)
    assert shuffled["mean"] > 10 * good["mean"]  # the distance of all is the same to the bit
    with pytest.raises(ValueError, match=r"classes: found \[0, 1.*wanted the same"):
        class_conditional(a, ya, b[yb < 9], yb[yb < 9])


def test_copies_of_the_training_images_escape_the_distance_and_are_seen_by_their_neighbours(real):
    x = real["x"]
    train, test = x[: real["half"]], x[real["half"] :]
    test = (test.float() / 255 + 0.02 * torch.rand(test.shape, generator=seeded())).clamp(0, 1)
    train = (train.float() / 255 + 0.02 * torch.rand(train.shape, generator=seeded(1))).clamp(0, 1)
    fresh, held_out = test[:300], test[300:]
    memory = train[:300]
    # the copies are even nearer to their own training set than fresh pictures are
    assert frechet(train, memory) < frechet(train, fresh) * 1.2
    found = {name: copied(g, train, held_out) for name, g in (("memory", memory), ("fresh", fresh), ("jittered", memory + 0.002 * torch.rand(memory.shape, generator=seeded(2))))}
    assert found["memory"]["share"] == 1 and found["memory"]["median"] < 1e-3
    assert found["jittered"]["share"] > 0.9
    assert found["fresh"]["share"] < 0.06 and found["fresh"]["median"] > 0.5


def test_blurred_pictures_are_no_copies(real):
    x = real["x"].float() / 255
    train, test = x[:500] + 0.05 * torch.rand(500, 1, 28, 28, generator=seeded()), x[500:]
    blurred = torch.nn.functional.avg_pool2d(test[:100], 3, 1, 1)
    assert copied(blurred, train, test)["share"] < 0.1


def test_copies_by_hand():
    train = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])[:, None, None]
    test = torch.tensor([[0.5, 0.5]])[:, None, None].expand(100, -1, -1, -1)
    generated = torch.tensor([[0.0, 0.0], [0.25, 0.0]])[:, None, None]
    found = copied(generated, train, test)
    assert found == {"share": 1.0, "threshold": 1.0, "median": pytest.approx(0.0), "n": 2}
    assert fr._nearest_ratio(generated, train, 500).tolist() == pytest.approx([0, 1 / 3])
    with pytest.raises(ValueError, match="found 3 training and 10 test images, wanted 2 and 100 or more"):
        copied(generated, train, test[:10])
    with pytest.raises(ValueError, match=r"copied: found items of \[1, 1, 2\], \[1, 1, 2\] and \[1, 1, 1\], wanted one shape"):
        copied(generated, train, test[..., :1])
    with pytest.raises(ValueError, match="copied: found no generated image"):
        copied(generated[:0], train, test)


def test_chunks_bytes_and_floats_agree(real):
    x = real["x"][:60]
    one = extract(x)
    assert one.shape == (60, 32) and torch.allclose(one, extract(x, chunk=7), atol=1e-4) and torch.allclose(one, extract(x.float() / 255), atol=1e-4)
    assert torch.allclose(one, extract(x, "grey-features")) and torch.equal(extract(x.float() / 255), extract((x.float() / 255).double()))
    assert torch.equal(extract(x.float() / 255 + 5 * (x == 255)), extract(x.float() / 255)), "means that stray are cut"


def test_loading_the_network_leaves_the_readers_generator_alone():
    fr._shipped.cache_clear()
    torch.manual_seed(5)
    before = torch.get_rng_state()
    extract(torch.zeros(2, 1, 28, 28))
    assert torch.equal(before, torch.get_rng_state())


def test_any_function_of_images_can_be_the_features():
    x, y = torch.rand(50, 1, 2, 2, generator=seeded()), torch.rand(60, 1, 2, 2, generator=seeded(1))
    pixels = lambda images: images.flatten(1)  # noqa: E731
    assert frechet(x, y, pixels) == pytest.approx(between(x.flatten(1), y.flatten(1)))


def test_names_tell_our_distances_from_fid():
    assert fr.measure_name("grey-features") == "Fréchet distance on grey-features" and fr.measure_name("inception") == "FID"
    with pytest.raises(KeyError, match="unknown features 'fid'"):
        fr.measure_name("fid")


def test_bad_input_is_named(as_a_reader):
    with pytest.raises(ValueError, match=r"found shape \[1, 32, 32\]; our feature networks read \[1, 28, 28\]"):
        extract(torch.zeros(3, 1, 32, 32))
    with pytest.raises(ValueError, match=r"found shape \[3, 32, 32\], grey-features was trained on \[1, 28, 28\]"):
        extract(torch.zeros(3, 3, 32, 32), "grey-features")
    with pytest.raises(ValueError, match="found NaN or infinity"):
        between(draws(50, 2), torch.full((50, 2), torch.nan))
    with pytest.raises(ValueError, match="found 2 and 3, wanted the same network"):
        between(draws(50, 2), draws(50, 3))
    with pytest.raises(ValueError, match=r"found shape \[0, 1, 28, 28\], wanted at least 1 image"):
        extract(torch.zeros(0, 1, 28, 28))
    with pytest.raises(KeyError, match="unknown features 'grey'"):
        extract(torch.zeros(3, 1, 28, 28), "grey")
    with pytest.raises(ValueError, match="2 images or more, found 1"):
        Moments.of(draws(1, 2)).covariance


# Colour: house numbers and faces, which the package draws.


@pytest.fixture(scope="module")
def streets():
    x, y = street_numbers(2000, "test", seed=7)
    return x[:1000], y[:1000], x[1000:], y[1000:]


def test_colour_pictures_have_a_network_of_their_own(streets):
    real, known, fresh, classes = streets
    features = extract(real)
    assert [fr.default_features((3, side, side)) for side in (32, 64)] == ["street-features", "colour-features"] and features.shape == (1000, 71)
    honest = between(features, extract(fresh))
    grey = fresh.float().mean(1, keepdim=True).round().to(torch.uint8).expand(-1, 3, -1, -1)
    noise = (fresh + 25.0 * torch.randn(fresh.shape, generator=seeded())).clamp(0, 255).to(torch.uint8)
    blurred = torch.nn.functional.avg_pool2d(fresh.float(), 3, 1, 1).to(torch.uint8)
    for worse, times in ((grey, 1.4), (noise, 10), (blurred, 5), (fresh[:1].expand(400, -1, -1, -1), 50)):
        assert between(features, extract(worse)) > times * honest
    dropped = [between(features, extract(fresh[classes < kept])) for kept in (10, 7, 4)]
    assert dropped == sorted(dropped)
    # it sees which digit a picture shows, and so a translation into the wrong class
    pairs = [(k, j) for k in (1, 7) for j in (1, 7)]
    apart = {(k, j): distance(Moments.of(features[known == k]), Moments.of(extract(fresh[classes == j]))) for k, j in pairs}
    assert min(apart[1, 7], apart[7, 1]) > 1.5 * max(apart[1, 1], apart[7, 7])


def test_faces_of_another_kind_are_far():
    """Fewer faces than a printed number needs: the same on both sides of each comparison, so that the bias is too."""
    x, attributes = (drawn_faces(560, seed=5).batch[m] for m in ("image", "attributes"))
    features, n = extract(x), 150
    male = attributes[n:, ATTRIBUTES.index("Male")].bool()
    blurred = torch.nn.functional.avg_pool2d(x[n : 2 * n].float(), 5, 1, 2).to(torch.uint8)
    assert features.shape == (560, 64) and male.sum() >= n
    real, fresh, one_kind, soft = (Moments.of(f) for f in (features[:n], features[n : 2 * n], features[n:][male][:n], extract(blurred)))
    assert distance(real, one_kind) > 2 * distance(real, fresh) and distance(real, soft) > 1.5 * distance(real, fresh)


# Inception, with a stand-in for the package.


def fake_fidelity(monkeypatch, seen):
    class Extractor(torch.nn.Module):
        def __init__(self, name, layers, feature_extractor_weights_path=None):
            super().__init__()
            seen.update(name=name, layers=layers, path=feature_extractor_weights_path)

        def forward(self, x):
            seen.update(dtype=x.dtype, shape=tuple(x.shape), high=int(x.max()))
            return (x.float().mean((2, 3)),)

    module = types.ModuleType("torch_fidelity.feature_extractor_inceptionv3")
    module.FeatureExtractorInceptionV3 = Extractor
    monkeypatch.setitem(sys.modules, "torch_fidelity", types.ModuleType("torch_fidelity"))
    monkeypatch.setitem(sys.modules, "torch_fidelity.feature_extractor_inceptionv3", module)


def test_inception_needs_the_package_then_the_weights_or_a_wish(monkeypatch, tmp_path):
    images = torch.rand(4, 1, 28, 28, generator=seeded())
    monkeypatch.setitem(sys.modules, "torch_fidelity", None)
    monkeypatch.setenv("MMVAE_DATA", str(tmp_path))
    with pytest.raises(ImportError, match="features='inception' needs torch-fidelity; install it with: pip install torch-fidelity"):
        extract(images, "inception")
    seen = {}
    fake_fidelity(monkeypatch, seen)
    with pytest.raises(FileNotFoundError, match="put it under inception/"):
        extract(images, "inception")
    extract(images, "inception", download=True)
    assert seen["path"] is None
    (tmp_path / "inception").mkdir()
    (tmp_path / "inception" / fr.INCEPTION_FILE).touch()
    found = extract(images, "inception")
    assert seen["path"].endswith(fr.INCEPTION_FILE) and seen["layers"] == ["2048"]
    assert seen["dtype"] == torch.uint8 and seen["shape"] == (4, 3, 28, 28) and found.shape == (4, 3)
    assert torch.equal(found[:, 0], found[:, 2])  # grey in three channels
