"""Judges: what ships is as good as its card says, learns what it is shown, and refuses to judge other data."""

import hashlib
import os

import pytest
import torch
from torch import nn

from mmvae_lite.data import load
from mmvae_lite.evaluation import classifiers
from mmvae_lite.evaluation.classifiers import Classifier, accuracy, classifier, predict, predict_attributes, train_classifier
from mmvae_lite.evaluation.semi_supervised import binary_scores
from mmvae_lite.pretrained import cards

SHAPES = {"image": (1, 28, 28), "street": (3, 32, 32), "speech": (100, 80), "face": (3, 64, 64)}
SHIPPED = [name for name, (kind, _) in classifiers.SHIPPED.items() if kind != "face"]


def held_out(name):
    """The test items and classes of a set, or a skip where its files are not there."""
    try:
        if name in ("mnist", "fashion-mnist", "digits"):
            test = load(name).test
            return test.images, test.classes
        if name == "street-numbers":
            from mmvae_lite.data.street_numbers import street_numbers

            return street_numbers(1000, "test")
        from mmvae_lite.data import spoken_digits

        test = {"fsdd": spoken_digits.fsdd, "spoken-digits": spoken_digits.synthetic_speech}[name]().test
        return test.batch["speech"], test.classes
    except FileNotFoundError as missing:
        if os.environ.get("MMVAE_DATA"):
            raise
        pytest.skip(str(missing))


def striped(kind, n=100, seed=0):
    """Noise with a bright band whose place is the class, of three."""
    g = torch.Generator().manual_seed(seed)
    classes = torch.randint(3, (n,), generator=g)
    x = 0.2 * torch.rand(n, *SHAPES[kind], generator=g)
    for item, k in zip(x, classes):
        size = item.shape[-1]
        item[..., k * size // 3 : (k + 1) * size // 3] += 0.6
    return x, classes


@pytest.mark.parametrize("name", SHIPPED)
def test_is_as_good_as_its_card_says(name):
    judge = classifier(name, of=name)
    x, y = held_out(name)
    said = judge.card["metrics"]["accuracy"]
    if judge.card.get("sha256 of the test items") == hashlib.sha256(x.contiguous().numpy().tobytes()).hexdigest():
        assert accuracy(judge, x, y) == pytest.approx(said["value"], abs=1.5 / said["n"])
    else:  # some of the items, or others of the same kind
        assert accuracy(judge, x, y) == pytest.approx(said["value"], abs=4 * (said["value"] * (1 - said["value"]) / len(y)) ** 0.5 + 1e-3)
    assert judge.of == judge.card["data"] == name and said["value"] > 0.85


def test_what_ships_is_what_is_named():
    assert {f"classifier-{name}" for name in classifiers.SHIPPED} == {name for name in cards() if name.startswith("classifier-")}


def test_the_judge_of_faces_sees_attributes():
    from mmvae_lite.data import faces

    test = faces("stand-in", train=1, validation=1, test=200).test
    judge = classifier("cartoon-faces")
    scores = binary_scores(predict_attributes(judge, test.batch["image"]), test.batch["attributes"])
    said = judge.card["metrics"]
    assert scores["accuracy"]["value"] == pytest.approx(said["accuracy"]["value"], abs=0.02)
    assert scores["f1"]["value"] == pytest.approx(said["f1"]["value"], abs=0.06)
    assert said["accuracy"]["value"] > said["accuracy"]["base"] + 0.1 and said["f1"]["value"] > said["f1"]["base"] + 0.2


@pytest.mark.parametrize("kind", SHAPES)
def test_learns_and_repeats(kind):
    x, y = striped(kind, 60 if kind == "face" else 100)
    before = torch.get_rng_state()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(99)
        one = train_classifier(kind, x, y, epochs=6, batch_size=10, lr=4e-3, seed=5)
    two = train_classifier(kind, x, y, epochs=6, batch_size=10, lr=4e-3, seed=5)
    assert torch.equal(before, torch.get_rng_state()) and not one.training
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), two.state_dict().values()))
    unseen, classes = striped(kind, n=50, seed=1)
    assert one(unseen).shape == (50, 3) and accuracy(one, unseen, classes) > 0.95


def test_same_bits_in_another_process(elsewhere):
    program = (
        "from tests.test_classifiers import *\n"
        "net = train_classifier('image', *striped('image', 60), epochs=1, batch_size=20, shift=1, seed=2)\n"
        "print(sum(p.double().sum() for p in net.parameters()).item().hex())"
    )
    there = elsewhere(program).strip()
    net = train_classifier("image", *striped("image", 60), epochs=1, batch_size=20, shift=1, seed=2)
    assert there == sum(p.double().sum() for p in net.parameters()).item().hex()


def test_levels_and_numbers_are_one_picture():
    x, y = striped("image", 60)
    levels = (x * 255).round().to(torch.uint8)
    net = train_classifier("image", levels, y, epochs=1, batch_size=20)
    judge = Classifier(net, "stripes")
    assert torch.equal(judge(levels), judge(levels.float() / 255))
    assert torch.equal(predict(judge, levels), predict(net, levels.double() / 255, chunk=7))


def test_shuffled_classes_teach_nothing():
    x, y = striped("image", 300)
    order = torch.randperm(300, generator=torch.Generator().manual_seed(0))
    net = train_classifier("image", x, y[order], epochs=3, batch_size=20)
    unseen, classes = striped("image", n=600, seed=1)
    assert accuracy(net, unseen, classes) < 0.6


