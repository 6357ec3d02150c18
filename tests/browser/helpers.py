"""What the browser tests share: watching a page, driving every control, reading what is shown."""

import os
import re
from pathlib import Path

from mmvae_lite.explore import TAGS

EXPLORERS = ", ".join(TAGS)
NO_BOOK = "MMVAE_BOOK names no built book (a folder that holds index.html): build one and set it, or run `make test`."

#: All that a reader sees of an explorer, without the number beside each slider: a slider that
#: changes only its own number would be a dead control.
SEEN = """explorer => {
  const copy = explorer.cloneNode(true);
  copy.querySelectorAll(".mx-value, [role=status]").forEach(node => node.remove());
  const checked = [...explorer.querySelectorAll("[aria-pressed]")].map(node => node.getAttribute("aria-pressed"));
  const canvases = [...explorer.querySelectorAll("canvas")].map(canvas => canvas.toDataURL());
  const drawing = [...explorer.querySelectorAll("svg *")].map(node =>
    ["d", "transform", "class"].map(name => node.getAttribute(name)).join());
  return JSON.stringify([copy.textContent, checked, canvases, drawing]);
}"""
#: Everything is drawn, what a worker decodes too.
SETTLED = """() => new Promise(done => {
  const look = () => document.querySelector("[data-pending]") ? requestAnimationFrame(look) : setTimeout(done);
  requestAnimationFrame(() => requestAnimationFrame(look));
})"""

AFTER = f"async explorer => {{ await ({SETTLED})(); return ({SEEN})(explorer); }}"
#: Make a page small for axe without hiding anything from it.  MathJax's own output goes, and the strokes of figures, but not
#: what figures say to those who do not see them.  Three elements of each look are marked with data-look: words of one colour,
#: size and weight on one background look alike, and their contrast is one.  Words of code that are not marked lose their
#: element; a chapter has thousands.  Returns how many elements went.
THIN = """() => {
  const count = () => document.querySelectorAll("*").length;
  const before = count(), numbers = new Map(), places = new Map(), looks = new Map();
  const number = text => numbers.get(text) ?? numbers.set(text, numbers.size).get(text);
  const place = node => { // what the words stand on
    if (!node) return 0;
    if (!places.has(node)) {
      const s = getComputedStyle(node), lies = ["static", "relative"].includes(s.position) ? "" : s.position;
      places.set(node, number([place(node.parentElement), s.backgroundColor, s.backgroundImage, s.opacity, s.filter, s.mixBlendMode, lies].join()));
    }
    return places.get(node);
  };
  for (const math of document.querySelectorAll("mjx-container"))
    if (!math.closest("a, button, label, summary, h1, h2, h3, h4, th, figcaption")) math.replaceChildren();
  for (const drawing of document.querySelectorAll(".mmvae-figure svg[role=img]"))
    if (!drawing.querySelector("a, [tabindex], [onclick]"))
      [...drawing.children].forEach(child => { if (!child.matches("title, desc")) child.remove(); });
  for (const node of document.body.querySelectorAll("*")) {
    const words = [...node.childNodes].filter(child => child.nodeType === 3).map(child => child.data).join("").trim();
    const control = node.matches("input, select, textarea, button");
    if ((words.length < 2 && !control) || !node.getClientRects().length) continue; // axe does not judge a single character
    const s = getComputedStyle(node);
    const look = number([place(node), s.color, s.fontSize, s.fontWeight, s.textShadow, control && node.outerHTML].join());
    looks.set(look, [...(looks.get(look) ?? []).slice(0, 2), node]);
  }
  for (const alike of looks.values()) alike.forEach(node => { node.dataset.look = ""; });
  for (const block of document.querySelectorAll("pre")) {
    for (const word of block.querySelectorAll("span"))
      if (word.getAttributeNames().every(name => name === "class") && !word.querySelector("[data-look]")) word.replaceWith(...word.childNodes);
    block.normalize();
  }
  return before - count();
}"""
LIMIT = 1_500_000  # bytes of a first load, without plotly and the weights of explorers
PAINTED = 1500  # ms until the largest thing is painted
SHIFT = 0.1
#: Every formula is there and typeset.
TYPESET = "() => [...document.querySelectorAll('.math')].every(node => node.querySelector('mjx-container') || node.closest('mjx-container'))"
PAINTS = """
window.paints = [];
window.shifts = 0;
new PerformanceObserver(list => { for (const entry of list.getEntries()) window.paints.push(entry.startTime); })
  .observe({ type: "largest-contentful-paint", buffered: true });
new PerformanceObserver(list => { for (const entry of list.getEntries()) if (!entry.hadRecentInput) window.shifts += entry.value; })
  .observe({ type: "layout-shift", buffered: true });
"""
#: What has the class of an icon, is shown, and would show nothing or ask for a font.
BARE_ICONS = """() => [...document.querySelectorAll('[class*="fa-"]')]
  .filter(icon => getComputedStyle(icon).display !== "none" && /(^| )fa[srb]?(-| |$)/.test(icon.className))
  .filter(icon => !/url\\(/.test(getComputedStyle(icon).maskImage) || getComputedStyle(icon, "::before").content !== "none")
  .map(icon => icon.outerHTML)"""
