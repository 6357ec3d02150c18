"""What the browser tests share: watching a page, driving every control, reading what is shown."""

import os
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


def wake(page) -> list:
    """Scroll to every explorer and wait until it lives; returns their handles."""
    explorers = page.query_selector_all(EXPLORERS)
    for explorer in explorers:
        explorer.scroll_into_view_if_needed()
        page.wait_for_function("explorer => ['live', 'failed'].includes(explorer.dataset.state)", arg=explorer)
        state = explorer.get_attribute("data-state")
        assert state == "live", explorer.inner_text()
    return explorers


def _changes(page, explorer, control, act) -> None:
    before = explorer.evaluate(SEEN)
    act()
    page.evaluate(SETTLED)
    name = control.evaluate("c => c.outerHTML.replace(/<canvas.*<.canvas>/, '').slice(0, 160)")
    assert explorer.evaluate(SEEN) != before, f"a dead control: {name}"


def _leave(page, explorer, frame) -> None:
    """Where a frame is already chosen, choose another one, so that choosing it changes something."""
    if frame.get_attribute("aria-pressed") == "true":
        explorer.query_selector("button.mx-frame:not([aria-pressed=true])").click()
        page.evaluate(SETTLED)


def _move_away(page, explorer) -> None:
    """Change something, so that there is something to reset."""
    if slider := explorer.query_selector("input[type=range]"):
        slider.focus()
        page.keyboard.press("Home" if slider.evaluate("s => s.value === s.max") else "End")
    else:
        explorer.query_selector_all("button.mx-frame:not([aria-pressed=true]), input[type=radio]:not(:checked)")[-1].click(force=True)
    page.evaluate(SETTLED)


def drive_every_control(page, explorer) -> int:
    """Use every slider, button, radio, checkbox, text and handle; each must change what is seen. Returns how many."""
    sliders = explorer.query_selector_all("input[type=range]")
    for slider in sliders:
        slider.focus()
        at_end = slider.evaluate("s => s.value === s.max")
        _changes(page, explorer, slider, lambda: page.keyboard.press("Home" if at_end else "End"))
    frames = explorer.query_selector_all("button.mx-frame")
    for frame in frames:
        _leave(page, explorer, frame)
        _changes(page, explorer, frame, frame.click)
    radios = explorer.query_selector_all("input[type=radio]")
    for radio in sorted(radios, key=lambda node: node.is_checked()):
        _changes(page, explorer, radio, lambda radio=radio: radio.click(force=True))
    handles = explorer.query_selector_all(".mx-handle")
    for handle in handles:
        _changes(page, explorer, handle, lambda handle=handle: drag(page, handle, -24, 12))
    boxes = explorer.query_selector_all("input[type=checkbox]")
    for box in boxes:
        _changes(page, explorer, box, box.click)
    texts = explorer.query_selector_all("textarea")
    for text in texts:
        _changes(page, explorer, text, lambda text=text: text.fill("white wings"))
    resets = explorer.query_selector_all("button:not(.mx-frame):not(.mx-play)")
    for reset in resets:
        _move_away(page, explorer)
        _changes(page, explorer, reset, reset.click)
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


def pixels_move(page, explorer, touch: bool = False) -> None:
    """A slider by mouse, by keyboard and by finger changes the rendered picture itself, not only the DOM."""
    slider = explorer.query_selector("input[type=range]")
    picture = explorer.query_selector(".mx-picture, .mx-plot")
    if slider is None or picture is None:
        return
    slider.scroll_into_view_if_needed()
    before = picture.screenshot()
    box = slider.bounding_box()
    page.mouse.click(box["x"] + 0.2 * box["width"], box["y"] + box["height"] / 2)
    page.evaluate(SETTLED)
    by_mouse = picture.screenshot()
    assert by_mouse != before, "the mouse moved a slider and no pixel changed"
    slider.focus()
    for _ in range(12):
        page.keyboard.press("ArrowRight")
    page.evaluate(SETTLED)
    by_keyboard = picture.screenshot()
    assert by_keyboard != by_mouse, "the keyboard moved a slider and no pixel changed"
    if touch:
        box = slider.bounding_box()
        page.touchscreen.tap(box["x"] + 0.55 * box["width"], box["y"] + box["height"] / 2)
        page.evaluate(SETTLED)
        assert picture.screenshot() != by_keyboard, "a finger moved a slider and no pixel changed"
