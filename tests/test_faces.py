"""Drawn faces: every attribute shows, attributes hide each other, style stays apart, and the task needs more than pixels."""

import hashlib
import os
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from mmvae_lite.data import PAIRED, faces
from mmvae_lite.data.celeba import ATTRIBUTES
from mmvae_lite.data.faces import HAIR, STYLE, _Faces, draw, drawn_faces, sample_attributes, sample_style

COLUMN = {name: i for i, name in enumerate(ATTRIBUTES)}


def sampled(n=32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return sample_attributes(n, generator), sample_style(n, generator)


def with_(attributes, on=(), off=()):
    attributes = attributes.clone()
    attributes[:, [COLUMN[name] for name in on]] = True
    attributes[:, [COLUMN[name] for name in off]] = False
    return attributes


HEAD_OF_HAIR = ("Bald", "Receding_Hairline", "Bangs", "Wearing_Hat")
NEEDS = {  # what has to be off for an attribute to be in sight, and what it comes with
    "Bald": ((), ("Bangs", "Straight_Hair", "Wavy_Hair", "Receding_Hairline", "Wearing_Hat")),
    "Straight_Hair": ((), ("Wavy_Hair", "Bald", "Wearing_Hat")),
    "Wavy_Hair": ((), ("Straight_Hair", "Bald", "Wearing_Hat")),
    "Receding_Hairline": (("Male",), HEAD_OF_HAIR),
    "Bangs": ((), HEAD_OF_HAIR),
    "Smiling": ((), ("Mustache",)),
    "Bushy_Eyebrows": ((), ("Bangs", "Eyeglasses", "Wearing_Hat")),
} | {name: ((), (*HAIR, "Bald", "Wearing_Hat")) for name in HAIR}


def changed(attributes, style, name):
    """Where the picture of a face changes when one attribute does: [n, 64, 64]."""
    both = torch.cat([with_(attributes, **{state: [name]}) for state in ("off", "on")])
    off, on = draw(both, style.repeat(2, 1)).int().chunk(2)
    return (on - off).abs().amax(1) > 24


@pytest.fixture(scope="module")
def shown():
    """By how many pixels each attribute is seen on each of 16 faces, [16] each; drawn at one go, which is faster."""
    attributes, style = sampled(16)
    bare = {name: with_(attributes, *NEEDS.get(name, ((), ()))) for name in ATTRIBUTES}
    every = [with_(bare[name], **{state: [name]}) for state in ("off", "on") for name in ATTRIBUTES]
    off, on = draw(torch.cat(every), style.repeat(len(every), 1)).int().unflatten(0, (2, len(ATTRIBUTES), 16))
    return dict(zip(ATTRIBUTES, ((on - off).abs().amax(2) > 24).sum((2, 3))))


@pytest.mark.parametrize("name", ATTRIBUTES)
def test_every_attribute_shows_where_nothing_hides_it(shown, name):
    """On a few faces hair or lips are as dark as the skin."""
    seen = shown[name].float()
    assert (seen >= 12).float().mean() >= 0.85 and seen.median() >= 25, seen.tolist()


@pytest.mark.parametrize(
    ("name", "under", "share"),
    [
        ("Bushy_Eyebrows", "Bangs", 0.5),
        ("Receding_Hairline", "Wearing_Hat", 0.3),
        ("Bangs", "Wearing_Hat", 0.7),
        ("Bald", "Wearing_Hat", 0.7),
        ("Bushy_Eyebrows", "Wearing_Hat", 0.95),
        ("Mouth_Slightly_Open", "Mustache", 0.95),
        ("Heavy_Makeup", "Eyeglasses", 0.95),
    ],
)
def test_attributes_hide_each_other(name, under, share):
    """Of the pixels by which an attribute is known, at most this share is left when another lies over it."""
    attributes, style = sampled(32, 1)
    on, off = NEEDS.get(name, ((), ()))
    free = changed(with_(attributes, on, {*off, under}), style, name).sum()
    hidden = changed(with_(attributes, [*on, under], {*off} - {under}), style, name).sum()
    assert hidden <= share * free


def test_dark_glasses_hide_eyes_and_brows():
    attributes, style = sampled(32, 2)
    attributes = with_(attributes, off=["Bangs", "Wearing_Hat"])
    kinds = {}
    for kind, shape in (("dark", 0.9), ("clear", 0.3)):
        style[:, STYLE.index("glasses shape")] = shape
        a, b = style.clone(), style.clone()
        a[:, STYLE.index("eye colour")], b[:, STYLE.index("eye colour")] = 0.0, 1.0
        worn = with_(attributes, on=["Eyeglasses"])
        kinds[kind] = (draw(worn, a).int() - draw(worn, b).int()).abs().float().mean()
    assert kinds["dark"] < 0.2 * kinds["clear"]


@pytest.mark.parametrize(
    "pair",
    [("Eyeglasses", "Bushy_Eyebrows"), ("Mustache", "Mouth_Slightly_Open"), ("Heavy_Makeup", "Smiling"), ("Wearing_Hat", "Gray_Hair")],
)
def test_attributes_share_pixels(pair):
    attributes, style = sampled(24, 3)
    attributes = with_(attributes, off=[*HAIR, "Bald", "Bangs", "Wearing_Hat", "Eyeglasses"])
    first, second = (changed(attributes, style, name) for name in pair)
    assert int((first & second).sum((1, 2)).median()) >= 3


def test_attributes_come_together_as_they_do_among_people():
    a = {name: column for name, column in zip(ATTRIBUTES, sample_attributes(20_000, torch.Generator().manual_seed(4)).unbind(-1))}
    assert int(torch.stack([a[name] for name in HAIR]).sum(0).max()) == 1
    for other in ("Bangs", "Straight_Hair", "Wavy_Hair", "Receding_Hairline"):
        assert not bool((a["Bald"] & a[other]).any())
    assert not bool((a["Straight_Hair"] & a["Wavy_Hair"]).any())
    for name in ("Mustache", "Bald", "Bushy_Eyebrows", "Receding_Hairline"):
        assert a[name][a["Male"]].float().mean() > 2 * a[name][~a["Male"]].float().mean()
    assert a["Heavy_Makeup"][~a["Male"]].float().mean() > 10 * a["Heavy_Makeup"][a["Male"]].float().mean()
    assert a["Mouth_Slightly_Open"][a["Smiling"]].float().mean() > 1.5 * a["Mouth_Slightly_Open"][~a["Smiling"]].float().mean()
    assert a["Gray_Hair"][a["Bald"] | a["Receding_Hairline"]].float().mean() > a["Gray_Hair"].float().mean()
    assert all(0.05 < column.float().mean() < 0.6 for column in a.values())


def test_style_is_uniform_and_independent_of_the_attributes():
    attributes, style = sampled(20_000, 5)
    both = torch.cat([attributes.float(), style], 1)
    correlation = torch.corrcoef(both.T)[len(ATTRIBUTES) :] - torch.cat([torch.zeros(len(STYLE), 18), torch.eye(len(STYLE))], 1)
    assert correlation.abs().max() < 0.035
    assert (style.mean(0) - 0.5).abs().max() < 0.01 and 0 <= style.min() and style.max() <= 1


def test_no_factor_of_style_is_dead():
    attributes, style = sampled(12, 6)
    moved = style.repeat(2, len(STYLE), 1, 1)
    for i in range(len(STYLE)):
        moved[0, i, :, i], moved[1, i, :, i] = 0.05, 0.95
    low, high = draw(attributes.repeat(2 * len(STYLE), 1), moved.flatten(0, 2)).int().unflatten(0, (2, len(STYLE), 12))
    shares = ((low - high).abs().amax(2) > 8).float().mean((2, 3)).amax(1)
    assert [name for name, share in zip(STYLE, shares) if share <= 0.002] == []


def test_skin_runs_from_pale_to_dark():
    attributes, style = sampled(16, 7)
    attributes = with_(attributes, off=["Pale_Skin", "Bangs", "Eyeglasses", "Heavy_Makeup"])
    style[:, STYLE.index("light strength")] = 0
    style[:, STYLE.index("down")] = style[:, STYLE.index("right")] = style[:, STYLE.index("tilt")] = 0.5

    def cheek(on, tone):
        style[:, STYLE.index("skin tone")] = tone
        return float(draw(with_(attributes, on=on), style)[:, :, 38:41, 23:26].float().mean())

    shades = [cheek(["Pale_Skin"], 0.0), *(cheek([], tone) for tone in (0.0, 0.4, 0.7, 1.0))]
    assert shades == sorted(shades, reverse=True) and shades[0] > 2.5 * shades[-1]


def test_a_window_leaves_nothing_out(monkeypatch):
    """Features are painted on parts of the picture, for speed: on the whole picture they look the same, in extreme poses too."""
    attributes, style = sampled(96, 8)
    style[32:] = style[32:].round()
    quick = draw(attributes, style)
    monkeypatch.setattr(_Faces, "window", lambda self, *limits: self)
    assert int((draw(attributes, style).int() - quick.int()).abs().max()) <= 1


def test_a_face_does_not_depend_on_those_beside_it():
    attributes, style = sampled(70, 9)
    alone = torch.cat([draw(attributes[i : i + 1], style[i : i + 1]) for i in (0, 5, 69)])
    assert int((draw(attributes, style)[[0, 5, 69]].int() - alone.int()).abs().max()) <= 1
    assert torch.equal(draw(attributes.float()[:3], style[:3]), draw(attributes[:3], style[:3]))
    assert draw(attributes[:0], style[:0]).shape == (0, 3, 64, 64)


def digest(part):
    return hashlib.sha256(b"".join(part.batch[m].numpy().tobytes() for m in ("image", "attributes"))).hexdigest()


def test_the_same_in_another_process(elsewhere):
    program = (
        "import hashlib, torch; torch.rand(3)\n"
        "from mmvae_lite.data.faces import drawn_faces\n"
        "part = drawn_faces(70, 11)\n"
        "print(hashlib.sha256(b''.join(part.batch[m].numpy().tobytes() for m in ('image', 'attributes'))).hexdigest())"
    )
    found = elsewhere(program)
    assert found.strip() == digest(drawn_faces(70, 11)) != digest(drawn_faces(70, 12))


def test_the_set_and_its_parts():
    found = PAIRED["faces"]("stand-in", seed=3, train=60, validation=30, test=20)
    again, other = (faces("stand-in", seed=s, train=60, validation=30, test=20) for s in (3, 4))
    assert found.stand_in and "drawn" in found.description and found.class_names == ATTRIBUTES
    assert [len(p) for p in (found.train, found.validation, found.test)] == [60, 30, 20]
    assert found.train.batch["image"].dtype == torch.uint8 and found.train.facts["style"].shape == (60, len(STYLE))
    taken = found.train.take(slice(0, 4))
    assert taken["image"].shape == (4, 3, 64, 64) and 0 <= taken["image"].min() and 0.9 < taken["image"].max() <= 1
    assert taken["attributes"].shape == (4, 18) and set(taken["attributes"].unique().tolist()) == {0.0, 1.0}
    assert all(digest(a) == digest(b) for a, b in ((found.train, again.train), (found.test, again.test)))
    items = [x.numpy().tobytes() for s in (found, other) for p in (s.train, s.validation, s.test) for x in p.batch["image"]]
    assert len(set(items)) == len(items) == 220


def test_sources(tmp_path, monkeypatch):
    monkeypatch.setenv("MMVAE_DATA", str(tmp_path))
    monkeypatch.setenv("MMVAE_CACHE", str(tmp_path / "cache"))
    assert faces(train=1, validation=1, test=1).stand_in
    with pytest.raises(FileNotFoundError, match="missing img_align_celeba, .*no program may download.*under celeba/"):
        faces("real", download=True)
    (tmp_path / "celeba").mkdir()
    with pytest.raises(FileNotFoundError, match="missing img_align_celeba"):  # a folder half there is said, not passed over
        faces("best")
    with pytest.raises(KeyError, match="unknown source 'standin'.*did you mean 'stand-in'"):
        faces("standin")
    with pytest.raises(ValueError, match="train: found 0, wanted a whole number of at least 1"):
        faces("stand-in", train=0)
    with pytest.raises(ValueError, match=r"wanted \[2, 18\] and \[2, 28\]"):
        draw(torch.zeros(2, 18), torch.zeros(2, 5))


def mean_f1(logits, wanted):
    found, wanted = logits > 0, wanted > 0
    return float((2 * (found & wanted).sum(0) / (found.sum(0) + wanted.sum(0))).mean())


def trained(net, x, y, schedule):
    generator = torch.Generator().manual_seed(0)
    for epochs, rate in schedule:
        optimiser = torch.optim.Adam(net.parameters(), rate)
        for _ in range(epochs):
            for rows in torch.randperm(len(x), generator=generator).split(50):
                optimiser.zero_grad()
                F.binary_cross_entropy_with_logits(net(x[rows]), y[rows]).backward()
                optimiser.step()
    return net.eval()


def logistic_regression(x, y, z, decay):
    """Logits for z [items, 18] of the minimum of the penalised loss, to which gradient descent may not have come."""
    weights, biases = torch.zeros(x.shape[1], y.shape[1], requires_grad=True), torch.zeros(y.shape[1], requires_grad=True)
    optimiser = torch.optim.LBFGS([weights, biases], max_iter=60, line_search_fn="strong_wolfe")

    def loss():
        optimiser.zero_grad()
        value = F.binary_cross_entropy_with_logits(x @ weights + biases, y) * y.shape[1] + decay / 2 * weights.square().sum()
        value.backward()
        return value

    optimiser.step(loss)
    return (z @ weights + biases).detach()


def test_hard_enough_to_teach():
    """A small convolutional network knows the attributes clearly better than logistic regression with the best of its penalties."""
    train, test = drawn_faces(1600, 1), drawn_faces(400, 2)
    x, z = (F.avg_pool2d(p.take(slice(None))["image"], 2) for p in (train, test))
    x, z, y, wanted = x - x.mean(0), z - x.mean(0), train.batch["attributes"], test.batch["attributes"]
    linear = max(mean_f1(logistic_regression(x.flatten(1), y, z.flatten(1), decay), wanted) for decay in (1e-4, 1e-3))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        sizes = ((3, 16), (16, 32), (32, 64))
        layers = [m for i, o in sizes for m in (nn.Conv2d(i, o, 4, 2, 1, bias=False), nn.BatchNorm2d(o), nn.ReLU())]
        net = nn.Sequential(*layers, nn.Flatten(), nn.Linear(64 * 16, 128), nn.ReLU(), nn.Linear(128, 18))
        net = net.to(memory_format=torch.channels_last)
    convolutional = mean_f1(trained(net, x, y, ((4, 3e-3), (4, 1e-3)))(z), wanted)
    print(f"mean F1: logistic regression {linear:.3f}, convolutional network {convolutional:.3f}")
    assert linear < 0.7 and convolutional > 0.7 and convolutional > linear + 0.07


def sheet(pictures, columns):
    rows = [torch.cat(list(F.pad(row, (1, 1, 1, 1), value=255)), -1) for row in pictures.split(columns)]
    return torch.cat(rows, 1).permute(1, 2, 0).numpy()


def test_contact_sheets():
    """For people to look at: many faces, and each attribute off and on in one style."""
    image = pytest.importorskip("PIL.Image")
    folder = Path(os.environ.get("MMVAE_ARTEFACTS", "build/artefacts"))
    folder.mkdir(parents=True, exist_ok=True)
    image.fromarray(sheet(draw(*sampled(96, 12)), 16)).save(folder / "faces.png")
    attributes, style = sampled(4, 13)
    pairs = []
    for name in ATTRIBUTES:
        rest = with_(attributes, *NEEDS.get(name, ((), ())))
        pairs.append(torch.stack([with_(rest, off=[name]), with_(rest, on=[name])], 1).flatten(0, 1))
    picture = image.fromarray(sheet(draw(torch.cat(pairs), style.repeat_interleave(2, 0).repeat(len(pairs), 1)), 8))
    picture.save(folder / "faces-attributes.png")
    assert picture.size == (8 * 66, 18 * 66)
