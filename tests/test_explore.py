"""The explorers' Python side: export, static form, refusals. `browser/` holds what needs a browser."""

import base64
import hashlib
import json
import re
import subprocess
import sys
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from torch import nn

from mmvae_lite import explore
from mmvae_lite.distributions import Normal
from mmvae_lite.experts import product_with_prior
from mmvae_lite.explore import static

LATENT = 5


def decoders(latent=LATENT):
    torch.manual_seed(0)
    image = nn.Sequential(
        nn.Linear(latent, 12), nn.SiLU(), nn.Linear(12, 9, bias=False), nn.ReLU(), nn.Linear(9, 12), nn.Tanh(),
        nn.Sequential(nn.Linear(12, 42), nn.Sigmoid()), nn.Unflatten(1, (1, 6, 7)),
    )  # fmt: skip
    return {"image": image, "label": nn.Sequential(nn.Linear(latent, 3), nn.Softmax(-1))}


def latent_explorer(**changes):
    arguments = {
        "decoders": decoders(),
        "latents": torch.linspace(-1, 1, LATENT),
        "starts": {"a": torch.ones(LATENT), "b": torch.full((LATENT,), -3.5)},
        "kl": [0.1, 3.0, 0.0, 2.0, 1.0],
        "image_shape": (6, 7),
        "name": "tiny",
        "alt": "A noisy picture.",
    }
    return explore.LatentExplorer(**(arguments | changes))


class _Page(HTMLParser):
    """Tags with their attributes and their text."""

    def __init__(self, text):
        super().__init__()
        self.found = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.found.append([tag, dict(attributes), ""])

    def handle_data(self, data):
        if self.found:
            self.found[-1][2] += data

    def one(self, tag, css_class):
        (match,) = [item for item in self.found if item[0] == tag and css_class in (item[1].get("class") or "")]
        return match


@pytest.mark.parametrize("name", ["image", "label"])
def test_exported_decoder_equals_torch(name):
    nets = decoders()
    exported = explore.export_decoders(nets)
    z = torch.randn(20, LATENT)
    shown = explore.reference_decode(exported.spec, exported.weights, name, z.numpy())
    wanted = nets[name](z).detach().numpy()
    assert shown.shape == wanted.shape
    assert np.abs(shown - wanted).max() <= 1e-3 * np.abs(wanted).max()


def test_spec_names_its_weights():
    exported = explore.export_decoders(decoders())
    assert exported.spec["sha256"] == hashlib.sha256(exported.weights).hexdigest()
    assert len(exported.weights) == 2 * exported.spec["values"]
    assert exported.spec["values"] == sum(p.numel() for net in decoders().values() for p in net.parameters())
    assert exported.spec == json.loads(json.dumps(exported.spec))


@pytest.mark.parametrize(
    ("net", "sentence"),
    [
        (nn.Sequential(nn.Linear(2, 2), nn.GELU()), "has the layer GELU"),
        (nn.Sequential(nn.Linear(2, 4), nn.Unflatten(1, (1, 2, 2)), nn.Conv2d(1, 1, 1, padding="same")), "the page can run Linear"),
        (nn.Sequential(nn.Conv2d(1, 1, 3)), "has the layer Conv2d"),
        (nn.Sequential(nn.Linear(2, 2), nn.Softmax(0)), "Softmax"),
        (nn.Linear(2, 2), "is a Linear; the page can run an nn.Sequential only"),
    ],
)
def test_unknown_layer_is_refused(net, sentence):
    with pytest.raises(ValueError, match=sentence):
        explore.export_decoders({"image": net})


@pytest.mark.parametrize("weight", [1e6, float("nan")])
def test_weight_beyond_half_precision_is_refused(weight):
    net = nn.Sequential(nn.Linear(2, 2))
    nn.init.constant_(net[0].weight, weight)
    with pytest.raises(ValueError, match="half precision"):
        explore.export_decoders({"image": net})


def test_no_decoder_and_unknown_operation_are_refused():
    with pytest.raises(ValueError, match="no decoder"):
        explore.export_decoders({})
    with pytest.raises(ValueError, match="'swirl' is unknown"):
        explore.reference_decode({"decoders": {"image": [{"op": "swirl"}]}}, b"", "image", np.zeros((1, 2)))


def test_latent_explorer_carries_both_forms():
    widget = latent_explorer()
    data, _ = widget._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in data
    page = _Page(data["text/html"])
    assert page.found[0][0] == "latent-explorer"
    state = json.loads(page.one("script", "explorer-spec")[2])
    _, attributes, text = page.one("script", "explorer-weights")
    weights = base64.b64decode(text)
    assert (attributes["data-name"], attributes["type"]) == ("tiny", "text/plain")
    assert attributes["data-sha256"] == state["spec"]["sha256"] == hashlib.sha256(weights).hexdigest()
    assert (state["z"], state["focus"]) == (widget.z, widget.focus)
    picture = next(item[1] for item in page.found if item[0] == "img")
    assert picture["alt"].startswith("A noisy picture. Each row moves one latent dimension (z1, z3, z4)")


def test_sliders_are_sorted_by_kl_and_reach_every_start():
    options = latent_explorer().options
    assert options["dims"] == [1, 3, 4, 0], "dimension 2 has collapsed: its slider would be dead"
    assert options["kl"] == pytest.approx([3, 2, 1, 0.1])
    assert options["limit"] == 4
    assert latent_explorer(dims=[0, 2, 3]).options["dims"] == [3, 0, 2]
    assert latent_explorer(kl=[0.0] * LATENT).options["dims"] == [0, 1, 2, 3, 4]