BARE_BOXES = """() => [...document.querySelectorAll(".admonition > .admonition-title")]
  .filter(title => title.offsetParent && getComputedStyle(title, "::after").content !== "none"
    && !/url\\(/.test(getComputedStyle(title, "::after").maskImage) && getComputedStyle(title, "::after").width !== "0px")
  .map(title => title.textContent)"""
#: What can differ between two widths and two themes of one document, besides contrast; the rest is read in one of them.
ROOM = ("link-in-text-block", "scrollable-region-focusable")


def book_folder() -> Path | None:
    named = os.environ.get("MMVAE_BOOK")
    folder = Path(named).resolve() if named else None
    return folder if folder and (folder / "index.html").exists() else None


class Watch:
    """Collects what must not happen while a page is open: outside requests and errors."""

    def __init__(self, page, *allowed: str) -> None:
        self.outside: list[str] = []
        self.errors: list[str] = []
        inside = (*allowed, "data:", "blob:", "about:")
        page.on("request", lambda request: None if request.url.startswith(inside) else self.outside.append(request.url))
        page.on("requestfailed", lambda request: self.errors.append(f"failed: {request.url} {request.failure}"))
        page.on("response", lambda reply: self.errors.append(f"{reply.status}: {reply.url}") if reply.status >= 400 else None)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("console", lambda message: self.errors.append(message.text) if message.type == "error" else None)

    def check(self) -> None:
        assert not self.outside, f"requests left the book: {self.outside}"
        assert not self.errors, f"the page reported errors: {self.errors}"


class FirstLoad:
    """How heavy a page is that nothing was kept of, how soon it shows itself, and how still it stands until it is used."""

    def __init__(self, page, root: str) -> None:
        self.page, self.root, self.replies, self.weights = page, root, [], {}
        page.add_init_script(PAINTS)
        page.on("response", lambda reply: self.replies.append(reply))

    def measure(self) -> None:
        self.page.wait_for_function(TYPESET)
        self.page.wait_for_timeout(100)
        names = [(reply.url.removeprefix(self.root).partition("?")[0], reply) for reply in self.replies if reply.ok]
        self.weights = {name: len(reply.body()) for name, reply in names if "plotly" not in name and "/explorers/" not in name}
        self.bare = self.page.evaluate(BARE_ICONS) + self.page.evaluate(BARE_BOXES)
        self.shifts, self.painted = self.page.evaluate("[window.shifts, Math.max(0, ...window.paints)]")

    @property
    def bytes(self) -> int:
        return sum(self.weights.values())

    def faults(self, path: str) -> list[str]:
        found = [f"an icon without a picture: {name}" for name in self.bare]
        if self.bytes > LIMIT:
            found.append(f"{self.bytes} bytes: {sorted(self.weights.items(), key=lambda entry: -entry[1])[:5]}")
        if path != "search.html":
            found += [f"not needed: {name}" for name in self.weights if re.search("fontawesome|webfonts|searchindex", name)]
        if self.shifts >= SHIFT:
            found.append(f"the page shifts by {self.shifts:.2f}")
        return found + ([f"painted after {self.painted:.0f} ms"] if self.painted >= PAINTED else [])


def violations(page, excluded: tuple[str, ...] = (), options: dict | None = None, included: str | None = None) -> list[str]:
    """Serious and critical findings of axe-core."""
    from axe_playwright_python.sync_playwright import Axe

    # Preloading would copy the theme's stylesheets into the page, where their relative imports break.
    options = {"resultTypes": ["violations"], "preload": False} | (options or {})
    context = {"exclude": [[selector] for selector in excluded]} | ({"include": [[included]]} if included else {})
    found = Axe().run(page, context, options).response["violations"]
    return [
        f"{violation['id']}: {node['html'][:160]} {node.get('failureSummary', '')[:240]}"
        for violation in found
        if violation["impact"] in ("serious", "critical")
        for node in violation["nodes"][:12]
    ]


def violations_of_a_large_page(page, excluded: tuple[str, ...] = (), rules: tuple[str, ...] = ()) -> list[str]:
    """The same by all rules, or by those named and contrast; the page is made small first."""
    page.evaluate(THIN)
    others = {"runOnly": list(rules)} if rules else {"rules": {"color-contrast": {"enabled": False}}}
    found = violations(page, excluded, others)
    return found + violations(page, excluded, {"runOnly": ["color-contrast"]}, "[data-look]")


def wake(page) -> list:
    """Scroll to every explorer and wait until it lives; returns their handles."""
    explorers = page.query_selector_all(EXPLORERS)
    for explorer in explorers:
        explorer.scroll_into_view_if_needed()
        page.wait_for_function("explorer => ['live', 'failed'].includes(explorer.dataset.state)", arg=explorer)
        state = explorer.get_attribute("data-state")
        assert state == "live", explorer.inner_text()
    return explorers


