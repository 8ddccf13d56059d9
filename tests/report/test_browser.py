"""The page in a real browser: nothing is fetched, nothing is logged, nothing sticks out, and it is dark in the dark."""

import os
import shutil
from pathlib import Path

import pytest

from tests.report import swept
from tests.report.recorded import broken, record, training
from trimtab.panels import Map, Scatter, Table
from trimtab.report import sweep
from trimtab.report.html import write
from trimtab.run import Run, RunWriter

CHROMIUM = os.environ.get("TRIMTAB_CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
FLAGS = [
    "--no-sandbox", "--headless", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip

SWEEPS = ("seven_phases", "all_failed")

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine (apt-get install chromium)")


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with playwright.sync_playwright() as started:
        chromium = started.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield chromium
        chromium.close()


def showing(run):
    """The run, with a panel of each kind, among them those that need the width of the page."""
    writer = RunWriter(run.path, run.id)
    columns = tuple(f"a column {place}" for place in range(9))
    writer.panel("table", 9, Table("Table", "Wide.", columns, (tuple(place / 7 for place in range(9)), columns)))
    names = tuple(f"word {place}" for place in range(48))
    writer.panel("wide", 9, Map("Wide", "", names[:4], names, ((0.5,) * 48,) * 4))
    cells = tuple(tuple((4 * row + column) / 15 for column in range(4)) for row in range(4))
    writer.panel("map", 9, Map("Map", "", names[:4], names[:4], cells))
    points = tuple((place % 5, place // 5, names[place], f"group {place % 7}") for place in range(20))
    writer.panel("scatter", 9, Scatter("Scatter", "", points))
    return Run(run.path)


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    runs = {
        "broken": showing(broken(root)),
        "clean": record(root, training(120)),
        "empty": record(root, [], ended=None),
    }
    written = {name: write(run) for name, run in runs.items()}
    for name in SWEEPS:
        path = root / f"{name}.html"
        summary, results = swept.summary_of(swept.EVERY[name]())
        written[name] = sweep.write(summary, results, swept.about(), path)
    return written


def opened(browser, path: Path, *, width, height, scheme="light"):
    page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
    page.said, page.asked = [], []
    page.on("console", lambda message: page.said.append(message.text))
    page.on("pageerror", lambda error: page.said.append(str(error)))
    page.on("request", lambda request: page.asked.append(request.url))
    page.goto(path.as_uri())
    page.wait_for_load_state("networkidle")
    return page


def luminance(colour):
    red, green, blue = (int(part.strip(" rgba()")) for part in colour.split(",")[:3])
    return (0.2126 * red + 0.7152 * green + 0.0722 * blue) / 255


def contrast(page, selector):
    """The contrast ratio of an element's text on the first background below it that is opaque."""
    return page.evaluate(
        """selector => {
            const seen = new Map();
            const light = text => seen.get(text) ?? seen.set(text, measured(text)).get(text);
            const measured = text => {
                const c = document.createElement("canvas").getContext("2d");
                c.fillStyle = text; c.fillRect(0, 0, 1, 1);
                const [r, g, b, a] = c.getImageData(0, 0, 1, 1).data;
                const f = v => (v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
                return [0.2126 * f(r) + 0.7152 * f(g) + 0.0722 * f(b), a];
            };
            let worst = 99;
            for (const element of document.querySelectorAll(selector)) {
                let below = element;
                while (below && light(getComputedStyle(below).backgroundColor)[1] < 255) below = below.parentElement;
                const style = getComputedStyle(element);
                const text = light(element.tagName === "text" ? style.fill : style.color)[0];
                const ground = light(getComputedStyle(below || document.documentElement).backgroundColor)[0];
                worst = Math.min(worst, (Math.max(text, ground) + 0.05) / (Math.min(text, ground) + 0.05));
            }
            return worst;
        }""",
        selector,
    )


@pytest.mark.parametrize("name", ["broken", "clean", "empty", *SWEEPS])
@pytest.mark.parametrize(("width", "height"), [(390, 844), (1280, 800)])
def test_the_page_is_quiet_fits_its_width_and_shows_the_verdict_first(browser, pages, name, width, height):
    page = opened(browser, pages[name], width=width, height=height)
    assert page.said == []
    assert page.asked == [pages[name].as_uri()]
    for details in page.query_selector_all("details"):
        details.evaluate("element => element.open = true")
    assert page.evaluate("document.documentElement.scrollWidth") == width
    for selector in ("h1", ".next"):
        box = page.query_selector(selector).bounding_box()
        assert box["y"] >= 0
        assert box["y"] + box["height"] <= height
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= width
    page.close()


@pytest.mark.parametrize("name", ["broken", "seven_phases"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_follows_the_colour_scheme_and_can_be_read_in_both(browser, pages, scheme, name):
    page = opened(browser, pages[name], width=1280, height=800, scheme=scheme)
    for details in page.query_selector_all("details"):
        details.evaluate("element => element.open = true")
    ground = luminance(page.evaluate("getComputedStyle(document.body).backgroundColor"))
    ink = luminance(page.evaluate("getComputedStyle(document.body).color"))
    assert (ground < 0.15 < 0.7 < ink) if scheme == "dark" else (ink < 0.15 < 0.85 < ground)
    for selector in (
        "h1",
        "p",
        "small",
        "td",
        "th",
        "h3",
        "code",
        "figcaption span",
        "dt",
        "nav a",
        "svg text:not(.on-pale, .on-dark)",
        ".chip",
    ):
        assert page.query_selector(selector) is not None
        assert contrast(page, selector) >= 4.5, selector
    page.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_number_in_a_cell_of_a_map_can_be_read_on_every_shade(browser, pages, scheme):
    page = opened(browser, pages["broken"], width=1280, height=800, scheme=scheme)
    found = page.evaluate(
        r"""() => {
            const light = text => {
                const f = v => (v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
                const [r, g, b] = text.match(/\d+/g).map(Number);
                return 0.2126 * f(r) + 0.7152 * f(g) + 0.0722 * f(b);
            };
            const map = document.querySelector("#panel-of-map");
            return [...map.querySelectorAll("text.on-pale, text.on-dark")].map(text => {
                const box = text.getBBox(), x = box.x + box.width / 2, y = box.y + box.height / 2;
                const below = [...map.querySelectorAll("path")].find(path => path.isPointInFill(new DOMPoint(x, y)));
                const both = [text, below].map(one => light(getComputedStyle(one).fill)).sort((a, b) => a - b);
                return [below.className.baseVal, (both[1] + 0.05) / (both[0] + 0.05)];
            });
        }"""
    )
    assert {kind for kind, _ in found} == {f"h{place}" for place in range(9)}
    assert [kind for kind, ratio in found if ratio < 4.5] == []
    page.close()


@pytest.mark.parametrize("name", ["broken", "seven_phases"])
def test_text_in_drawings_is_real_text_and_large_enough_on_a_phone(browser, pages, name):
    page = opened(browser, pages[name], width=390, height=844)
    sizes = page.evaluate(
        """() => [...document.querySelectorAll("svg.plot text")].map(text =>
            parseFloat(getComputedStyle(text).fontSize) * Math.hypot(text.getScreenCTM().a, text.getScreenCTM().b))"""
    )
    assert len(sizes) > 30
    assert min(sizes) >= 8.5
    word = "step" if name == "broken" else "validation/hierarchy"
    assert page.evaluate("word => document.querySelector('svg.plot').textContent.includes(word)", word)
    page.close()


@pytest.mark.parametrize("name", ["broken", "seven_phases"])
def test_no_text_of_a_drawing_is_cut_off(browser, pages, name):
    page = opened(browser, pages[name], width=1280, height=800)
    outside = page.evaluate(
        """() => [...document.querySelectorAll("svg.plot")].flatMap(drawing => {
            const frame = drawing.getBoundingClientRect();
            return [...drawing.querySelectorAll("text")].filter(text => {
                const box = text.getBoundingClientRect();
                return box.left < frame.left - 1 || box.right > frame.right + 1 ||
                    box.top < frame.top - 1 || box.bottom > frame.bottom + 1;
            }).map(text => text.textContent);
        })"""
    )
    assert outside == []
    page.close()


def test_every_section_can_be_reached_without_a_mouse_or_a_script(browser, pages):
    context = browser.new_context(java_script_enabled=False, viewport={"width": 390, "height": 844})
    page = context.new_page()
    page.goto(pages["broken"].as_uri())
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert page.url.endswith("#causes")
    finding = page.locator("details.finding").first
    finding.locator("summary").focus()
    page.keyboard.press("Enter")
    assert finding.locator("text=Why it matters").is_visible()
    context.close()