def test_playground_carries_both_forms():
    widget = explore.ExpertPlayground([0.5, 0.6], [2.0, 5.0], form="quotient", labels=["<a>", "b"], truth=(2 / 3, 6.0))
    data, _ = widget._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in data
    html = data["text/html"]
    assert "explorer-weights" not in html and "<a>" not in html
    page = _Page(html)
    state = json.loads(page.one("script", "explorer-spec")[2])
    assert (state["means"], state["precisions"], state["form"]) == ([0.5, 0.6], [2.0, 5.0], "quotient")
    assert state["options"]["labels"] == ["<a>", "b"]
    assert state["options"]["truth"] == {"0,1": [2 / 3, 6.0]}
    picture = next(item[1] for item in page.found if item[0] == "svg")
    assert picture["role"] == "img" and "mean 0.67 and variance 0.17" in picture["aria-label"]


def test_static_picture_says_when_there_is_no_density():
    html = explore.ExpertPlayground([0.0, 0.0], [0.25, 0.5], form="quotient").static_html()
    assert "no density: its precision is not positive" in html


def test_static_picture_uses_the_library():
    experts = [Normal(torch.tensor([0.3]).double(), torch.tensor([0.2]).double()) for _ in range(2)]
    precision = experts[0].precision.item()
    ours = static.combine([0.3, 0.3, 9.0], [precision, precision, 1.0], [True, True, False], "prior")
    wanted = product_with_prior(experts)
    torch.testing.assert_close((ours.mean, ours.var), (wanted.mean, wanted.var))
    assert static.combine([0.0], [1.0], [False], "product") is None
    assert static.combine([0.0], [1.0], [False], "quotient").var.item() == 1


def test_truth_by_subset():
    widget = explore.ExpertPlayground(truth={(1, 0): (0.0, 1.0), (): (0.0, 1.0)})
    assert widget.options["truth"] == {"0,1": [0.0, 1.0], "": [0.0, 1.0]}


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"means": [1.0]}, "means: the playground shows 2 or 3 experts, not 1"),
        ({"means": [1.0, float("nan")]}, "means: every mean must be a finite number"),
        ({"precisions": [1.0, 0.0]}, r"precisions: every precision must lie in \[0.0625, 64\], found \[1.0, 0.0\]"),
        ({"precisions": [1.0]}, "precisions: wanted 2 values, found 1"),
        ({"form": "sum"}, "form: wanted one of product, prior, quotient, mixture, found 'sum'"),
        ({"present": [True]}, "present: wanted 2 values, found 1"),
        ({"labels": ["a"]}, "labels: wanted 2 values, found 1"),
        ({"truth": (0.0, -1.0)}, "truth: wanted \\(mean, positive precision\\)"),
        ({"truth": {(5,): (0.0, 1.0)}}, "truth: there is no expert \\(5,\\) among 2"),
    ],
)
def test_playground_refuses(arguments, sentence):
    with pytest.raises(ValueError, match=sentence):
        explore.ExpertPlayground(**arguments)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"latents": torch.zeros(4)}, "wanted 4 values, found 5"),
        ({"latents": torch.zeros(1, LATENT)}, r"latents: wanted a vector of finite numbers, found shape \(1, 5\)"),
        ({"starts": {"7": torch.zeros(2)}}, "starts\\['7'\\]: wanted 5 values, found 2"),
        ({"kl": [1.0]}, "kl: wanted 5 values, found 1"),
        ({"dims": [0, 9]}, "dims: wanted different dimensions from 0 to 4"),
        ({"dims": [1, 1]}, "dims: wanted different dimensions"),
        ({"image_shape": (28, 28)}, r"gives 42 values, which is not \(28, 28\)"),
        ({"classes": ["a"]}, "classes: wanted 3 values, found 1"),
        ({"alt": " "}, "alt: say in words"),
        ({"decoders": {"label": decoders()["label"]}}, 'such as "image"'),
        ({"decoders": {"image": nn.Sequential(*decoders()["image"][:-2], nn.Linear(12, 42))}}, "end it with nn.Sigmoid"),
        ({"decoders": decoders() | {"label": nn.Sequential(nn.Linear(LATENT, 3))}}, "end it with nn.Softmax"),
    ],
)
def test_latent_explorer_refuses(changes, sentence):
    if changes.get("latents") is not None and changes["latents"].shape == (4,):
        changes = changes | {"starts": {}, "kl": None}
        sentence = "latents: wanted 5 values, found 4"
    with pytest.raises(ValueError, match=sentence):
        latent_explorer(**changes)


def test_values_set_from_python_are_checked():
    widget = latent_explorer()
    with pytest.raises(ValueError, match="z: wanted 5 values, found 1"):
        widget.z = [0.0]
    with pytest.raises(ValueError, match="focus: wanted one of the shown dimensions"):
        widget.focus = 9
    playground = explore.ExpertPlayground()
    with pytest.raises(ValueError, match="precisions: every precision"):
        playground.precisions = [1.0, -1.0]
    assert playground.precisions == [2.0, 0.5]


def test_import_needs_no_anywidget():
    code = "import sys, mmvae_lite.explore as e; e.classic_script(); print('anywidget' in sys.modules, hasattr(e, 'nothing'))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


def test_two_shells_share_one_source():
    from mmvae_lite.explore import bundle

    classic = explore.classic_script()
    assert not re.search(r"^\s*(import|export)\b", classic, re.MULTILINE)
    for tag in bundle.RENDERERS:
        module = bundle.module(tag)
        assert module.count("export default") == 1
        assert all(line in classic for line in module.split("\nexport default")[0].splitlines())
        assert f'defineExplorer("{tag}"' in classic
    assert "http" not in classic.replace("http://www.w3.org/2000/svg", "")
    assert "url(" not in explore.stylesheet() and "@import" not in explore.stylesheet()
