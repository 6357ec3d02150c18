"""What the models of one shared latent do alike: draws, targets, and the sentences for bad input."""

import math

import numpy as np
import pytest
import torch

from mmvae_lite.distributions import BernoulliLikelihood
from mmvae_lite.models import CVAE, JMVAE, M2VAE, MVAE, TELBO, VAE
from mmvae_lite.models._common import hide_one
from mmvae_lite.models.m2vae import subsets
from mmvae_lite.networks import ConditionalEncoder, dense_decoder, dense_trunk
from tests import kinds

PAIR = ("image", "label")


def singles():
    return {m: kinds.encoder((m,)) for m in PAIR}


def cvae():
    merge = torch.nn.Sequential(torch.nn.Linear(8 + 3, 8), torch.nn.ReLU())
    encoder = ConditionalEncoder(dense_trunk([16, 8]), merge, 8, kinds.LATENT)
    return CVAE(encoder, dense_decoder([kinds.LATENT + 3, 8, 16], (1, 4, 4)), BernoulliLikelihood(), kinds.LATENT, 3)


BUILD = {
    "vae": lambda: VAE(kinds.encoder(("image",)), dense_decoder([kinds.LATENT, 8, 16], (1, 4, 4)), BernoulliLikelihood(), kinds.LATENT),
    "cvae": cvae,
    "mvae": lambda: MVAE(singles(), **kinds.parts(PAIR)),
    "jmvae_zero": lambda: JMVAE(kinds.encoder(PAIR), **kinds.parts(PAIR), variant="zero"),
    "jmvae_kl": lambda: JMVAE(kinds.encoder(PAIR), **kinds.parts(PAIR), encoders=singles(), variant="kl"),
    "telbo": lambda: TELBO(kinds.encoder(PAIR), singles(), **kinds.parts(PAIR)),
    "m2vae": lambda: M2VAE({"+".join(s): kinds.encoder(s) for s in subsets(PAIR)}, **kinds.parts(PAIR)),
}
EVERY = pytest.mark.parametrize("name", BUILD)
SEVERAL = pytest.mark.parametrize("name", [name for name in BUILD if name != "vae"])


def make(name):
    torch.manual_seed(0)
    return BUILD[name]().double()


def items(name, n=6):
    return kinds.items(("image",) if name == "vae" else PAIR, n)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def loss(model, batch, **more):
    return {k: v.item() for k, v in model.loss(batch, generator=seeded(), **more).items()}


# --- draws


@EVERY
def test_translate_decodes_the_posterior_s_mean_or_a_draw_from_it(name):
    model, batch = make(name), items(name)
    q, given = model.posterior(batch)["shared"], {k: x for k, x in batch.items() if name == "cvae" and k == "label"}
    z = q.mean + (0.5 * q.logvar).exp() * kinds.noise(6, kinds.LATENT, seed=3)
    assert torch.allclose(model.translate(batch, "image"), model.decode({"shared": q.mean, **given})["image"])
    assert torch.allclose(model.translate(batch, "image", sample=True, generator=seeded(3)), model.decode({"shared": z, **given})["image"])


@EVERY
def test_sample_decodes_draws_from_the_prior(name):
    model, more = make(name), {"label": torch.eye(3).double()[1]} if name == "cvae" else {}
    z = kinds.noise(5, kinds.LATENT, seed=3)
    assert torch.equal(model.sample(5, seeded(3), **more)["image"], model.decode({"shared": z, **more})["image"])


@EVERY
def test_an_empty_batch_has_the_prior(name):
    q = make(name).posterior({}, n=4)["shared"]
    assert q.mean.shape == (4, kinds.LATENT) and q.mean.dtype == torch.float64
    assert q.mean.abs().max().item() == q.logvar.abs().max().item() == 0


@EVERY
def test_a_traversal_sets_one_coordinate_and_keeps_the_others(name):
    model, start, values = make(name), torch.tensor([0.3, -0.7, 1.1]).double(), torch.linspace(-2, 2, 5).double()
    given = {"label": torch.eye(3).double()[2]} if name == "cvae" else {}
    rows = torch.stack([torch.stack([start[0], v, start[2]]) for v in values])
    walk = model.traverse({"shared": start, **given}, 1, values)
    assert torch.equal(walk["image"], model.decode({"shared": rows, **given})["image"])
    assert start.tolist() == pytest.approx([0.3, -0.7, 1.1])


# --- targets


@EVERY
def test_the_target_is_what_every_reconstruction_is_scored_against(name):
    model, batch = make(name), items(name)
    target = {**batch, "image": 1 - batch["image"]}
    plain, other = loss(model, batch), loss(model, batch, target=target)
    assert plain == loss(model, batch, target=batch) and plain.keys() == other.keys()
    changed = {k for k in plain if plain[k] != other[k]}
    assert changed == {k for k in plain if k == "loss" or k.endswith("recon/image")}
    # log p of the inverted picture under the same draws, by the linearity of the Bernoulli's logarithm in x
    both = loss(model, batch, target={**batch, "image": torch.full_like(batch["image"], 0.5)})
    for k in changed - {"loss"}:
        assert other[k] + plain[k] == pytest.approx(2 * both[k], rel=1e-12)


@EVERY
def test_a_target_must_hold_the_same_items(name, as_a_reader):
    model, batch = make(name), items(name)
    for n in (1, 4):
        with pytest.raises(ValueError, match=f"target holds {n} items and the batch 6; wanted the same items in both"):
            model.loss(batch, target={m: x[:n] for m, x in batch.items()})


