"""Coherence of generators whose coherence is known, and of those that cheat."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from mmvae_lite.data.parts import Part
from mmvae_lite.distributions import BernoulliLikelihood, CategoricalLikelihood
from mmvae_lite.evaluation.coherence import agreement, conditional_coherence, effective_classes, joint_coherence, leave_one_out_coherence
from mmvae_lite.evaluation.frechet import copied
from mmvae_lite.ex_post import ExPostDensity
from mmvae_lite.models import MVAE
from mmvae_lite.networks import dense_decoder, dense_encoder

CLASSES = 10
SIZES = {"a": 12, "b": 20, "c": 16}
CENTRES = {m: 4 * torch.randn(CLASSES, d, generator=torch.Generator().manual_seed(k)) for k, (m, d) in enumerate(SIZES.items())}


class Nearest(nn.Module):
    """A judge that finds the class of every item made below."""

    def __init__(self, m):
        super().__init__()
        self.register_buffer("centres", CENTRES[m])

    def forward(self, x):
        return -torch.cdist(x, self.centres)


JUDGES = {m: Nearest(m) for m in SIZES}


def items(m, classes, generator, noise=0.5):
    return CENTRES[m][classes] + noise * torch.randn(len(classes), SIZES[m], generator=generator)


def tuples(n=2000, seed=0):
    g = torch.Generator().manual_seed(seed)
    classes = torch.randint(CLASSES, (n,), generator=g)
    return Part({m: items(m, classes, g) for m in SIZES}, classes)


class Generator:
    """A generator that is right with a known probability; the cheats change one thing each."""

    modalities = tuple(SIZES)

    def __init__(self, right=1.0):
        self.right = right

    def read(self, batch):
        m, x = next(iter(batch.items()))
        return JUDGES[m](x).argmax(-1)

    def other(self, classes, generator):
        wrong = (classes + torch.randint(1, CLASSES, classes.shape, generator=generator)) % CLASSES
        return torch.where(torch.rand(len(classes), generator=generator) < self.right, classes, wrong)

    def translate(self, batch, to, sample=False, generator=None):
        return items(to, self.other(self.read(batch), generator), generator)

    def sample(self, n, generator=None):
        classes = torch.randint(CLASSES, (n,), generator=generator)
        return {m: items(m, classes if m == "a" else self.other(classes, generator), generator) for m in SIZES}


class Constant(Generator):
    """Always the same picture of a 3."""

    def translate(self, batch, to, sample=False, generator=None):
        return CENTRES[to][3].expand(len(next(iter(batch.values()))), -1)

    def sample(self, n, generator=None):
        return {m: CENTRES[m][3].expand(n, -1) for m in SIZES}


class Deaf(Generator):
    """Good items, which have nothing to do with the input, nor one modality with the other."""

    def translate(self, batch, to, sample=False, generator=None):
        return items(to, torch.randint(CLASSES, (len(next(iter(batch.values()))),), generator=generator), generator)

    def sample(self, n, generator=None):
        return {m: items(m, torch.randint(CLASSES, (n,), generator=generator), generator) for m in SIZES}


class Prototypes(Generator):
    """One picture of each class."""

    def translate(self, batch, to, sample=False, generator=None):
        return CENTRES[to][self.read(batch)]

    def sample(self, n, generator=None):
        classes = torch.randint(CLASSES, (n,), generator=generator)
        return {m: CENTRES[m][classes] for m in SIZES}


class Memoriser(Generator):
    """Training items of the right class."""

    def __init__(self, known):
        super().__init__()
        self.known = known

    def translate(self, batch, to, sample=False, generator=None):
        wanted = self.read(batch)
        order = torch.rand(len(wanted), len(self.known.classes), generator=generator)
        return self.known.batch[to][torch.where(self.known.classes == wanted[:, None], order, -1).argmax(1)]


def test_value_of_a_generator_that_is_right_seven_times_in_ten():
    found = conditional_coherence(Generator(0.7), tuples(), JUDGES)
    assert set(found) == {"a->b", "a->c", "b->a", "b->c", "c->a", "c->b"}
    for r in found.values():
        assert r["value"] == pytest.approx(0.7, abs=4 * math.sqrt(0.7 * 0.3 / 2000)) and r["n"] == 2000
        assert r["se"] == pytest.approx(math.sqrt(r["value"] * (1 - r["value"]) / 2000))
        assert r["classifier"] == 1 and r["effective_classes"] > 9.8 and r["chance"] == pytest.approx(0.1, abs=0.01)


def test_joint_value_of_a_generator_that_is_right_seven_times_in_ten():
    """Three modalities agree where both of the others are right, or both wrong in the same way: never here, as 'a' is right."""
    r = joint_coherence(Generator(0.7), tuples(), JUDGES, n=4000)
    assert r["value"] == pytest.approx(0.49, abs=4 * math.sqrt(0.49 * 0.51 / 4000)) and r["n"] == 4000
    assert r["real"] == 1 and r["classifier"] == {"a": 1.0, "b": 1.0, "c": 1.0}
    two = joint_coherence(Generator(0.7), tuples(), {m: JUDGES[m] for m in "ab"}, n=4000)
    assert two["value"] == pytest.approx(0.7, abs=4 * math.sqrt(0.7 * 0.3 / 4000)) and two["chance"] == pytest.approx(0.1, abs=0.01)


def test_leave_one_out_reads_all_others():
    model = Generator(0.7)
    inputs = []
    model.read = lambda batch: inputs.append(sorted(batch)) or Generator.read(model, batch)
    found = leave_one_out_coherence(model, tuples(), JUDGES, chunk=2000)
    assert set(found) == {"b+c->a", "a+c->b", "a+b->c", "mean"} and sorted(inputs) == [["a", "b"], ["a", "c"], ["b", "c"]]
    assert found["mean"]["value"] == pytest.approx(sum(r["value"] for k, r in found.items() if k != "mean") / 3)
    assert found["mean"]["value"] == pytest.approx(0.7, abs=4 * found["mean"]["se"])


def test_a_constant_output_is_coherent_and_caught():
    joint = joint_coherence(Constant(), tuples(), JUDGES, n=500)
    assert joint["value"] == joint["chance"] == 1, "all agree on the one class there is"
    assert joint["effective_classes"] == pytest.approx(1) and max(joint["spread"].values()) < 1e-9
    for r in conditional_coherence(Constant(), tuples(), JUDGES).values():
        assert r["value"] == pytest.approx(r["chance"]) and r["effective_classes"] == pytest.approx(1) and r["spread"] < 1e-9


def test_modalities_drawn_apart_are_at_chance():
    joint = joint_coherence(Deaf(), tuples(), {m: JUDGES[m] for m in "ab"}, n=4000)
    assert joint["value"] == pytest.approx(joint["chance"], abs=4 * joint["se"])
    assert joint["chance"] == pytest.approx(0.1, abs=0.01) and joint["effective_classes"] > 9


def test_an_ignored_input_is_at_chance():
    for r in conditional_coherence(Deaf(), tuples(), JUDGES).values():
        assert r["value"] == pytest.approx(r["chance"], abs=4 * r["se"]) and r["effective_classes"] > 9.8
        assert r["spread"] > 5, "items of all classes in each"


def test_one_picture_a_class_is_coherent_and_caught():
    joint = joint_coherence(Prototypes(), tuples(), JUDGES, n=500)
    assert joint["value"] == 1 and joint["effective_classes"] > 9 and max(joint["spread"].values()) < 1e-9
    for r in conditional_coherence(Prototypes(), tuples(), JUDGES).values():
        assert r["value"] == 1 and r["effective_classes"] > 9 and r["spread"] < 1e-9
    for r in conditional_coherence(Generator(), tuples(), JUDGES).values():
        assert r["spread"] == pytest.approx(1, abs=0.05), "an honest generator varies as the data do"


def test_a_memoriser_is_coherent_and_caught():
    known, unseen = tuples(500, seed=1), tuples(200, seed=2)
    memoriser = Memoriser(known)
    g = torch.Generator().manual_seed(0)
    for r in conditional_coherence(memoriser, unseen, JUDGES).values():
        assert r["value"] == 1 and r["effective_classes"] > 9 and r["spread"] == pytest.approx(1, abs=0.15)
    made = {"copied": memoriser.translate({"a": unseen.batch["a"]}, "b", generator=g)}
    made["nearly"] = made["copied"] + 0.05 * torch.randn(made["copied"].shape, generator=g)
    made["fresh"] = Generator().translate({"a": unseen.batch["a"]}, "b", generator=g)
    made["blurred"] = CENTRES["b"][unseen.classes]
    share = {k: copied(x, known.batch["b"], unseen.batch["b"])["share"] for k, x in made.items()}
    assert share["copied"] == 1 and share["nearly"] > 0.99, "what coherence praises is found by its neighbours"
    assert share["fresh"] < 0.05 and share["blurred"] == 0


@pytest.mark.equation("eq-coherence")
def test_averages_by_hand():
    """Four items of three classes, three right: 3/4; the classes' shares are 1/2, 1 and 1, and MultiVae counts ten."""
    truth, predicted = torch.tensor([0, 0, 1, 2]), torch.tensor([0, 7, 1, 2])
    assert agreement(predicted, truth)["value"] == 0.75
    assert agreement(predicted, truth, "macro")["value"] == pytest.approx(2.5 / 3)
    assert agreement(predicted, truth, "multivae")["value"] == pytest.approx(0.25)
    assert agreement(predicted, truth, "multivae", classes=8)["value"] == pytest.approx(2.5 / 8)
    assert agreement(predicted, truth)["chance"] == pytest.approx((2 + 1 + 1) / 16)
    assert agreement(predicted, truth, "macro")["chance"] == pytest.approx(1 / 4)


