"""Sphinx extension: pages that weigh little.

Of the theme's 2.7 MB a page of ours needs a tenth.  When the book is built, this module

- takes out the font of icons, in whose place book/_static/icons.css draws the few that a page shows,
- takes out the search index where nothing is searched, since the search page brings its own,
- drops the rules of the theme's style sheets that name classes which no page and no script has,
- takes the marks off words of code that have no colour of their own,
- packs the parts of MathJax that our equations need (the reading aid too, the menu not) into one compressed script.

A browser that cannot unpack takes MathJax as it came.  Nothing of this asks for a network or for another program.
"""

from __future__ import annotations

import base64
import gzip
import json
import re
from pathlib import Path

from sphinx.util import logging

logger = logging.getLogger(__name__)

MATHJAX = "mathjax-packed.js"
#: In the order of their names only: MathJax asks for each when it needs it.
PARTS = ("core.js", "input/tex.js", "output/chtml.js", "output/chtml/fonts/tex.js", "a11y/assistive-mml.js")
STYLES = ("styles/pydata-sphinx-theme.css", "styles/sphinx-book-theme.css", "styles/theme.css", "sphinx-design.min.css", "mystnb.*.css", "basic.css")
DROPPED = ("scripts/fontawesome.js", "scripts/*.map", "styles/*.map", "vendor/fontawesome", "mathjax/sre", "mathjax/tex-svg*.js", "mathjax/tex-mml*.js",
           "mathjax/mml-*.js", "mathjax/tex-chtml-full*.js", "mathjax/output/svg*", "mathjax/input/mml*", "mathjax/input/asciimath*", "mathjax/input/tex-full.js",
           "mathjax/node-main.js", "mathjax/adaptors", "mathjax/ui")  # fmt: skip
_SCRIPT = r'<script\b[^>]*\bsrc="[^"]*{}[^"]*"[^>]*>\s*</script>\s*'

LOADER = """// The parts of MathJax 3 (Apache License 2.0) that this book needs, compressed.
"use strict";
(() => {
  const root = document.currentScript.src.replace(/[^/]*$/, "") + "mathjax";
  const add = fill => new Promise((done, failed) => {
    const script = document.createElement("script");
    script.onload = done;
    script.onerror = failed;
    fill(script);
    document.head.append(script);
    if (!script.src) done();
  });
  const plain = () => add(script => { script.src = `${root}/tex-chtml.js`; });
  const told = () => window.MathJax.startup.promise.then(() => dispatchEvent(new Event("formulas-set")));
  if (!window.DecompressionStream) return plain().then(told);
  const bytes = Uint8Array.from(atob(packed), c => c.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  new Response(stream).json().then(parts => {
    const given = window.MathJax || {};
    window.MathJax = {
      ...given,
      chtml: { fontURL: `${root}/output/chtml/fonts/woff-v2`, ...given.chtml },
      loader: {
        ...given.loader,
        load: ["core", "input/tex", "output/chtml", "a11y/assistive-mml"],
        paths: { mathjax: root },
        require: url => {
          const text = parts[url.replace(`${root}/`, "")];
          return add(script => { if (text) script.textContent = text; else script.src = url; });
        },
      },
    };
    return add(script => { script.textContent = parts["startup.js"]; });
  }).catch(plain).then(told);
})();
"""


def pack_mathjax(folder: Path) -> str:
    """One script from MathJax's own files."""
    parts = {name: (folder / name).read_text(encoding="utf-8") for name in ("startup.js", *PARTS)}
    packed = base64.b64encode(gzip.compress(json.dumps(parts, ensure_ascii=False).encode(), 9, mtime=0)).decode()
    return LOADER.replace('"use strict";\n(() => {', f'"use strict";\n(() => {{\n  const packed = "{packed}";', 1)


def words_of(text: str) -> set[str]:
    """Everything that may be a class, in a page or in a script that sets it."""
    return set(re.findall(r"[A-Za-z_][\w-]*", text))


