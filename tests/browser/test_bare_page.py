"""The explorers on a bare page opened from a folder: no book, no kernel, no server."""

import base64
import re

import numpy as np
import pytest
import torch
from torch import nn

from mmvae_lite import explore
from mmvae_lite.distributions import Normal
from mmvae_lite.experts import ImproperProduct, log_normaliser, product, product_with_prior, quotient

from .helpers import EXPLORERS, SETTLED, Watch, drag, drive_every_control, pixels_move, violations, wake

pytestmark = pytest.mark.browser
LATENT = 6
FORMS = {"product": product, "prior": product_with_prior, "quotient": quotient}
#: Modality posteriors and exact posteriors of the linear-Gaussian example with three modalities.
LG3 = {"means": [0.5, 0.6, 1 / 3], "precisions": [2.0, 5.0, 3.0]}
TRUTH = {(0, 1, 2): (0.625, 8.0), (0, 1): (2 / 3, 6.0), (1,): (0.6, 5.0), (): (0.0, 1.0)}


@pytest.fixture(scope="module")
def nets():
    torch.manual_seed(1)
    image = nn.Sequential(nn.Linear(LATENT, 32), nn.SiLU(), nn.Linear(32, 784), nn.Sigmoid(), nn.Unflatten(1, (1, 28, 28)))
    label = nn.Sequential(nn.Linear(LATENT, 16), nn.Tanh(), nn.Linear(16, 10), nn.ReLU(), nn.Softmax(-1))
    with torch.no_grad():
        for net in (image, label):
            net[0].weight.mul_(3)
            net[2].weight.mul_(3)
    return {"image": image, "label": label}


@pytest.fixture(scope="module")
def traversal(nets):
    places = torch.randn(10, LATENT, generator=torch.Generator().manual_seed(0))
    return explore.LatentExplorer(
        nets, places[3], starts={str(k): place for k, place in enumerate(places)}, kl=torch.arange(LATENT) / 2.0, name="toy",
        alt="A pattern of a random decoder.",
    )  # fmt: skip


def _page(body, foot=""):
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        '<title>Explorers</title><link rel="icon" href="data:,"><link rel="stylesheet" href="explore.css">'
        "<style>body { font-family: sans-serif; margin: 0 auto; padding: 12px; max-width: 740px; box-sizing: border-box;"
        " background: #fff; color: #1f2328; }"
        " @media (prefers-color-scheme: dark) { body { background: #14181e; color: #e6e6e6; } }</style>"
        f'<script defer src="explore.js"></script><main><h1>Explorers</h1>{body}</main>{foot}'
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory, traversal):
    folder = tmp_path_factory.mktemp("bare")
    (folder / "explore.js").write_text(explore.classic_script(), encoding="utf-8")
    (folder / "explore.css").write_text(explore.stylesheet(), encoding="utf-8")
    playgrounds = [explore.ExpertPlayground(**LG3, form="quotient", truth=TRUTH), explore.ExpertPlayground()]
    (folder / "playground.html").write_text(_page("".join(p.static_html() for p in playgrounds)), encoding="utf-8")
    inline = traversal.static_html()
    (folder / "inline.html").write_text(_page(inline), encoding="utf-8")
    block = re.search(r'<script [^>]*class="explorer-weights"[^>]*>(.*?)</script>', inline, re.DOTALL)
    key = f"toy-{traversal.spec['sha256'][:12]}"
    (folder / "weights.js").write_text(f'(globalThis.mmvaeWeights ??= {{}})["{key}"]="{block[1]}";')
    for name, source in (("external", "weights.js"), ("broken", "missing.js")):
        element = inline.replace(block[0], "").replace(
            "<latent-explorer", f'<latent-explorer data-weights="{key}" data-src="{source}"', 1
        )
        (folder / f"{name}.html").write_text(_page(f'<p style="height:2600px">Scroll.</p>{element}'), encoding="utf-8")
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
    page.goto(f"{folder.as_uri()}/inline.html")
    yield page
    page.close()


@pytest.mark.parametrize("touch", [False, True], ids=["desktop", "phone"])
@pytest.mark.parametrize("name", ["playground", "inline"])
def test_every_control_is_alive(open_page, name, touch, latency):
    page = open_page(name, width=360 if touch else 1280, height=800, touch=touch)
    for explorer in wake(page):
        assert drive_every_control(page, explorer) >= 11
        pixels_move(page, explorer, touch)
        latency(f"bare page: {name}, {'phone' if touch else 'desktop'}", explorer)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.watch.check()


def test_weights_load_when_the_reader_comes_near(open_page):
    page = open_page("external")
    page.evaluate(SETTLED)
    explorer = page.query_selector(EXPLORERS)
    assert explorer.get_attribute("data-state") == "waiting"
    assert page.evaluate("globalThis.mmvaeWeights === undefined")
    assert explorer.query_selector("img") is not None
    wake(page)
    pixels_move(page, explorer)
    page.watch.check()