def test_standard_error_of_the_mean_over_classes():
    g = torch.Generator().manual_seed(0)
    truth = torch.tensor([0] * 90 + [1] * 10)
    right = torch.tensor([0.9] * 90 + [0.4] * 10)
    draws = [agreement(torch.where(torch.rand(100, generator=g) < right, truth, 2), truth, "macro", 3) for _ in range(400)]
    spread = torch.tensor([d["value"] for d in draws]).std()
    assert torch.tensor([d["se"] for d in draws]).mean() == pytest.approx(float(spread), rel=0.15)


@pytest.mark.equation("eq-coherence-chance")
def test_chance_is_the_mean_over_orders():
    g = torch.Generator().manual_seed(0)
    truth = torch.randint(3, (300,), generator=g)
    predicted = torch.multinomial(torch.tensor([0.7, 0.2, 0.1]), 300, replacement=True, generator=g)
    for average in ("micro", "macro", "multivae"):
        shuffled = [agreement(predicted[torch.randperm(300, generator=g)], truth, average, 4)["value"] for _ in range(500)]
        assert agreement(predicted, truth, average, 4)["chance"] == pytest.approx(sum(shuffled) / 500, abs=0.005)


def test_effective_classes():
    assert effective_classes(torch.tensor([3, 3, 3])) == 1
    assert effective_classes(torch.arange(10)) == pytest.approx(10)
    assert effective_classes(torch.tensor([0, 0, 1, 1])) == pytest.approx(2)
    assert effective_classes(torch.tensor([], dtype=torch.int64)) == 0


