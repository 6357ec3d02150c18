"""The same explorers live in JupyterLab: the page moves Python, and Python moves the page."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from .helpers import AFTER, SETTLED, Watch
from .samples import explorers

pytestmark = [pytest.mark.browser, pytest.mark.lab]
TOKEN = "test"
DEADLINE = 60

NOTEBOOK = [
    """
import ipywidgets, torch
from torch import nn
from mmvae_lite.explore import ExpertPlayground, LatentExplorer
torch.manual_seed(0)
nets = {
    "image": nn.Sequential(nn.Linear(4, 784), nn.Sigmoid(), nn.Unflatten(1, (1, 28, 28))),
    "label": nn.Sequential(nn.Linear(4, 10), nn.Softmax(-1)),
}
traversal = LatentExplorer(nets, [0.0] * 4, starts={"1": [1.0] * 4}, name="lab", alt="A random pattern.")
heard = ipywidgets.Label("python: nothing yet")
traversal.observe(lambda change: setattr(heard, "value", f"python: z0 is {change['new'][0]:.2f}"), "z")
ipywidgets.VBox([traversal, heard])
""",
    """
playground = ExpertPlayground([1.0, -1.0], [2.0, 0.5])
voice = ipywidgets.Label("python: nothing yet")
playground.observe(lambda change: setattr(voice, "value", f"python: form is {change['new']}"), "form")
ipywidgets.VBox([playground, voice])
""",
    """
from IPython.display import display
display(playground)
""",
    f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from samples import explorers
kinds, words = explorers(), {{}}
for tag, kind in kinds.items():
    words[tag] = ipywidgets.Label(f"{{tag}}: nothing yet")
    hear = lambda change, tag=tag: setattr(words[tag], "value", f"{{tag}}: python heard")
    kind.observe(hear, list(kind.KEYS))
ipywidgets.VBox([part for tag in kinds for part in (kinds[tag], words[tag])])
""",
]
#: A control that one press of a key or one click moves, the first that there is.
CONTROLS = ("input[type=range]", "button.mx-frame:not([aria-pressed=true])", "input[type=radio]:not(:checked)", "input[type=checkbox]", "textarea")
SET_FROM_PYTHON = "traversal.z = [0.0, 2.0, 0.0, 0.0]; playground.means = [2.5, -1.0]; playground.form = 'product'"

KERNEL_READY = """async () => {
  const panel = window.jupyterapp?.shell?.currentWidget;
  if (!panel?.sessionContext || !panel.revealed) return false;
  await panel.revealed;
  await panel.sessionContext.ready;
  return panel.sessionContext.session?.kernel?.status === "idle";
}"""
EXECUTE = """async code => {
  const kernel = window.jupyterapp.shell.currentWidget.sessionContext.session.kernel;
  const reply = await kernel.requestExecute({ code }).done;
  return reply.content.status;
}"""


def _notebook() -> str:
    cells = [
        {"cell_type": "code", "id": f"cell-{n}", "execution_count": None, "metadata": {}, "outputs": [], "source": source.strip()}
        for n, source in enumerate(NOTEBOOK)
    ]
    kernel = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
    return json.dumps({"cells": cells, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5})


@pytest.fixture
def lab(tmp_path):
    """The address of a JupyterLab of our own, with its own folders; stopped by its own process id."""
    root = tmp_path / "root"
    root.mkdir()
    (root / "explorers.ipynb").write_text(_notebook(), encoding="utf-8")
    runtime = tmp_path / "runtime"
    environment = {
        **os.environ,
        "JUPYTER_RUNTIME_DIR": str(runtime),
        "JUPYTER_CONFIG_DIR": str(tmp_path / "config"),
        "JUPYTER_DATA_DIR": str(tmp_path / "data"),
        "IPYTHONDIR": str(tmp_path / "ipython"),
        "OMP_NUM_THREADS": "1",
    }
    command = [
        sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ServerApp.ip=127.0.0.1", "--ServerApp.port=0",
        f"--IdentityProvider.token={TOKEN}", f"--ServerApp.root_dir={root}", "--LabApp.expose_app_in_browser=True",
        "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate", "--LabApp.news_url=None",
        "--LabApp.extension_manager=readonly",
    ]  # fmt: skip
    log = tmp_path / "lab.log"
    with log.open("wb") as sink:
        server = subprocess.Popen(command, env=environment, stdout=sink, stderr=sink)
    try:
        yield _address(server, runtime, log)
    finally:
        server.terminate()  # Ctrl-C would ask whether it is meant
        server.wait(15)


