"""Figures: words for those who cannot see them, both themes, and nobody else's settings touched."""

from __future__ import annotations

import base64
import io
import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from PIL import Image

from mmvae_lite import plotting

ALT = "Two lines that cross between zero and one"


def luminance(colour: str) -> float:
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, two: str) -> float:
    light, dark = sorted((luminance(one), luminance(two)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def drawing() -> str:
    fig, ax = plotting.figure()
    ax.plot([0, 1], [0, 1], label="up")
    ax.plot([0, 1], [1, 0], label=r"$\mu$")
    ax.imshow(np.eye(4), extent=(0, 1, 0, 1))
    ax.legend()
    ax.set_xlabel("z")
    return plotting.svg(fig, ALT)


@pytest.mark.parametrize("ground", ["#ffffff", plotting.DARK_GROUND, "#121212"])
@pytest.mark.parametrize("colour", plotting.PALETTE)
def test_palette_reads_on_both_grounds(colour, ground):
    assert contrast(colour, ground) >= 3


@pytest.mark.parametrize("alt", [None, "", "a figure", "xxxxxxxxxxxxxxxxxxxxxxxxxxxxx"])
@pytest.mark.parametrize("kind", ["matplotlib", "plotly"])
def test_a_figure_without_words_is_refused(alt, kind):
    if kind == "matplotlib":
        fig, _ = plotting.figure()
    else:
        fig = pytest.importorskip("plotly.graph_objects").Figure()
    with pytest.raises(ValueError, match="alt"):
        plotting.show(fig, alt)


def test_svg_is_labelled_scales_and_is_well_formed():
    text = drawing()
    root = ElementTree.fromstring(text)
    assert root.get("role") == "img" and root.get("aria-label") == ALT
    assert "width:100%" in root.get("style") and "max-width" in root.get("style")
    assert root.get("width") is None and root.get("viewBox")


def test_ink_is_the_colour_of_the_page():
    text = drawing()
    assert "currentColor" in text
    assert plotting._INK not in text and "#000000" not in text
    assert "#ffffff" not in text.lower()


def test_nothing_is_fetched_and_images_are_embedded():
    text = drawing()
    links = re.findall(r'(?:href|src)="([^"]+)"', text)
    assert any(link.startswith("data:image/png") for link in links)
    assert all(link.startswith(("#", "data:")) for link in links)


@pytest.mark.parametrize("colours", [2, 256, 300])
def test_pictures_keep_every_pixel_and_weigh_less(colours, monkeypatch):
    pixels = np.random.default_rng(0).integers(0, colours, (20, 30))
    ramp = np.arange(colours)
    table = np.stack([ramp % 251, ramp % 17 * 15, ramp // 2, np.where(ramp % 5, 255, ramp % 256)], -1).astype(np.uint8)

    def drawing():
        fig, ax = plotting.figure(3.0, 2.0)
        ax.imshow(table[pixels].repeat(8, 0).repeat(8, 1), interpolation="none")
        ax.set_axis_off()
        return plotting.svg(fig, ALT)

    def picture(text):
        found = re.search(r"data:image/png;base64,([^\"]*)", text)[1]
        return np.asarray(Image.open(io.BytesIO(base64.b64decode(found))).convert("RGBA"))

    small = drawing()
    monkeypatch.setattr(plotting, "_smaller_png", lambda text: text)
    large = drawing()
    assert np.array_equal(picture(small), picture(large))
    assert len(small) < len(large) if colours <= 200 else len(small) <= len(large)


def test_ids_are_unique_across_figures_and_resolve():
    first = drawing()
    fig, ax = plotting.figure()
    ax.plot([0, 2])
    second = plotting.svg(fig, ALT)
    ids = [set(re.findall(r'\bid="([^"]+)"', text)) for text in (first, second)]
    assert not ids[0] & ids[1]
    for text, own in zip((first, second), ids, strict=True):
        assert set(re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', text)) <= {(i, "") for i in own} | {("", i) for i in own}


def test_settings_of_matplotlib_stay_as_they_are():
    import matplotlib

    before = dict(matplotlib.rcParams)
    drawing()
    assert dict(matplotlib.rcParams) == before


def test_small_text_is_made_readable():
    fig, ax = plotting.figure()
    note = ax.text(0, 0, "note", fontsize=4)
    plotting.svg(fig, ALT)
    assert note.get_fontsize() >= plotting._SMALLEST_FONT


def test_same_figure_gives_same_svg():
    assert drawing() == drawing()


def test_show_displays_one_html_output(capsys):
    display = pytest.importorskip("IPython.display")
    fig, _ = plotting.figure()
    shown = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(display, "display", lambda *a, **k: shown.append((a, k)))
        plotting.show(fig, ALT, caption="x < y")
    ((html,), _), = shown
    assert html.data.startswith('<figure class="mmvae-figure"><svg') and "x &lt; y" in html.data


def test_plotly_keeps_its_words_and_is_transparent():
    graph = pytest.importorskip("plotly.graph_objects")
    bundle = plotting.plotly_bundle(graph.Figure(graph.Scatter(x=[1], y=[2])), ALT)
    layout = bundle["application/vnd.plotly.v1+json"]["layout"]
    assert layout["meta"]["alt"] == ALT
    assert layout["paper_bgcolor"] == layout["plot_bgcolor"] == "rgba(0,0,0,0)"


def test_plotly_page_html_is_inert_and_escaped():
    pytest.importorskip("docutils")
    from mmvae_lite.sphinx_plotly import plotly_html

    html = plotly_html({"data": [{"name": "</script>"}], "layout": {"meta": {"alt": 'a "b" <c>'}}})
    assert html.count("</script>") == 1
    assert "&lt;c&gt;" in html and "http" not in html