def test_the_model_sees_the_corrupted_input_and_the_judge_does_not():
    def hide(batch, generator):
        order = torch.randperm(len(next(iter(batch.values()))), generator=generator)
        return {m: x[order] for m, x in batch.items()}

    for r in conditional_coherence(Generator(), tuples(), JUDGES, corrupt=hide).values():
        assert r["value"] == pytest.approx(r["chance"], abs=4 * r["se"]) and r["classifier"] == 1


def test_a_weak_judge_shows():
    data = tuples()

    def blind(x):
        return torch.arange(CLASSES).eq(4).float().expand(len(x), -1)

    found = conditional_coherence(Generator(), data, JUDGES | {"b": blind}, pairs=[("a", "b")])
    assert found["a->b"]["classifier"] == pytest.approx(float((data.classes == 4).double().mean()))
    assert joint_coherence(Generator(), data, {"a": JUDGES["a"], "b": blind}, n=200)["real"] < 0.2


def test_rows_shared_by_tuples_and_bytes():
    """Tuples that name rows of byte images give what the tuples themselves give."""
    g = torch.Generator().manual_seed(3)
    rows = {m: torch.randint(256, (30, d), dtype=torch.uint8, generator=g) for m, d in SIZES.items()}
    index = {m: torch.randint(30, (70,), generator=g) for m in SIZES}
    classes = torch.randint(CLASSES, (70,), generator=g)
    shared = Part(rows, classes, index)
    plain = Part(shared.take(slice(None)), classes)
    model = Generator(0.5)
    assert conditional_coherence(model, shared, JUDGES) == conditional_coherence(model, plain, JUDGES)
    assert joint_coherence(model, shared, JUDGES, n=50) == joint_coherence(model, plain, JUDGES, n=50)