def test_missing_weights_leave_the_picture_and_a_sentence(open_page):
    page = open_page("broken")
    explorer = page.query_selector(EXPLORERS)
    explorer.scroll_into_view_if_needed()
    alarm = page.wait_for_selector("[role=alert]")
    assert "could not start" in alarm.inner_text() and "missing.js" in alarm.inner_text()
    assert explorer.query_selector("img") is not None


@pytest.mark.parametrize("name", ["playground", "inline"])
@pytest.mark.parametrize("touch", [False, True], ids=["desktop", "phone"])
def test_nothing_moves_when_the_explorer_takes_over(open_page, name, touch):
    heights = [
        [element.bounding_box()["height"] for element in page.query_selector_all(EXPLORERS)]
        for page in (
            open_page(name, width=360 if touch else 1280, touch=touch, javascript=False),
            open_page(name, width=360 if touch else 1280, touch=touch),
        )
    ]
    assert heights[1] == pytest.approx(heights[0], abs=24)


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("name", ["playground", "inline"])
def test_accessible(open_page, name, dark):
    page = open_page(name, dark=dark)
    wake(page)
    assert not (found := violations(page)), "\n".join(found)


def test_decoders_equal_torch(engine, nets, traversal):
    z = torch.randn(5, LATENT)
    for name, net in nets.items():
        shown = engine.evaluate(
            """([spec, name, base64, z]) => {
                const bytes = Uint8Array.from(atob(base64), c => c.charCodeAt(0));
                const weights = mmvaeExplore.unpackWeights(new DataView(bytes.buffer), spec.values);
                return z.map(one => Array.from(mmvaeExplore.decode(spec.decoders[name], weights, one)));
            }""",
            [traversal.spec, name, base64.b64encode(traversal.weights).decode(), z.tolist()],
        )
        same = explore.reference_decode(traversal.spec, traversal.weights, name, z.numpy()).reshape(5, -1)
        wanted = net(z).detach().reshape(5, -1).numpy()
        assert np.abs(np.array(shown) - same).max() <= 1e-5 * same.max()
        assert np.abs(np.array(shown) - wanted).max() <= 1e-3 * wanted.max()


def test_half_precision_is_read_exactly(engine):
    values = np.array([0, -0.0, 1, -2.5, 65504, 6e-8, -5.9e-5, 0.333], dtype="<f2")
    read = engine.evaluate(
        "([bytes, n]) => Array.from(mmvaeExplore.unpackWeights(new DataView(Uint8Array.from(bytes).buffer), n))",
        [list(values.tobytes()), len(values)],
    )
    assert read == values.astype(float).tolist()
    with pytest.raises(Exception, match="hold 4 bytes, but the layers need 6"):
        engine.evaluate("mmvaeExplore.unpackWeights(new DataView(new ArrayBuffer(4)), 3)")
    with pytest.raises(Exception, match='does not know the layer "swirl"'):
        engine.evaluate("mmvaeExplore.decode([{op: 'swirl'}], new Float32Array(0), [1])")


def _library(state):
    """The library's product of one state, and its log normaliser."""
    experts = [
        Normal.from_precision(torch.tensor([m]).double(), torch.tensor([t]).double())
        for m, t, here in zip(state["means"], state["precisions"], state["present"], strict=True)
        if here
    ]
    result = FORMS[state["form"]](experts)
    prior = Normal.standard(1, like=result.mean)
    power = {"product": 0, "prior": 1, "quotient": 1 - len(experts)}[state["form"]]
    log_z = log_normaliser([*experts, prior], [1.0] * len(experts) + [float(power)])
    return {"mean": result.mean.item(), "variance": result.var.item(), "logZ": log_z.item()}


def _states():
    rng = np.random.default_rng(0)
    for form in FORMS:
        yield {"means": [1.0, -1.0], "precisions": [2.0, 0.5], "present": [True, True], "form": form}
        yield {**LG3, "present": [True, True, True], "form": form}
        for _ in range(8):
            present = rng.random(3) < 0.7
            present[rng.integers(3)] = True
            yield {
                "means": rng.normal(size=3).tolist(),
                "precisions": (2.0 ** rng.uniform(-4, 2, 3)).tolist(),
                "present": present.tolist(),
                "form": form,
            }


@pytest.mark.equation("eq-product")
@pytest.mark.equation("eq-product-prior")
@pytest.mark.equation("eq-quotient")
@pytest.mark.equation("eq-log-normaliser")
def test_playground_computes_what_the_library_computes(engine):
    improper = 0
    for state in _states():
        shown = engine.evaluate("state => mmvaeExplore.gaussianProduct(state)", state)
        try:
            wanted = _library(state)
        except ImproperProduct:
            improper += 1
            assert not shown["proper"]
            continue
        assert {key: shown[key] for key in wanted} == pytest.approx(wanted, rel=1e-5, abs=1e-6)
        assert sum(shown["shares"].values()) == pytest.approx(1)
    assert improper > 0


