"""The kinds of explorers from Python: what they carry, how they begin, what they refuse. `browser/` moves their controls."""

import json
import re

import numpy as np
import pytest
import torch
from torch import nn

from mmvae_lite import explore, networks
from mmvae_lite.distributions import BernoulliLikelihood, CategoricalLikelihood
from mmvae_lite.explore.export import LARGEST
from mmvae_lite.models import MVAE

from .browser.samples import builders, explorers, picture


@pytest.fixture(scope="module")
def kinds():
    return explorers()


def state(html):
    return json.loads(re.search(r'class="explorer-spec">(.*?)</script>', html, re.S)[1])


def test_every_kind_has_both_forms_and_a_picture(kinds):
    assert set(kinds) == set(explore.TAGS)
    for tag, explorer in kinds.items():
        data, _ = explorer._repr_mimebundle_()
        html = data["text/html"]
        assert "application/vnd.jupyter.widget-view+json" in data and html.startswith(f"<{tag}>"), tag
        assert re.search(r'<(img|svg)\b[^>]*(alt|aria-label)="[^"]{20,}"', html), tag
        assert set(explorer.KEYS) | {"options"} == set(state(html)), tag


def test_the_reference_decodes_every_network_as_torch_does():
    for name, (net, inputs) in builders().items():
        exported = explore.export_decoders({name: net})
        z = torch.randn(3, inputs, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            wanted = net(z).numpy()
        found = explore.reference_decode(exported.spec, exported.weights, name, z.numpy())
        assert found.shape == wanted.shape == (3, *exported.spec["shapes"][name]), name
        assert np.abs(found - wanted).max() <= 1e-3 * np.abs(wanted).max(), name


def test_multiplications_are_counted():
    net = nn.Sequential(nn.Linear(3, 8), nn.Unflatten(1, (2, 2, 2)), nn.ConvTranspose2d(2, 3, 4, 2, 1), nn.Conv2d(3, 1, 3))
    assert explore.export_decoders({"a": net}).spec["macs"]["a"] == 3 * 8 + 2 * 4 * 3 * 16 + 4 * 3 * 9


def test_a_decoder_that_is_too_large_for_a_page_is_refused():
    nets = networks.mmvae_cub_networks(8, 40)["decoders"]
    with pytest.raises(ValueError, match=r"Decoder 'image' needs 5\.\d MB, a page takes 4 MB for one"):
        explore.export_decoders(nets)
    assert len(explore.export_decoders({"caption": nets["caption"]}).weights) <= LARGEST


def test_large_weights_come_in_blocks_that_a_page_can_load():
    net = nn.Sequential(nn.Linear(2, 2000), nn.ReLU(), nn.Linear(2000, 784), nn.Sigmoid(), nn.Unflatten(1, (1, 28, 28)))
    html = explore.LatentExplorer({"image": net}, [0.0, 0.0]).static_html()
    blocks = re.findall(r'class="explorer-weights"[^>]*>(.*?)</script>', html)
    assert len(blocks) == 2 and max(map(len, blocks)) <= 4_000_000


def test_page_decoders_end_as_their_likelihoods_read():
    decoders = {"image": networks.image_decoder(4, (8,)), "label": networks.label_decoder(4, 3, (8,))}
    encoders = {"image": networks.image_encoder(4, (8,)), "label": networks.label_encoder(4, 3, (8,))}
    model = MVAE(encoders, decoders, {"image": BernoulliLikelihood(), "label": CategoricalLikelihood()}, latent_dim=4)
    z = torch.randn(2, 4)
    for name, net in explore.page_decoders(model).items():
        with torch.no_grad():
            torch.testing.assert_close(net(z), model.likelihoods[name].mean(decoders[name](z)))


def test_page_encoder_gives_the_mean():
    encoder = networks.mmvae_cub_networks(4, 20, 16)["encoders"]["caption"].eval()
    words = torch.nn.functional.one_hot(torch.randint(20, (2, 16)), 20).float()
    with torch.no_grad():
        torch.testing.assert_close(explore.page_encoder(encoder)(words), encoder(words).mean)


def test_the_mixer_begins_with_one_item_of_each_class_and_styles_far_apart(kinds):
    mixer = kinds["style-mixer"]
    assert [mixer.options["labels"][n] for n in mixer.columns[:4]] == [0, 1, 2, 3]
    assert len(set(mixer.rows)) == len(mixer.rows) == 4
    codes = torch.randn(12, 2)
    codes[5] = 30.0
    alone = explore.StyleMixer({"image": picture(5)}, torch.randn(12, 3), {"image": codes})
    assert 5 in alone.rows, "the one style that is far away"


def test_codes_travel_in_half_precision(kinds):
    torch.manual_seed(2)
    shared, private = torch.randn(12, 3), torch.randn(12, 2)
    mixer = explore.StyleMixer({"image": picture(5)}, shared, {"image": private})
    np.testing.assert_allclose(mixer._table("shared/all"), shared, atol=2e-3)
    np.testing.assert_allclose(mixer._table("private/image"), private, atol=2e-3)


def mixer(**changes):
    given = {"decoders": {"image": picture(5)}, "shared": torch.randn(12, 3), "private": {"image": torch.randn(12, 2)}}
    return explore.StyleMixer(**(given | changes))


def dial(**changes):
    return explore.LabelDial(**({"decoders": {"image": picture(6)}, "codes": torch.eye(4), "private": torch.zeros(2)} | changes))


def attributes(**changes):
    return explore.AttributeDial(**({"decoders": {"image": picture(10)}, "attributes": "abcd", "private": torch.zeros(2)} | changes))


REFUSALS = [
    (lambda: mixer(shared=torch.randn(11, 3)), r"private\['image'\]: wanted a matrix \[11, columns\]"),
    (lambda: mixer(private={"sound": torch.randn(12, 2)}), "private: there is no decoder 'sound'"),
    (lambda: mixer(private={"image": torch.randn(12, 4)}), "'image' reads 5 numbers, its private and shared latents have 7"),
    (lambda: mixer(labels=[0]), "labels: wanted 12 values, found 1"),
    (lambda: mixer(shared=torch.full((12, 3), float("nan"))), r"shared\['all'\]: wanted a matrix"),
    (lambda: mixer(decoders={"image": nn.Sequential(nn.Linear(5, 64), nn.Unflatten(1, (1, 8, 8)))}), "leaves \\[0, 1\\]"),
    (lambda: dial(codes=torch.eye(4)[:1]), "codes: wanted two labels or more"),
    (lambda: dial(private=torch.zeros(3)), "'image' reads 6 numbers, wanted 3 private and 4 shared ones"),
    (lambda: dial(classes=["a"]), "classes: wanted 4 values, found 1"),
    (lambda: dial(styles=torch.randn(3, 5)), r"styles: wanted a matrix \[rows, 2\]"),
    (lambda: attributes(on=[True]), "on: wanted 4 values, found 1"),
    (lambda: attributes(codes=torch.zeros(3, 2, 2)), r"codes: wanted \[4, 2, width\], found \[3, 2, 2\]"),
    (lambda: explore.EntangledSlider({"a": picture(6), "b": picture(7)}), "wanted inputs of two latents and one class each"),
    (lambda: explore.EntangledSlider({"a": picture(6)}, latents=[2.0, 2.0]), "at most 2 from the origin"),
    (lambda: explore.EntangledSlider({"a": picture(6)}, label=4), "label: wanted 0 to 3, found 4"),
    (lambda: explore.ConcreteSimplex(logits=[0.0, 9.0, 0.0]), "logits: wanted three numbers from -4 to 4"),
    (lambda: explore.ConcreteSimplex(temperature=0.0), "temperature: wanted 0.1 to 3"),
    (lambda: explore.ConcreteSimplex(show="none"), "show: wanted one of first, second, densities, classes"),
    (lambda: explore.SubsetLattice(5, names="abcde"), "modalities: wanted 2, 3 or 4, found 5"),
    (lambda: explore.SubsetLattice(3, subset=[0, 3]), "subset: wanted different modalities from 0 to 2"),
    (lambda: explore.BoundExplorer([1, 2, 2], {"a": [1.0, 2.0, 3.0]}), "x: wanted two or more rising numbers"),
    (lambda: explore.BoundExplorer([1, 2], {"a": [1.0]}), r"curves\['a'\]: wanted finite values of shape \(1, 2\), found \(1, 1\)"),
    (lambda: explore.BoundExplorer([0, 2], {"a": [1.0, 2.0]}, log=True), "rising positive numbers"),
    (lambda: explore.BoundExplorer([1, 2], {"a": [1.0, 2.0]}, truth=float("inf")), "truth: wanted finite numbers"),
    (lambda: explore.InfonceMatrix(items=3), "items: wanted one of 2, 4, 8, 16, 32, 64, found 3"),
    (lambda: explore.InfonceMatrix(correlation=1.0), "correlation: wanted 0 to 0.99, found 1.0"),
    (lambda: explore.InfonceMatrix(critic="best"), "critic: wanted one of optimal, inner, cosine"),
    (lambda: explore.LatentExplorer({"image": picture(4)}, torch.zeros(6), reads={"image": [0, 1]}), r"reads\['image'\]: wanted 4 dimensions from 0 to 5"),
    (lambda: explore.LatentExplorer({"caption": nn.Sequential(nn.Linear(2, 6), nn.Unflatten(1, (2, 3)))}, [0.0, 0.0]), "chooses among 3 words at 2 places"),
]


@pytest.mark.parametrize(("make", "sentence"), REFUSALS)
def test_refused_in_one_sentence(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make()


def test_values_set_from_python_are_checked(kinds):
    for tag, name, value, sentence in [
        ("style-mixer", "columns", [99], "columns: wanted items from 0 to 11"),
        ("style-mixer", "source", "smell", "source: wanted one of speech, image"),
        ("style-mixer", "nudge", [0.0], "nudge: wanted 2 values"),
        ("label-dial", "label", 7, "label: wanted 0 to 3"),
        ("label-dial", "mix", 1.5, "mix: wanted a number from 0 to 1"),
        ("attribute-dial", "on", [True], "on: wanted 4 values"),
        ("bound-explorer", "at", 9, "at: wanted 0 to 4"),
        ("bound-explorer", "hidden", ["other"], "hidden: wanted one of loose, tight"),
    ]:
        before = getattr(kinds[tag], name)
        with pytest.raises(ValueError, match=sentence):
            setattr(kinds[tag], name, value)
        assert getattr(kinds[tag], name) == before