def _address(server, runtime, log) -> str:
    info = runtime / f"jpserver-{server.pid}.json"
    end = time.monotonic() + DEADLINE
    while time.monotonic() < end:
        assert server.poll() is None, log.read_text()
        try:
            return json.loads(info.read_text())["url"]
        except (FileNotFoundError, json.JSONDecodeError):  # not there yet, or half written
            time.sleep(0.1)
    raise AssertionError(f"JupyterLab did not start: {log.read_text()}")


def test_explorers_live_in_jupyterlab(lab, new_page):
    page = new_page(width=1300, height=1400)
    page.set_default_timeout(DEADLINE * 1000)
    watch = Watch(page, lab, lab.replace("http", "ws"))
    page.goto(f"{lab}lab/tree/explorers.ipynb?token={TOKEN}&reset")
    page.locator(".jp-Notebook").wait_for()
    page.wait_for_function(KERNEL_READY)  # the toolbar says "idle" too early
    page.evaluate("window.jupyterapp.commands.execute('notebook:run-all-cells')")

    traversal = page.locator(".mx-latent").first
    canvas = traversal.locator(".mx-picture")
    slider = traversal.locator("input[type=range]").first
    slider.wait_for()
    before = canvas.evaluate("c => c.toDataURL()")
    slider.focus()
    for _ in range(30):
        page.keyboard.press("ArrowRight")
    page.get_by_text("python: z0 is 1.50").wait_for()
    assert canvas.evaluate("c => c.toDataURL()") != before
    traversal.get_by_label("prior mean").check(force=True)
    page.get_by_text("python: z0 is 0.00").wait_for()

    first, second = (page.locator(".mx-playground").nth(n) for n in (0, 1))
    second.wait_for()
    drawn = first.locator(".mx-result").get_attribute("d")
    first.locator("input[value=product]").focus()
    page.keyboard.press("ArrowRight")
    page.get_by_text("python: form is prior").wait_for()
    page.wait_for_function("([node, old]) => node.getAttribute('d') !== old", arg=[first.locator(".mx-result").element_handle(), drawn])
    assert second.locator("input[value=prior]").is_checked(), "two views of one widget differ"

    assert page.evaluate(EXECUTE, SET_FROM_PYTHON) == "ok"
    moved = "([explorer, label, wanted]) => [...explorer.querySelectorAll('input')].find(i => i.ariaLabel === label).value === wanted"
    page.wait_for_function(moved, arg=[traversal.element_handle(), "latent dimension z1", "2"])
    page.wait_for_function(moved, arg=[first.element_handle(), "mean of expert 1", "2.5"])
    assert first.locator("input[value=product]").is_checked()

    for n, tag in enumerate(explorers()):
        move_one_control(page, page.locator(".jp-OutputArea").last.locator("[data-ms]").nth(n), tag)
    assert not watch.outside, watch.outside


def move_one_control(page, explorer, tag) -> None:
    """What is seen changes, and Python hears of it."""
    page.get_by_text(f"{tag}: nothing yet").wait_for()
    explorer.scroll_into_view_if_needed()
    before = explorer.evaluate(AFTER)
    control = next(found.first for name in CONTROLS if (found := explorer.locator(name)).count())
    if control.evaluate("node => node.type === 'range'"):
        control.focus()
        page.keyboard.press("Home" if control.evaluate("node => node.value === node.max") else "End")
    elif control.evaluate("node => node.localName === 'textarea'"):
        control.fill("white wings")
    else:
        control.click(force=True)
    page.get_by_text(f"{tag}: python heard").wait_for()
    page.evaluate(SETTLED)
    assert explorer.evaluate(AFTER) != before, f"{tag}: a control moved and nothing is seen of it"
