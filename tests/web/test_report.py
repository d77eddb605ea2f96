"""The report as a reader sees it, in a real Chromium: on a phone and on wide screens, light and dark, printed.

`looks` asks the page itself: does anything stick out, cover other text, get cut, or lack contrast?
"""

from __future__ import annotations

from pathlib import Path

import pytest

import mh_edge
from mh_edge.machine import SQUARE_ONNX, SQUARE_TFLITE
from mh_edge.profiling import report
from profiling import profiles
from web.browsing import Chromium

OPENED = "document.querySelectorAll('details').forEach(one => one.open = true)"
WIDTHS = (320, 360, 768, 1280, 1920)


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Name -> page: those made by hand, and one of real runtimes."""
    folder = tmp_path_factory.mktemp("pages")
    found = {name: folder / f"{name}.html" for name in (*profiles.EVERY, "real")}
    for name, make in profiles.EVERY.items():
        report.write(make(), found[name])
    (folder / "square.onnx").write_bytes(SQUARE_ONNX)
    (folder / "square.tflite").write_bytes(SQUARE_TFLITE)
    files = [folder / "square.onnx", folder / "square.tflite"]
    real = mh_edge.profile(files, ["cpu", "xnnpack", "litert-builtin"], seconds=0.05, ops=True)
    assert all(row.latency is not None for row in real.rows)
    report.write(real, found["real"])
    return found


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("name", [*profiles.EVERY, "real"])
def test_nothing_sticks_out_or_is_covered_cut_or_pale(
    browser: Chromium, pages: dict[str, Path], looks: str, name: str, dark: bool
) -> None:
    for width in WIDTHS:
        browser.open(pages[name], width=width, dark=dark)
        assert browser.value(looks) == {}, width
        browser.value(OPENED)
        assert browser.value(looks) == {}, f"{width}, all opened"


@pytest.mark.parametrize("name", [*profiles.EVERY, "real"])
def test_it_asks_for_nothing_and_complains_of_nothing(browser: Chromium, pages: dict[str, Path], name: str) -> None:
    browser.open(pages[name], width=1280)
    assert browser.asked == [pages[name].as_uri()]
    assert browser.complaints == []


def test_charts_are_drawn(browser: Chromium, pages: dict[str, Path]) -> None:
    browser.open(pages["usual"], width=360)
    box = "(one => [one.width, one.height])(document.querySelector('{}').getBoundingClientRect())"
    for chart, width, height in ((".ridge .area", 20, 40), (".plot .front", 200, 10), (".bar .part", 100, 20)):
        found = browser.value(box.format(chart))
        assert found[0] >= width, chart
        assert found[1] >= height, chart
    assert browser.value("document.querySelectorAll('.ridge').length") == len(profiles.usual().rows)
    # Points stand where their times are: this axis is not logarithmic.
    drawn = browser.value("[...document.querySelectorAll('.point')].map(one => one.getBoundingClientRect().x)")
    times = sorted(row.latency.p50 for row in profiles.usual().rows if row.latency)
    shares = [[(one - those[0]) / (those[-1] - those[0]) for one in those] for those in (drawn, times)]
    assert shares[0] == pytest.approx(shares[1], abs=0.01)


def test_dark_is_dark_and_paper_is_white(browser: Chromium, pages: dict[str, Path], looks: str) -> None:
    ground = "getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number).reduce((a, b) => a + b)"
    browser.open(pages["usual"], width=1280, dark=True)
    assert browser.value(ground) < 3 * 40
    browser.open(pages["usual"], width=1280)
    assert browser.value(ground) == 3 * 255
    browser.open(pages["usual"], width=1280, dark=True, media="print")
    assert browser.value(ground) == 3 * 255
    assert browser.value("document.querySelector('details table').getBoundingClientRect().height") > 50
    assert browser.value(looks) == {}


@pytest.mark.parametrize(
    ("style", "objection"),
    [
        ("main { width: 150vw }", "wide"),
        ("h2 { position: relative; left: -60px }", "outside"),
        (".status { overflow: hidden; width: 3em; white-space: nowrap }", "cut"),
        (".label { position: absolute }", "overlap"),
        (".lead { color: #999 }", "contrast"),
        (".ridge { width: 40px !important }", "empty"),
    ],
)
def test_each_objection_can_be_raised(
    browser: Chromium, pages: dict[str, Path], looks: str, tmp_path: Path, style: str, objection: str
) -> None:
    spoilt = tmp_path / "spoilt.html"
    spoilt.write_text(
        pages["usual"].read_text(encoding="utf-8").replace("</style>", f"{style}</style>"), encoding="utf-8"
    )
    browser.open(spoilt, width=1280)
    assert objection in browser.value(looks)


def test_a_request_would_be_seen_and_is_refused(browser: Chromium, pages: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "dot.svg").write_text("<svg xmlns='http://www.w3.org/2000/svg'/>")
    curious = tmp_path / "curious.html"
    text = pages["lone"].read_text(encoding="utf-8")
    curious.write_text(
        text.replace("<main>", "<main><img src='dot.svg'><script>fetch('dot.svg')</script>"), encoding="utf-8"
    )
    browser.open(curious, width=1280)
    assert any("Content Security Policy" in said for said in browser.complaints)
    curious.write_text(
        text.replace("Content-Security-Policy", "none").replace("<main>", "<main><img src='dot.svg'>"), encoding="utf-8"
    )
    browser.open(curious, width=1280)
    assert len(browser.asked) == 2
