"""Pages that weigh little: what is taken out of the theme, and what stays."""

import base64
import gzip
import json
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "book" / "_ext"))

import light_pages as page  # noqa: E402

WORDS = {"kept", "open", "main"}


@pytest.mark.parametrize("css, wanted", [
    (".kept{a:1}.gone{a:1}", ".kept{a:1}"),
    (".gone,.kept>p,p{a:1}", ".kept>p,p{a:1}"),
    (".kept.gone{a:1}#main{b:2}", "#main{b:2}"),
    ("p:not(.gone){a:1}", "p:not(.gone){a:1}"),
    (".kept:is(.gone,.open){a:1}", ".kept:is(.gone,.open){a:1}"),
    ("@media print{.gone{a:1}}@media print{.gone{a:1}.kept{b:2}}", "@media print{.kept{b:2}}"),
    ("@font-face{font-family:Font Awesome\\ 6 Free;src:url(x.woff2)}@font-face{font-family:Own;src:url(a;b)}", "@font-face{font-family:Own;src:url(a;b)}"),
    ('@charset "utf-8";.kept::after{content:"}.gone{"}', '@charset "utf-8";.kept::after{content:"}.gone{"}'),
    ("/* .kept{ */.gone{a:1}.open{b:2}", ".open{b:2}"),
    ("@keyframes turn{from{a:1}to{b:2}}.gone{animation:turn}", "@keyframes turn{from{a:1}to{b:2}}"),
    (".sm\\:gone{a:1}", ".sm\\:gone{a:1}"),
    (".gone{b:url(\"data:x,rgba(0)'{\")}.kept{a:1}", ".kept{a:1}"),
    ('[data-x=".gone"]{a:1}', '[data-x=".gone"]{a:1}'),
])  # fmt: skip
def test_rules_that_can_match_nothing_go(css, wanted):
    assert page.pruned(css, WORDS) == wanted


def test_a_page_keeps_the_scripts_that_it_needs():
    text = "".join(f'<script defer src="../_static/{name}?v=1"></script>\n' for name in ("scripts/fontawesome.js", "searchtools.js", "explore.js"))
    text += '<script src="../searchindex.js"></script><p>searchindex.js</p>'
    assert re.findall(r'src="([^"]*)"', page.lighten(text, "book/a.html")) == ["../_static/explore.js?v=1"]
    assert "searchtools" in page.lighten(text, "search.html") and "fontawesome" not in page.lighten(text, "search.html")
    assert "<p>searchindex.js</p>" in page.lighten(text, "book/a.html")


def test_words_of_code_without_a_colour_lose_their_mark():
    code = '<span class="n">x</span><span class="w"> </span><span class="o">=</span> <span class="p">(</span><span class="mi">1</span><span class="p">)</span>'
    assert page.lighten(code, "a.html") == 'x <span class="o">=</span> (<span class="mi">1</span>)'
    assert page.lighten('<span class="n"><a href="#">x</a></span>', "a.html") == '<span class="n"><a href="#">x</a></span>'


def test_the_packed_script_holds_the_parts(tmp_path):
    for name in ("startup.js", *page.PARTS):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"// {name} é")
    script = page.pack_mathjax(tmp_path)
    packed = re.search(r'const packed = "([^"]*)"', script)[1]
    parts = json.loads(gzip.decompress(base64.b64decode(packed)))
    assert parts == {name: f"// {name} é" for name in ("startup.js", *page.PARTS)}
    assert script == page.pack_mathjax(tmp_path)


def test_every_icon_of_the_theme_that_a_page_may_show_is_drawn():
    css = (ROOT / "book" / "_static" / "icons.css").read_text(encoding="utf-8")
    assert "http://www.w3.org/2000/svg" in css and not re.search(r"url\((?!\"data:)", css)
    for name in ("bars", "list", "magnifying-glass", "moon", "sun", "circle-half-stroke", "arrow-up", "angle-left", "angle-right", "download", "file", "file-pdf"):
        assert re.search(rf"\.fa-{name}\b[^{{]*{{ --icon: url", css), name