def mvae():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        sizes = {"a": 12, "label": CLASSES}
        return MVAE(
            {m: dense_encoder([d, 16], 4) for m, d in sizes.items()},
            {m: dense_decoder([4, 16, d], (d,)) for m, d in sizes.items()},
            {"a": BernoulliLikelihood(), "label": CategoricalLikelihood()},
            4,
        )


def labelled(n=60):
    g = torch.Generator().manual_seed(5)
    classes = torch.randint(CLASSES, (n,), generator=g)
    return Part({"a": torch.rand(n, 12, generator=g), "label": F.one_hot(classes, CLASSES).float()}, classes)


def test_a_model_a_density_and_a_seed():
    """A model comes back in its mode; the seed decides the draws, the chunk does not matter to means, and a density is drawn from."""
    model, data, judges = mvae().train(), labelled(), {"a": JUDGES["a"], "label": nn.Identity()}
    one = conditional_coherence(model, data, judges, seed=1)
    assert model.training and one == conditional_coherence(model, data, judges, seed=1)
    assert one["a->label"]["classifier"] == 1 and one["a->label"]["n"] == 60
    means = [conditional_coherence(model, data, judges, sample=False, chunk=c) for c in (7, 60)]
    assert [r["value"] for r in means[0].values()] == [r["value"] for r in means[1].values()]
    wanted = model.eval().translate({"a": data.batch["a"]}, "label").argmax(-1)
    assert means[0]["a->label"]["value"] == pytest.approx(float((wanted == data.classes).double().mean()))
    point = torch.full((1, 4), 2.0)
    density = ExPostDensity(torch.ones(1), point, 1e-6 * torch.eye(4)[None])
    joint = joint_coherence(model, data, judges, n=40, density=density)
    made = model.decode({"shared": point})
    assert joint["value"] == float(JUDGES["a"](made["a"]).argmax() == made["label"].argmax())
    prior = joint_coherence(model, data, judges, n=40)["spread"]
    assert all(joint["spread"][m] < 1e-3 * prior[m] for m in prior)


@pytest.mark.parametrize(
    "call, error, message",
    [
        (lambda: conditional_coherence(Generator(), Part(tuples(5).batch), JUDGES), ValueError, "hold no classes"),
        (lambda: conditional_coherence(Generator(), tuples(5), {"a": JUDGES["a"]}, pairs=[("a", "b")]), KeyError, "unknown judge 'b'"),
        (lambda: conditional_coherence(Generator(), tuples(5), JUDGES, pairs=[(("a", "b"), "b")]), ValueError, "other modalities"),
        (lambda: conditional_coherence(Generator(), tuples(5), JUDGES, pairs=[("d", "b")]), KeyError, "unknown modality 'd'"),
        (lambda: conditional_coherence(Generator(), tuples(5), JUDGES, average="marco"), KeyError, "did you mean 'macro'"),
        (lambda: joint_coherence(Generator(), tuples(5), {"a": JUDGES["a"]}), ValueError, "at least two modalities"),
        (lambda: joint_coherence(Generator(), tuples(5), JUDGES, n=0), ValueError, "n: found 0"),
        (lambda: agreement(torch.tensor([1]), torch.tensor([10])), ValueError, "found classes 10 to 10, wanted 0 to 9"),
        (lambda: agreement(torch.tensor([1, 2]), torch.tensor([1])), ValueError, "2 predictions of 1 items"),
    ],
)
def test_refuses_in_one_sentence(as_a_reader, call, error, message):
    with pytest.raises(error, match=message):
        call()