class _Eye:
    """What is seen of an explorer, read once after each act."""

    def __init__(self, page, explorer) -> None:
        self.page, self.explorer, self.last = page, explorer, explorer.evaluate(SEEN)

    def moved(self) -> None:
        """Something was changed on purpose, and is no test."""
        self.last = self.explorer.evaluate(AFTER)

    def changes(self, control, act) -> None:
        act()
        before, self.last = self.last, self.explorer.evaluate(AFTER)
        if self.last == before:
            name = control.evaluate("c => c.outerHTML.replace(/<canvas.*<.canvas>/, '').slice(0, 160)")
            raise AssertionError(f"a dead control: {name}")

    def leave(self, frame) -> None:
        """Where a frame is already chosen, choose another one, so that choosing it changes something."""
        if frame.get_attribute("aria-pressed") == "true":
            self.explorer.query_selector("button.mx-frame:not([aria-pressed=true])").click()
            self.moved()

    def move_away(self) -> None:
        """Change something, so that there is something to reset."""
        if slider := self.explorer.query_selector("input[type=range]"):
            slider.focus()
            self.page.keyboard.press("Home" if slider.evaluate("s => s.value === s.max") else "End")
        else:
            picks = "button.mx-frame:not([aria-pressed=true]), input[type=radio]:not(:checked)"
            self.explorer.query_selector_all(picks)[-1].click(force=True)
        self.moved()


def drive_every_control(page, explorer) -> int:
    """Use every slider, button, radio, checkbox, text and handle; each must change what is seen. Returns how many."""
    eye = _Eye(page, explorer)
    sliders = explorer.query_selector_all("input[type=range]")
    for slider in sliders:
        slider.focus()
        at_end = slider.evaluate("s => s.value === s.max")
        eye.changes(slider, lambda: page.keyboard.press("Home" if at_end else "End"))
    frames = explorer.query_selector_all("button.mx-frame")
    for frame in frames:
        eye.leave(frame)
        eye.changes(frame, frame.click)
    radios = explorer.query_selector_all("input[type=radio]")
    for radio in sorted(radios, key=lambda node: node.is_checked()):
        eye.changes(radio, lambda radio=radio: radio.click(force=True))
    handles = explorer.query_selector_all(".mx-handle")
    for handle in handles:
        eye.changes(handle, lambda handle=handle: drag(page, handle, -24, 12))
    boxes = explorer.query_selector_all("input[type=checkbox]")
    for box in boxes:
        eye.changes(box, box.click)
    texts = explorer.query_selector_all("textarea")
    for text in texts:
        eye.changes(text, lambda text=text: text.fill("white wings"))
    resets = explorer.query_selector_all("button:not(.mx-frame):not(.mx-play)")
    for reset in resets:
        eye.move_away()
        eye.changes(reset, reset.click)
    players = explorer.query_selector_all("button.mx-play")
    for player in players:
        player.click()
        page.wait_for_function("button => !button.disabled", arg=player)
    return sum(map(len, (sliders, frames, radios, handles, boxes, texts, resets, players)))


def drag(page, handle, right: float, down: float) -> None:
    """Drag by real mouse events; another handle may lie above, so start from the one that is on top."""
    handle.scroll_into_view_if_needed()
    handle.evaluate("node => node.parentNode.append(node)")
    box = handle.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + right / 2, y + down / 2)
    page.mouse.move(x + right, y + down)
    page.mouse.up()


def _far_side(slider) -> tuple[float, float]:
    """A place on the half of a slider where its thumb is not: a click on the thumb moves nothing."""
    right = slider.evaluate("s => 2 * s.value > Number(s.min) + Number(s.max)")
    box = slider.bounding_box()
    return box["x"] + (0.2 if right else 0.8) * box["width"], box["y"] + box["height"] / 2


def pixels_move(page, explorer, touch: bool = False) -> None:
    """A slider by mouse, by keyboard and by finger changes the rendered picture itself, not only the DOM."""
    slider = explorer.query_selector("input[type=range]")
    picture = explorer.query_selector(".mx-picture, .mx-plot")
    if slider is None or picture is None:
        return
    before = picture.screenshot()  # which may scroll the slider out of sight, or under the page's head
    slider.evaluate("s => s.scrollIntoView({block: 'center'})")
    page.mouse.click(*_far_side(slider))
    page.evaluate(SETTLED)
    by_mouse = picture.screenshot()
    assert by_mouse != before, "the mouse moved a slider and no pixel changed"
    slider.focus()
    away = "ArrowLeft" if slider.evaluate("s => 2 * s.value > Number(s.min) + Number(s.max)") else "ArrowRight"
    for _ in range(12):
        page.keyboard.press(away)
    page.evaluate(SETTLED)
    by_keyboard = picture.screenshot()
    assert by_keyboard != by_mouse, "the keyboard moved a slider and no pixel changed"
    if touch:
        slider.evaluate("s => s.scrollIntoView({block: 'center'})")
        page.touchscreen.tap(*_far_side(slider))
        page.evaluate(SETTLED)
        assert picture.screenshot() != by_keyboard, "a finger moved a slider and no pixel changed"