@pytest.mark.parametrize(
    ("form", "mean", "variance", "log_z"),
    [
        ("product", 0.6, 0.4, -2.1770839),
        ("prior", 0.4285714, 0.2857143, -3.3928300),
        ("quotient", 1.0, 0.6666667, -0.7027326),
    ],
)
def test_playground_known_answers(engine, form, mean, variance, log_z):
    state = {"means": [1, -1], "precisions": [2, 0.5], "present": [True, True], "form": form}
    shown = engine.evaluate("state => mmvaeExplore.gaussianProduct(state)", state)
    assert (shown["mean"], shown["variance"], shown["logZ"]) == pytest.approx((mean, variance, log_z), abs=1e-7)


def test_kl_of_gaussians(engine):
    pair = [{"mean": 2 / 3, "precision": 6}, {"mean": 0.5, "precision": 2}]
    assert engine.evaluate("pair => mmvaeExplore.gaussianKl(...pair)", pair) == pytest.approx(0.2437505888, abs=1e-9)
    pair = [{"mean": 2 / 3, "precision": 6}, {"mean": 0.6, "precision": 5}]
    assert engine.evaluate("pair => mmvaeExplore.gaussianKl(...pair)", pair) == pytest.approx(0.0189385562, abs=1e-9)


def test_only_the_quotient_of_posteriors_is_exact(open_page):
    page = open_page("playground")
    wake(page)
    first = page.locator("expert-playground").first
    exact = {}
    for form in FORMS:
        first.locator(f"input[value={form}]").check(force=True)
        page.evaluate(SETTLED)
        exact[form] = "equals the exact posterior" in first.locator(".mx-message").inner_text()
    assert exact == {"product": False, "prior": False, "quotient": True}


def test_improper_quotient_says_so(open_page):
    page = open_page("playground")
    wake(page)
    second = page.locator("expert-playground").nth(1)
    second.locator("input[value=quotient]").check(force=True)
    for precision in second.get_by_label("precision of").all():
        precision.focus()
        page.keyboard.press("Home")
    page.evaluate(SETTLED)
    message = second.locator(".mx-message").inner_text()
    assert "Improper." in message and "\u22120.88 is not above zero" in message
    status = second.locator("[role=status]")
    status.get_by_text("Improper.").wait_for(state="attached")


def test_handles_carry_mean_and_precision(open_page):
    page = open_page("playground", width=390, touch=True)
    wake(page)
    second = page.locator("expert-playground").nth(1)
    names = ("mean of expert 1", "precision of expert 1")
    before = [float(second.get_by_label(name).input_value()) for name in names]
    drag(page, second.locator(".mx-handle").first.element_handle(), -40, -20)
    page.evaluate(SETTLED)
    mean, precision = (float(second.get_by_label(name).input_value()) for name in names)
    assert mean < before[0] and precision > before[1]


def test_travel_ends_where_it_should(open_page):
    page = open_page("inline", calm=False)
    wake(page)
    explorer = page.locator("latent-explorer")
    values = explorer.locator(".mx-dim .mx-value")
    explorer.get_by_label("prior mean").check(force=True)
    page.wait_for_function("() => [...document.querySelectorAll('.mx-dim .mx-value')].every(v => v.textContent === '0.00')")
    explorer.get_by_role("button", name="Reset").click()
    page.wait_for_function("() => [...document.querySelectorAll('.mx-dim .mx-value')].some(v => v.textContent !== '0.00')")
    explorer.locator("input[type=range]").first.press("End")  # the hand stops the travel
    page.wait_for_timeout(450)
    assert values.first.inner_text() == "3.00"


def test_keyboard_reaches_the_starts(open_page):
    page = open_page("inline")
    wake(page)
    explorer = page.locator("latent-explorer")
    message = explorer.locator(".mx-message")
    explorer.locator("input[type=radio]:checked").focus()
    assert explorer.locator("input[type=radio]:checked").get_attribute("value") == "3"
    before = explorer.locator("canvas").first.evaluate("c => c.toDataURL()")
    page.keyboard.press("ArrowRight")
    page.evaluate(SETTLED)
    assert explorer.locator("input[type=radio]:checked").get_attribute("value") == "4"
    assert explorer.locator("canvas").first.evaluate("c => c.toDataURL()") != before
    assert re.fullmatch(r"Decoded as \d, probability (0\.\d\d|above 0\.99)\.", message.inner_text())
    assert message.inner_text() in explorer.locator("canvas").first.get_attribute("aria-label")