def test_attributes_are_learnt_each_by_itself():
    g = torch.Generator().manual_seed(0)

    def faces(n):
        wanted = torch.randint(2, (n, 2), generator=g)
        x = 0.2 * torch.rand(n, 3, 64, 64, generator=g)
        x[:, 0, :32] += 0.7 * wanted[:, 0, None, None]
        x[:, 2, 32:] += 0.7 * wanted[:, 1, None, None]
        return x, wanted

    net = train_classifier("face", *faces(60), epochs=6, batch_size=8)
    x, wanted = faces(60)
    found = predict_attributes(net, x, chunk=17)
    assert found.shape == (60, 2) and float((found == wanted).double().mean()) > 0.95


def test_moves_whole_items_and_repeats_their_border():
    from mmvae_lite.evaluation.classifiers import _moved

    x = torch.arange(36.0).reshape(1, 1, 6, 6).expand(50, -1, -1, -1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        moved = _moved(x, 2, 2)
        frames = _moved(x[:, 0], 2, 0)
    found = set()
    for item in moved[:, 0]:
        rows, columns = (item[:, 0] / 6).floor(), item[0] % 6
        assert torch.equal(item, 6 * rows[:, None] + columns)
        found.add((rows[3].item() - 3, columns[3].item() - 3))
        assert rows.tolist() == (torch.arange(6.0) + rows[3] - 3).clamp(0, 5).tolist()
    assert len(found) > 15 and {a for a, _ in found} == {b for _, b in found} == {-2, -1, 0, 1, 2}
    assert all(torch.equal(item % 6, x[0, 0] % 6) for item in frames), "bands stay in place"


def paired(name, modalities, stand_in=True):
    from mmvae_lite.data.parts import MultimodalSet, Part

    part = Part({m: torch.zeros(1, 1) for m in modalities}, torch.zeros(1, dtype=torch.int64))
    return MultimodalSet(name, "", stand_in, part, part)


@pytest.mark.parametrize(
    "data, wanted",
    [
        (paired("mnist-street-numbers", ["digit", "street"]), ["mnist", "street-numbers"]),
        (paired("digits-street-numbers", ["digit", "street"]), ["digits", "street-numbers"]),
        (paired("digits-3", ["x1", "x2", "x3"]), ["digits"] * 3),
        (paired("fashion-mnist-label", ["image", "label"]), ["fashion-mnist", None]),
        (paired("spoken-written", ["speech", "image"], False), ["fsdd", "mnist"]),
        (paired("me-mnist", ["digit", "garment", "label"]), ["mnist", "fashion-mnist", None]),
    ],
)
def test_judges_of_a_paired_set(data, wanted):
    judges = classifiers.judges_for(data)
    assert list(judges) == list(data.train.batch)
    assert [getattr(j, "of", None) for j in judges.values()] == wanted


def test_names_of_the_paired_sets_are_those_that_the_data_have():
    """The real functions, small: what they call themselves finds judges that are good at it."""
    from mmvae_lite.data import digits_street, image_label, noisy_digits

    for data in (digits_street("stand-in", times=1, drawn=(100, 100)), noisy_digits("stand-in"), image_label("stand-in")):
        for m, judge in classifiers.judges_for(data).items():
            x = data.test.take(slice(0, 100))[m]
            assert accuracy(judge, x, data.test.classes[:100]) > 0.85, (data.name, m)


def test_a_judge_is_trained_where_none_ships():
    from mmvae_lite.data.parts import MultimodalSet, Part

    def part(seed):
        x, y = striped("image", 80, seed)
        rows = torch.randint(60, (200,), generator=torch.Generator().manual_seed(seed))  # some rows are in no tuple
        return Part({"picture": x}, y[rows], {"picture": rows})

    data = MultimodalSet("stripes", "", True, part(0), part(1))
    with pytest.raises(KeyError, match="no classifier ships for 'picture' of 'stripes'; train one with train_judge"):
        classifiers.judges_for(data)
    judge = classifiers.train_judge(data, "picture", epochs=6, batch_size=10, lr=4e-3)
    found = judge.card["metrics"]["accuracy"]
    assert judge.of == "stripes" and found["value"] > 0.95 and found["n"] == len(part(1).index["picture"].unique())


def test_loading_takes_nothing_from_the_reader():
    torch.manual_seed(3)
    before = torch.get_rng_state()
    judge = classifier("digits")
    assert torch.equal(before, torch.get_rng_state())
    assert not judge.network.training and not any(p.requires_grad for p in judge.network.parameters())
    assert all(p.device.type == "cpu" for p in judge.network.parameters())


def test_every_network_is_small():
    for kind, network in classifiers.NETWORKS.items():
        net = network()
        assert sum(v.numel() for v in net.state_dict().values()) < 50_000
        assert net.eval()(torch.rand(2, *SHAPES[kind])).shape == (2, 18 if kind == "face" else 10)


@pytest.mark.parametrize(
    "call, error, message",
    [
        (lambda: classifier("digits", of="mnist"), ValueError, "trained on 'digits' and would judge 'mnist'"),
        (lambda: classifier("mnits"), KeyError, "did you mean 'mnist'"),
        (lambda: train_classifier("picture", *striped("image", 4)), KeyError, "unknown kind of classifier"),
        (lambda: train_classifier("image", striped("image", 4)[0], torch.tensor([1])), ValueError, "4 items and 1 classes"),
        (lambda: accuracy(nn.Flatten(), torch.ones(0, 3), torch.ones(0, dtype=torch.int64)), ValueError, "0 items"),
        (lambda: predict(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)).train(), torch.ones(2, 4)), ValueError, "in training mode"),
    ],
)
def test_refuses_in_one_sentence(as_a_reader, call, error, message):
    with pytest.raises(error, match=message):
        call()
