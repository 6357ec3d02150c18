"""Every kind of explorer on a bare page: each control alive, each number what the library computes, sound that is what was decoded."""

import base64
import math

import numpy as np
import pytest
import torch

from mmvae_lite import explore
from mmvae_lite.data import PAIRED, audio
from mmvae_lite.distributions import Concrete, Normal
from mmvae_lite.experts import Mixture
from mmvae_lite.explore.bundle import module as explore_module
from mmvae_lite.explore.widgets_base import SOUND
from mmvae_lite.information import info_nce_from_scores

from .helpers import SETTLED, Watch, drive_every_control, pixels_move, violations, wake
from .samples import builders, explorers
from .test_bare_page import _page

pytestmark = pytest.mark.browser
KINDS = tuple(tag for tag in explore.TAGS)
LEAST = {"caption-editor": 4, "bound-explorer": 4}  # of one curve: its box, two sliders, reset


@pytest.fixture(scope="module")
def kinds():
    return explorers()


@pytest.fixture(scope="module")
def folder(tmp_path_factory, kinds):
    folder = tmp_path_factory.mktemp("kinds")
    (folder / "explore.js").write_text(explore.classic_script(), encoding="utf-8")
    (folder / "explore.css").write_text(explore.stylesheet(), encoding="utf-8")
    for tag, explorer in kinds.items():
        (folder / f"{tag}.html").write_text(_page(explorer.static_html()), encoding="utf-8")
    (folder / "empty.html").write_text(_page(""), encoding="utf-8")
    return folder


@pytest.fixture
def open_page(new_page, folder):
    def go(name, **options):
        page = new_page(**options)
        page.watch = Watch(page, folder.as_uri())
        page.goto(f"{folder.as_uri()}/{name}.html")
        return page

    return go


@pytest.fixture(scope="module")
def engine(context, folder):
    """A page with the engine and nothing else, for what is only computed."""
    page = context().new_page()
    page.goto(f"{folder.as_uri()}/empty.html")
    yield page
    page.close()


def test_there_is_a_sample_of_every_kind(kinds):
    assert set(kinds) == set(KINDS)


@pytest.mark.parametrize("tag", KINDS)
def test_every_control_is_alive_on_a_phone(open_page, tag):
    page = open_page(tag, width=360, height=800, touch=True)
    (explorer,) = wake(page)
    page.evaluate(SETTLED)
    pixels_move(page, explorer, touch=True)
    assert drive_every_control(page, explorer) >= LEAST.get(tag, 6)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.watch.check()


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("tag", KINDS)
def test_accessible_and_said_in_words(open_page, tag, dark, latency):
    page = open_page(tag, dark=dark)
    (explorer,) = wake(page)
    page.evaluate(SETTLED)
    page.wait_for_function("explorer => explorer.querySelector('[role=status]').textContent.length > 10", arg=explorer)
    page.watch.check()
    assert not (found := violations(page)), "\n".join(found)
    if not dark:
        latency(f"sample of {tag}", explorer)


@pytest.mark.parametrize("touch", [False, True], ids=["desktop", "phone"])
def test_the_page_below_moves_little_when_an_explorer_takes_over(open_page, touch):
    """Heights are made for the usual number of modalities and sliders; the samples here have fewer."""
    for tag in ("concrete-simplex", "subset-lattice", "infonce-matrix", "expert-playground"):
        heights = []
        for javascript in (False, True):
            page = open_page(tag, width=360 if touch else 1280, touch=touch, javascript=javascript)
            if javascript:
                wake(page)
            heights.append(page.query_selector(tag).bounding_box()["height"])
        assert heights[1] == pytest.approx(heights[0], abs=60), tag


@pytest.mark.parametrize("tag", KINDS)
def test_the_widgets_module_stands_alone(open_page, kinds, tag):
    """What JupyterLab imports draws the explorer with nothing else on the page."""
    page = open_page("empty")
    explorer = kinds[tag]
    state = {key: explorer.trait_values()[key] for key in (*explorer.KEYS, "options")}
    weights = base64.b64encode(getattr(explorer, "weights", b"")).decode()
    page.evaluate(
        """async ([source, state, weights]) => {
            state.weights = new DataView(Uint8Array.from(atob(weights), c => c.charCodeAt(0)).buffer);
            const module = await import(URL.createObjectURL(new Blob([source], { type: "text/javascript" })));
            const model = { get: key => state[key], set: (key, value) => { state[key] = value; }, save_changes() {}, on() {}, off() {} };
            const el = document.body.appendChild(document.createElement("div"));
            const stop = module.default.render({ model, el });
            if (!el.querySelector(".mx-body") || el.dataset.ms === undefined) throw new Error("nothing was drawn");
            stop();
        }""",
        [explore_module(tag), state, weights],
    )
    page.watch.check()


