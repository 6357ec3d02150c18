"""Figures: words for those who cannot see them, both themes, and nobody else's settings touched."""

from __future__ import annotations

import base64
import io
import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
import torch
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


@pytest.mark.parametrize("colours", [2, 30, 250, 4000])
def test_pictures_look_the_same_and_weigh_less(colours, monkeypatch):
    table = np.random.default_rng(1).integers(0, 256, (colours, 4)).astype(np.uint8)
    table[:, 3] = 255
    if colours == 250:
        table[:, :3] = np.arange(250)[:, None]
    pixels = np.random.default_rng(0).integers(0, colours, (40, 60))

    def drawing():
        fig, ax = plotting.figure(3.0, 2.0)
        ax.imshow(table[pixels].repeat(8, 0).repeat(8, 1), interpolation="none")
        ax.set_axis_off()
        return plotting.svg(fig, ALT)

    def picture(text):
        found = re.search(r"data:image/png;base64,([^\"]*)", text)[1]
        return np.asarray(Image.open(io.BytesIO(base64.b64decode(found))).convert("RGBA")).astype(int)

    small = drawing()
    monkeypatch.setattr(plotting, "_smaller_png", lambda text: text)
    large = drawing()
    assert abs(picture(small) - picture(large)).max() <= (0 if colours <= 30 else 4)
    assert len(small) < len(large)


def polyline(text):
    return [tuple(map(float, p)) for p in re.findall(r"[ML]\s*(-?[\d.]+) (-?[\d.]+)", text)]


def test_a_smooth_line_loses_points_and_no_shape():
    x = np.linspace(0, 300, 3000)
    y = 100 * np.sin(x / 20) * (np.abs(x - 150) > 1)  # with two jumps
    text = "M" + "L".join(f"{a:.2f} {b:.2f} \n" for a, b in zip(x, y, strict=True))
    short = plotting._thinned(re.match(r".*", text, re.S))
    points = np.array(polyline(short))
    assert len(points) < 700 and len(short) < len(text) / 4
    off = abs(np.interp(x, points[:, 0], points[:, 1]) - y) / np.sqrt(1 + np.gradient(y, x) ** 2)
    assert off.max() < 0.06 and abs(points[:, 1]).max() == pytest.approx(abs(y).max(), abs=0.01)


@pytest.mark.parametrize("path", ["M0 0L1 1z", "M0 0Q1 1 2 2" + "L3 3" * 9, "M0 0" + "L1 0L2 0L1.5 0L0 0" * 3])
def test_what_is_no_smooth_line_keeps_its_turns(path):
    short = plotting._thinned(re.match(r".*", path, re.S))
    assert short == path or {(2.0, 0.0), (0.0, 0.0)} <= set(polyline(short))


def test_markers_alike_share_their_style():
    fig, ax = plotting.figure()
    ax.scatter(np.arange(50), np.arange(50), color="#0072b2")
    text = plotting.svg(fig, ALT)
    ElementTree.fromstring(text)
    assert text.count("#0072b2") <= 3 and len(re.findall(r'<use href="[^"]*" x="[^"]*" y="[^"]*"/>', text)) == 50


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


def displayed(monkeypatch) -> list[str]:
    shown: list[str] = []
    monkeypatch.setattr(pytest.importorskip("IPython.display"), "display", lambda html: shown.append(html.data))
    return shown


def test_a_table_has_heads_names_and_decimals(monkeypatch):
    shown = displayed(monkeypatch)
    rows = [["exact", 0.12345, torch.tensor([2.0])], ["a < b", "none", -1e-9]]
    plotting.table("Nats & bits", ["", "mean", "n > 1"], iter(rows), digits=2)
    root = ElementTree.fromstring(shown[0])
    assert root.get("aria-label") == root.find("table/caption").text == "Nats & bits"
    assert [th.text or "" for th in root.iterfind("table/thead/tr/th")] == ["", "mean", "n > 1"]
    assert [[c.text for c in tr] for tr in root.iterfind("table/tbody/tr")] == [["exact", "0.12", "2.00"], ["a < b", "none", "0.00"]]
    assert all(tr[0].get("scope") == "row" for tr in root.iterfind("table/tbody/tr"))


@pytest.mark.parametrize("one_line", [True, False])
def test_names_of_rows_stay_on_one_line_on_demand(one_line, monkeypatch):
    shown = displayed(monkeypatch)
    plotting.table("Names", ["a name", "x"], [["two words", 1]], one_line=one_line)
    assert ("nowrap" in shown[0]) == one_line and ">1.000<" in shown[0]


def test_numbers_that_are_none_stay_readable(monkeypatch):
    shown = displayed(monkeypatch)
    plotting.table("Edge", ["", "x", "y"], [["r", float("nan"), float("-inf")]])
    assert "<td>nan</td><td>-inf</td>" in shown[0]


@pytest.mark.parametrize("row", [[], ["exact"], ["exact", 1.0, 2.0]])
def test_a_row_needs_a_cell_for_each_column(row):
    with pytest.raises(ValueError, match=rf"'Nats': found {len(row)} cells .*'quantity', 'nats'"):
        plotting.table("Nats", ["quantity", "nats"], [["bound", 1.0], row])


@pytest.mark.parametrize("value", [None, [1.0], torch.zeros(2)])
def test_a_cell_is_text_or_one_number(value):
    with pytest.raises(ValueError, match="expected text, a number"):
        plotting.table("Nats", ["quantity", "nats"], [["bound", value]])


def test_the_legend_is_under_the_figure():
    fig, ax = plotting.figure()
    for name in "abc":
        ax.plot([0, 1], label=name)
    plotting.legend(fig, ax, columns=3)
    (legend,) = fig.legends
    assert [text.get_text() for text in legend.get_texts()] == ["a", "b", "c"] and legend._ncols == 3
    fig.canvas.draw()
    assert legend.get_window_extent().y1 < ax.get_window_extent().y0


def test_a_legend_of_nothing_is_refused():
    with pytest.raises(ValueError, match="label"):
        plotting.legend(*plotting.figure())


def test_a_mosaic_goes_row_by_row():
    images = torch.arange(6.0)[:, None, None, None].expand(6, 1, 2, 3) / 4
    drawn = plotting.mosaic(images, 3)
    assert drawn.shape == (4, 9)
    torch.testing.assert_close(drawn[::2, ::3], torch.tensor([[0, 0.25, 0.5], [0.75, 1, 1]]))


@pytest.mark.parametrize("shape, columns, word", [((6, 28, 28), 3, "images"), ((6, 3, 28, 28), 3, "images"), ((6, 1, 28, 28), 4, "columns"), ((6, 1, 28, 28), 0, "columns")])
def test_a_mosaic_needs_grey_pictures_in_full_rows(shape, columns, word):
    with pytest.raises(ValueError, match=word):
        plotting.mosaic(torch.zeros(shape), columns)


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