@SEVERAL
def test_a_target_must_hold_what_the_batch_holds(name):
    batch = items(name)
    with pytest.raises(KeyError, match="target lacks modality 'image', which the batch holds"):
        make(name).loss(batch, target={"label": batch["label"]})


@EVERY
def test_weights_change_the_loss_and_none_of_its_terms(name):
    one, two, batch = make(name), make(name), items(name)
    for option, value in (("beta", 0.3), ("alpha", 0.2), ("gamma", 0.6), ("weights", {"image": 2.0, "label": 5.0})):
        if hasattr(two, option):
            setattr(two, option, value)
    plain, weighted = loss(one, batch), loss(two, batch)
    assert plain.pop("loss") != weighted.pop("loss") and plain == weighted


# --- hiding


def test_a_hidden_modality_is_one_that_the_item_has():
    there = {"a": torch.zeros(4000).bool(), "b": torch.ones(4000).bool(), "c": torch.ones(4000).bool()}
    seen = hide_one(there, 0.5, seeded())
    hidden = {m: there[m] & ~seen[m] for m in there}
    for m in ("b", "c"):
        assert hidden[m].double().mean().item() == pytest.approx(0.25, abs=4 * math.sqrt(0.25 * 0.75 / 4000))
    assert not bool(seen["a"].any()) and bool((seen["b"] | seen["c"]).all())


# --- bad input


@EVERY
def test_a_batch_must_have_the_model_s_precision(name, as_a_reader):
    model, batch = make(name), {m: x.float() for m, x in items(name).items()}
    for verb in (model.loss, model.posterior, model.log_likelihood):
        with pytest.raises(TypeError, match="'image': found torch.float32, but the model computes in torch.float64; convert one"):
            verb(batch)


@EVERY
def test_a_batch_must_be_where_the_model_is(name):
    model, batch = make(name).to("meta"), items(name)
    with pytest.raises(ValueError, match="'image': found on cpu, but the model is on meta; move one"):
        model.posterior(batch)


@SEVERAL
def test_masks_are_named(name, as_a_reader):
    model, batch = make(name), items(name)
    with pytest.raises(KeyError, match="unknown modality 'imge'.* did you mean 'image'"):
        model.loss(batch, observed={"imge": torch.zeros(6, dtype=torch.bool)})
    with pytest.raises(TypeError, match=r"observed\['image'\]: found list, wanted a torch.bool tensor of shape \[6\]"):
        model.loss(batch, observed={"image": [True] * 6})
    with pytest.raises(TypeError, match=r"observed\['image'\]: found ndarray, wanted"):
        model.loss(batch, observed={"image": np.ones(6, bool)})
    with pytest.raises(TypeError, match=r"observed is a dict from modality name to a bool mask of shape \[6\], got Tensor"):
        model.loss(batch, observed=torch.ones(6, dtype=torch.bool))


@EVERY
def test_latents_are_named(name, as_a_reader):
    model, label = make(name), {"label": torch.eye(3).double()[0]}
    with pytest.raises(ValueError, match=r"latents\['shared'\]: found shape \[2, 4\], wanted 3 numbers in the last axis"):
        model.decode({"shared": torch.zeros(2, 4).double(), **label})
    for verb in (model.decode, lambda z: model.traverse(z, 0, torch.zeros(2))):
        with pytest.raises(KeyError, match="latents: found 'private/image', wanted 'shared'"):
            verb({"private/image": torch.zeros(3).double()})
    with pytest.raises(ValueError, match=r"one latent: found shape \[2, 3\], wanted \[latent\]; take one row"):
        model.traverse({"shared": torch.zeros(2, 3).double(), **label}, 0, torch.zeros(2).double())
    with pytest.raises(TypeError, match=r"latents\['shared'\]: found torch.float32, the model is in torch.float64"):
        model.decode({"shared": torch.zeros(2, 3), **label})
    with pytest.raises(TypeError, match="dim: found 0.5, wanted a whole number"):
        model.traverse({"shared": torch.zeros(3).double(), **label}, 0.5, torch.zeros(2).double())
    walk = model.traverse({"shared": torch.zeros(3).double(), **label}, 0, [-1.0, 1.0])
    assert all(len(values) == 2 for values in walk.values())


def test_labels_of_a_cvae_are_named(as_a_reader):
    model, batch = make("cvae"), items("cvae")
    z = torch.zeros(2, 3).double()
    for label in (torch.zeros(2), torch.eye(3), torch.eye(2)):
        with pytest.raises(ValueError, match=r"'label': found shape .*, wanted one-hot rows \[2, 3\] or one row \[3\]"):
            model.decode({"shared": z, "label": label})
    with pytest.raises(ValueError, match=r"'label': found shape \[4, 3\], wanted one-hot rows \[6, 3\]"):
        model.swap({"label": batch["label"][:4]}, batch)
    whole = torch.nn.functional.one_hot(torch.tensor([0, 1]), 3)  # whole numbers, and another precision, are no matter
    found = [model.decode({"shared": z, "label": label})["image"] for label in (whole, whole.float(), whole.double())]
    assert torch.equal(found[0], found[2]) and torch.equal(found[1], found[2])
    assert BUILD["cvae"]().decode({"shared": z.float(), "label": whole.double()})["image"].dtype == torch.float32
    with pytest.raises(ValueError, match="modality and label are both called 'label'"):
        CVAE(model.encoder, model.decoder, model.likelihood, 3, 3, modality="label")
