"""The report in a browser: it opens without an error, each figure draws, crystals turn, and it calls nobody."""

import re
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
from PIL import Image

from cdvae_kit.visualization import write_report
from tests.visualization.browser import browser, open_page, screenshot
from tests.visualization.evaluations import SPITE, empty_evaluation, evaluation

TURN = """<script>
document.querySelectorAll(".turn").forEach((button) => button.click());
setTimeout(() => {
  const last = [...document.querySelectorAll(".turning")].pop();
  if (!last || !last._fullLayout) return;
  const before = last._fullLayout.scene.camera.eye.x;
  last.dispatchEvent(new KeyboardEvent("keydown", {key: "ArrowLeft", bubbles: true}));
  setTimeout(() => { document.body.dataset.moved = last._fullLayout.scene.camera.eye.x !== before; }, 1000);
}, 8000);
</script></body>"""


@pytest.fixture(scope="module", autouse=True)
def _there_is_a_browser() -> None:
    browser()


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = evaluation(num_generated=32, spite=SPITE)
    return write_report(found, tmp_path_factory.mktemp("browser") / "report.html", dataset="mp_20")


def changed(report: Path, name: str, old: str, new: str) -> Path:
    text = report.read_text(encoding="utf-8")
    assert old in text
    path = report.with_name(name)
    path.write_text(new.join(text.rsplit(old, 1)), encoding="utf-8")
    return path


def test_it_opens_without_an_error_and_every_figure_draws(report: Path) -> None:
    opened = open_page(report)
    assert opened.errors == []
    figures = re.findall(r'<div class="figure[^>]*id="([^"]+)"', opened.dom)
    assert len(figures) >= 7 and f'data-drawn="{len(figures)}"' in opened.dom
    places = opened.dom.split('<div class="figure')[1:]
    for name, place in zip(figures, places, strict=True):
        drawn = place.split("<figcaption")[0]
        assert "main-svg" in drawn, name
        assert re.search(r'class="(trace|points|slice|hm|scatterlayer|barlayer)', drawn), name
    # the spite stayed text
    assert "window.spite" in opened.dom and "<script>window.spite" not in opened.dom


def test_an_error_on_the_console_would_be_seen(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text("<!DOCTYPE html><body><script>document.body.dataset.ran = 1; nowhere.at.all();</script>")
    opened = open_page(page)
    assert 'data-ran="1"' in opened.dom
    assert any("nowhere is not defined" in line for line in opened.errors)


def test_crystals_turn_at_most_eight_at_a_time(report: Path) -> None:
    opened = open_page(changed(report, "turning.html", "</body>", TURN), size=(1280, 5000))
    assert opened.errors == []
    if re.search(r'<p class="note no-webgl">', opened.dom):
        pytest.skip("this browser draws no WebGL")
    assert opened.dom.count('class="turn"') > 8
    assert opened.dom.count('data-turning="yes"') == 8
    drawn = opened.dom.split('<div class="turning')[1:]
    assert len(drawn) == 8 and all("<canvas" in place.split("</article>")[0] for place in drawn)
    assert 'data-moved="true"' in opened.dom


def test_without_webgl_the_pictures_stand_still_and_the_page_says_so(report: Path) -> None:
    gone = "<script>HTMLCanvasElement.prototype.getContext = () => null;</script>\n<header>"
    text = report.read_text(encoding="utf-8").replace("<header>", gone, 1)
    page = report.with_name("still.html")
    page.write_text(text, encoding="utf-8")
    opened = open_page(page)
    assert '<p class="note no-webgl">' in opened.dom
    assert 'class="turn"' not in opened.dom and opened.dom.count('class="still"') > 8


def colors_of_figures(dom: str) -> set[str]:
    """What figures draw with, as the browser writes it: `fill: rgb(31, 41, 51)` of words, `stroke: ...` of lines."""
    places = dom.split('<div class="figure')[1:]
    drawn = "".join(place.split("<figcaption")[0] for place in places)
    return set(re.findall(r"(?:fill|stroke): rgb\([^)]*\)", drawn))


INK, INK_IN_THE_DARK = "fill: rgb(31, 41, 51)", "fill: rgb(230, 235, 240)"
# lines alone: the ends of a colour scale stay as they are
GENERATED, GENERATED_IN_THE_DARK = "stroke: rgb(22, 104, 184)", "stroke: rgb(108, 178, 242)"
PRINTED = """<script>
addEventListener("load", () => setTimeout(() => dispatchEvent(new Event("beforeprint")), 8000));
</script></body>"""


def test_figures_take_the_colours_of_the_screen(report: Path) -> None:
    light, dark = (colors_of_figures(open_page(report, dark=dark).dom) for dark in (False, True))
    assert {INK, GENERATED} <= light and not {INK_IN_THE_DARK, GENERATED_IN_THE_DARK} & light
    assert {INK_IN_THE_DARK, GENERATED_IN_THE_DARK} <= dark and GENERATED not in dark


def test_what_is_printed_from_a_dark_screen_has_the_colours_of_paper(report: Path) -> None:
    opened = open_page(changed(report, "printed.html", "</body>", PRINTED), dark=True)
    assert opened.errors == [] and 'data-paper="yes"' in opened.dom
    found = colors_of_figures(opened.dom)
    assert {INK, GENERATED} <= found and not {INK_IN_THE_DARK, GENERATED_IN_THE_DARK} & found


@pytest.fixture
def listener() -> Iterator[tuple[str, list[str]]]:
    """A server on the loopback, and what it was asked for."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", asked
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.slow
def test_whatever_asks_for_the_network_is_refused(report: Path, listener: tuple[str, list[str]]) -> None:
    address, asked = listener
    asking = f'<img src="{address}/image"><script>fetch("{address}/fetch").catch(() => 0)</script></body>'
    page = changed(report, "asking.html", "</body>", asking)
    opened = open_page(page)
    assert asked == [] and len(opened.errors) >= 2
    # the same without the page's policy does get through
    free = page.with_name("free.html")
    free.write_text(re.sub(r"<meta http-equiv[^>]*>", "", page.read_text(encoding="utf-8")), encoding="utf-8")
    open_page(free)
    assert "/image" in asked


@pytest.mark.slow
def test_its_picture_has_the_colours_of_both_sets(report: Path, tmp_path: Path) -> None:
    picture = tmp_path / "report.png"
    screenshot(report, picture, size=(1280, 4500))
    pixels = np.asarray(Image.open(picture).convert("RGB")).reshape(-1, 3).astype(int)
    for color in ((0x16, 0x68, 0xB8), (0xC2, 0x57, 0x0C)):
        assert (np.abs(pixels - color).max(1) < 8).sum() > 100
    assert len(np.unique(pixels // 32, axis=0)) > 30


def test_an_evaluation_of_nothing_opens_too(tmp_path: Path) -> None:
    opened = open_page(write_report(empty_evaluation(), tmp_path / "report.html"))
    assert opened.errors == [] and 'data-drawn="0"' in opened.dom