def pruned(css: str, words: set[str]) -> str:
    """A style sheet without the rules that can match nothing, and without fonts of icons.

    words: all classes there are, and more.  A rule stays unless each of its selectors names a class or an id that is not among them.
    """
    kept, at = [], 0
    for start, head, body, end in _blocks(css):
        kept.append(css[at:start])
        at = end
        name = re.sub(r"/\*.*?\*/", "", head, flags=re.S).strip()
        if name.startswith("@font-face"):
            if "Font Awesome" not in body and "FontAwesome" not in body:
                kept.append(f"{head}{{{body}}}")
        elif name.startswith(("@media", "@supports", "@layer", "@container")):
            inner = pruned(body, words)
            if inner.strip():
                kept.append(f"{head}{{{inner}}}")
        elif name.startswith("@"):
            kept.append(f"{head}{{{body}}}")
        else:
            selectors = [s for s in _selectors(name) if may_match(s, words)]
            if selectors:
                kept.append(f"{','.join(selectors)}{{{body}}}")
    kept.append(css[at:])
    return "".join(kept)


def may_match(selector: str, words: set[str]) -> bool:
    """Whether all classes and ids that a selector needs may be there; what stands in a negation is not needed."""
    needed = re.sub(r":(?:not|is|where|has)\((?:[^()]|\([^()]*\))*\)", "", selector)
    needed = re.sub(r"\[[^\]]*\]|\\.", "", needed) if "\\" not in selector else ""
    return all(name in words for name in re.findall(r"[.#](-?[A-Za-z_][\w-]*)", needed))


def _selectors(text: str) -> list[str]:
    """A list of selectors, split at the commas that are in no parenthesis."""
    found, depth, start = [], 0, 0
    for k, c in enumerate(text):
        depth += (c in "([") - (c in ")]")
        if c == "," and not depth:
            found.append(text[start:k].strip())
            start = k + 1
    return [*found, text[start:].strip()]


def _blocks(css: str):
    """(start, head, body, end) of every block on the outermost level; strings and comments are passed over."""
    start = depth = open_at = 0
    tokens = re.compile(r"/\*.*?\*/|\"(?:\\.|[^\"\\])*\"|'(?:\\.|[^'\\])*'|url\((?!['\"])[^)]*\)|[{};]", re.S)
    for token in tokens.finditer(css):
        mark = token[0]
        if mark == "{":
            if not depth:
                open_at = token.start()
            depth += 1
        elif mark == "}":
            depth -= 1
            if not depth:
                yield start, css[start:open_at], css[open_at + 1 : token.start()], token.end()
                start = token.end()
        elif mark == ";" and not depth:
            start = token.end()


def lighten(text: str, page: str) -> str:
    """A page without the scripts that it does not need."""
    names = [r"scripts/fontawesome\.js"]
    if page != "search.html":
        names += [r"searchtools\.js", r"language_data\.js", r"searchindex\.js"]
    for name in names:
        text = re.sub(_SCRIPT.format(name), "", text)
    # names, brackets and blanks have the colour of the code around them: no mark is needed, and a chapter has thousands
    return re.sub(r'<span class="(?:n|p|w)">([^<]*)</span>', r"\1", text)


def choose_mathjax(app, config) -> None:
    """config-inited, after the extension that brings MathJax: pages load the packed one."""
    config.mathjax_path = MATHJAX


def finish(app, error) -> None:
    """build-finished, after everything has been copied."""
    if error is not None or app.builder.format != "html":
        return
    out = Path(app.outdir)
    static = out / "_static"
    if (static / "mathjax" / "core.js").exists():
        (static / MATHJAX).write_text(pack_mathjax(static / "mathjax"), encoding="utf-8")
    words: set[str] = set()
    for path in sorted(out.rglob("*.html")):
        text = path.read_text(encoding="utf-8")
        words |= words_of(" ".join(re.findall(r'\b(?:class|id)="([^"]*)"', text)))
        lighter = lighten(text, path.relative_to(out).as_posix())
        if lighter != text:
            path.write_text(lighter, encoding="utf-8")
    for pattern in DROPPED:
        for path in static.glob(pattern):
            _remove(path)
    for path in static.rglob("*.js"):
        if path.name not in (MATHJAX, "plotly.min.js") and "mathjax" not in path.parts and "explorers" not in path.parts:
            words |= words_of(path.read_text(encoding="utf-8"))
    for pattern in STYLES:
        for path in static.glob(pattern):
            css = path.read_text(encoding="utf-8")
            path.write_text(re.sub(r"/\*# sourceMappingURL=.*?\*/", "", pruned(css, words)), encoding="utf-8")


def _remove(path: Path) -> None:
    if path.is_dir():
        for child in path.iterdir():
            _remove(child)
        path.rmdir()
    else:
        path.unlink()


def setup(app):
    app.connect("config-inited", choose_mathjax, priority=900)
    app.connect("build-finished", finish, priority=900)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