def decoded(page, spec, weights, name, z):
    return page.evaluate(
        """([spec, name, base64, z]) => {
            const bytes = Uint8Array.from(atob(base64), c => c.charCodeAt(0));
            const weights = mmvaeExplore.unpackWeights(new DataView(bytes.buffer), spec.values);
            return z.map(one => Array.from(mmvaeExplore.decode(spec.decoders[name], weights, one)));
        }""",
        [spec, name, base64.b64encode(weights).decode(), z],
    )


def test_the_page_decodes_every_network_as_torch_does(engine):
    for name, (net, inputs) in builders().items():
        exported = explore.export_decoders({name: net})
        z = torch.randn(2, inputs, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            wanted = net(z)
        same = explore.reference_decode(exported.spec, exported.weights, name, z.numpy())
        shown = np.array(decoded(engine, exported.spec, exported.weights, name, z.tolist()))
        assert same.shape == wanted.shape, name
        assert np.abs(shown - same.reshape(2, -1)).max() <= 1e-4 * np.abs(same).max(), name
        assert np.abs(shown - wanted.reshape(2, -1).numpy()).max() <= 1e-3 * wanted.abs().max(), name


def test_the_page_reads_a_caption_as_torch_does(engine, kinds):
    from mmvae_lite import networks

    torch.manual_seed(3)
    encoder = networks.mmvae_cub_networks(6, 20, 16)["encoders"]["caption"].eval()
    exported = explore.export_decoders({"words": explore.page_encoder(encoder)}, positions=16)
    ids = torch.randint(20, (3, 16))
    with torch.no_grad():
        wanted = encoder(torch.nn.functional.one_hot(ids, 20).float()).mean.numpy()
    shown = np.array(decoded(engine, exported.spec, exported.weights, "words", ids.tolist()))
    assert np.abs(shown - wanted).max() <= 1e-3 * np.abs(wanted).max()


def test_the_worker_says_what_the_page_says(open_page, kinds):
    """The same decoding by a worker built from the page's own text, on a page opened from a folder."""
    page = open_page("style-mixer")
    sounding = "() => [...document.querySelectorAll('.mx-wave')].every(wave => wave.parentNode.mxSamples)"  # made once the hand rests
    wake(page)
    page.wait_for_function(sounding)
    page.evaluate(SETTLED)
    drawn = "() => [...document.querySelectorAll('canvas')].map(c => c.toDataURL())"
    here = page.evaluate(drawn)
    heavy = open_page("style-mixer")
    heavy.evaluate("() => {}")
    text = (heavy.url, explore.classic_script().replace("const HEAVY = 2e6", "const HEAVY = 0"))
    heavy.route("**/explore.js", lambda route: route.fulfill(body=text[1], content_type="text/javascript"))
    heavy.reload()
    wake(heavy)
    same = "here => JSON.stringify([...document.querySelectorAll('canvas')].map(c => c.toDataURL())) === JSON.stringify(here)"
    heavy.wait_for_function(same, arg=here, timeout=20_000)  # it draws when the worker has answered
    heavy.wait_for_function(sounding)
    heavy.evaluate(SETTLED)
    assert len(heavy.workers) == 1
    assert heavy.evaluate(drawn) == here
    page.watch.check()


def test_sound_has_the_spectrum_that_was_decoded(engine):
    """Synthetic digits that ship: log-mel -> sound in the page -> log-mel by the library; at least 0.9, and near in decibels."""
    spectra = PAIRED["spoken-written"]("stand-in").test.batch["speech"]
    spectra = spectra[torch.linspace(0, len(spectra) - 1, 6).long()]
    sounds = engine.evaluate(
        "([all, scale]) => all.map(one => Array.from(mmvaeExplore.synthesise(Float32Array.from(one), scale)))",
        [spectra.flatten(1).tolist(), SOUND],
    )
    heard, _ = audio.log_mel([torch.tensor(sound) for sound in sounds])
    for wanted, found in zip(spectra, audio.normalise(heard), strict=True):
        assert torch.corrcoef(torch.stack([wanted.flatten(), found.flatten()]))[0, 1] > 0.97
        assert (wanted - found).abs().mean() < 0.1


def test_filter_bank_is_the_librarys(engine):
    triangles = engine.evaluate(
        "scale => mmvaeExplore.melTriangles(scale).map(({ first, weights }) => [first, Array.from(weights)])", SOUND
    )
    bank = np.zeros((audio.N_FFT // 2 + 1, audio.BINS))
    for k, (first, weights) in enumerate(triangles):
        bank[first : first + len(weights), k] = weights
    np.testing.assert_allclose(bank, audio.mel_filters().numpy(), atol=1e-12)


def test_speech_can_be_played(open_page):
    page = open_page("style-mixer")
    wake(page)
    page.evaluate("() => { window.played = []; AudioBufferSourceNode.prototype.start = function () { played.push([this.buffer.sampleRate, this.buffer.length]); this.onended(); }; }")
    page.get_by_role("button", name="Play the decoded speech").click()
    page.wait_for_function("() => played.length > 0")
    assert page.evaluate("played") == [[audio.RATE, audio.WINDOW + 19 * audio.HOP]]
    page.watch.check()


@pytest.mark.parametrize("temperature", [0.3, 0.66, 2.0])
def test_concrete_density_is_the_librarys(engine, temperature):
    logits = [0.5, -1.0, 0.2]
    z = torch.tensor([[0.2, 0.3, 0.5], [0.9, 0.05, 0.05], [1 / 3, 1 / 3, 1 / 3]], dtype=torch.float64)
    wanted = Concrete(torch.tensor(logits, dtype=torch.float64), temperature).log_prob(z)
    shown = engine.evaluate("([logits, T, all]) => all.map(z => mmvaeExplore.concreteLogDensity(logits, T, z))", [logits, temperature, z.tolist()])
    assert shown == pytest.approx(wanted.tolist(), abs=1e-9)


def test_infonce_is_the_librarys_and_below_its_ceiling(engine):
    scores = torch.randn(6, 6, generator=torch.Generator().manual_seed(0)).double()
    shown = engine.evaluate("scores => mmvaeExplore.infoNce(scores)", scores.tolist())
    assert shown == pytest.approx(info_nce_from_scores(scores).item(), abs=1e-9)
    certain = (40 * torch.eye(6)).tolist()
    assert engine.evaluate("scores => mmvaeExplore.infoNce(scores)", certain) == pytest.approx(math.log(6))


def test_mixture_is_the_librarys(engine):
    state = {"means": [1.0, -1.0, 0.3], "precisions": [2.0, 0.5, 1.0], "present": [True, True, False], "form": "mixture"}
    mixture = Mixture(tuple(Normal.from_precision(torch.tensor([m]).double(), torch.tensor([t]).double()) for m, t in [(1.0, 2.0), (-1.0, 0.5)]))
    z = torch.linspace(-3, 3, 7).double()
    shown = engine.evaluate(
        "([state, all]) => { const q = mmvaeExplore.gaussianMixture(state); return [q.mean, q.variance, all.map(q.density)]; }", [state, z.tolist()]
    )
    assert shown[2] == pytest.approx(mixture.log_prob(z[:, None]).exp().tolist(), rel=1e-6)
    assert shown[:2] == pytest.approx([0.0, 0.5 * (0.5 + 2) + 1], rel=1e-9)
    kl = engine.evaluate(
        "() => mmvaeExplore.klOnGrid(mmvaeExplore.gaussianMixture({ means: [0.4], precisions: [2], present: [true] }).density, { mean: 0, precision: 1 })"
    )
    assert kl == pytest.approx(0.5 * (0.5 + 0.16 - 1 + math.log(2)), abs=1e-6)


def test_product_of_densities_says_that_it_has_no_integral(open_page):
    page = open_page("concrete-simplex")
    wake(page)
    page.locator("input[value=densities]").check(force=True)
    page.evaluate(SETTLED)
    message = page.locator(".mx-message")
    assert "no finite integral" in message.inner_text()
    page.get_by_label("temperature").focus()
    page.keyboard.press("End")
    page.evaluate(SETTLED)
    assert "has a finite integral" in message.inner_text()


def test_mixer_takes_content_from_one_and_style_from_another(open_page, kinds):
    """The picture of a picked cell is the decoding of that content with that style, also across modalities."""
    page = open_page("style-mixer")
    wake(page)
    page.locator("input[value=image]").first.check(force=True)  # the grid shows images
    page.locator("input[value=speech]").nth(1).check(force=True)  # what is said decides
    page.get_by_label("style 3 with content 2").click()
    page.evaluate(SETTLED)
    mixer = kinds["style-mixer"]
    row, column = mixer.rows[2], mixer.columns[1]
    z = np.concatenate([mixer._table("private/image")[row], mixer._table("shared/speech")[column]])
    wanted = np.round(255 * mixer._decode("image", z[None])[0, 0])
    shown = page.locator(".mx-output-image canvas").evaluate("c => Array.from(c.getContext('2d').getImageData(0, 0, c.width, c.height).data)")
    assert np.abs(np.array(shown).reshape(8, 8, 4)[..., 0] - wanted).max() <= 1


def test_lattice_shows_omega(open_page):
    from mmvae_lite.models.m2vae import omega

    page = open_page("subset-lattice")
    wake(page)
    for modalities in ("2", "4"):
        page.locator(f"input[value='{modalities}']").check(force=True)
        page.evaluate(SETTLED)
        found = page.locator(".mx-node").evaluate_all("nodes => nodes.map(n => [n.querySelector('b').textContent.length, n.querySelector('.mx-weight').textContent])")
        assert len(found) == 2 ** int(modalities) - 1
        assert all(str(omega(size, int(modalities))) == weight for size, weight in found)
