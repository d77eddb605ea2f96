"""`--device browser` with a browser's part played in Python (`browsers`): what the page is asked, what is believed of
what it sends, and what rows are made of it. Real Chromium: tests/web/test_profile_browser.py.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mh_edge
from mh_edge.machine import SQUARE_ONNX
from mh_edge.openings import OPENINGS
from mh_edge.profiling.browser import Offer, profile_in_browser, visit
from mh_edge.profiling.browser.address import Address
from mh_edge.profiling.plan import BACKENDS, Pair
from mh_edge.profiling.result import Row
from profiling.browsers import Arrays, Browser, checked, node_modules, timed
from profiling.phones import X, case

RUNS: list[Arrays] = [{"y": X * X}, {"y": X * X}]
WRONG: list[Arrays] = [{"y": X * X}, {"y": X + X}]
LEFT = {"op": "Mul", "count": 1, "nodes": ["a"], "where": "WebAssembly", "reason": "no kernel"}
SPLIT = {"nodes": 4, "on_device": 3, "partitions": 2, "fallbacks": [LEFT], "proof": "log", "whole": False}

Part = Callable[[Browser], None]
"""What the browser does."""


class Visits:
    """Profiles in a browser that plays a part."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.modules = node_modules(folder / "node_modules")
        (folder / "square.onnx").write_bytes(SQUARE_ONNX)
        one = case(folder / "square.onnx", {"x": X}, {"batch": 2})
        self.case = replace(one, files=one.files * 2, expected=one.expected * 2)
        self.count = 0

    def __call__(self, part: Part | None, *backends: str, wait: float = 10.0, **ways: Any) -> list[Row]:
        """The rows; an error of the part is raised here. backends: none for all."""
        errors: list[BaseException] = []
        threads = []

        def play(url: str) -> None:
            try:
                if part is not None:
                    part(Browser(url))
            except BaseException as error:  # noqa: BLE001 - raised below
                errors.append(error)

        def told(url: str, far: bool) -> None:
            del far
            threads.append(threading.Thread(target=play, args=[url]))
            threads[0].start()

        names = [f"browser:{one}".rstrip(":") for one in backends or [""]]
        asked = {Pair(self.case.artifact, name, True): self.case for name in names}
        offer = Offer(wait=wait, settings={"node_modules": str(self.modules)}, on_address=told)
        self.count += 1
        given = {"threads": 1, "runs": None, "seconds": 0.1, "rtol": None, "fallback": False} | ways
        found, _ = profile_in_browser(
            asked, offer, self.folder / f"page{self.count}", **given, on_step=lambda *told, **more: None
        )
        for thread in threads:
            thread.join()
        if errors:
            raise errors[0]
        return [row for rows in found.values() for row in rows]


@pytest.fixture(scope="module")
def visits(tmp_path_factory: pytest.TempPathFactory) -> Visits:
    return Visits(tmp_path_factory.mktemp("visits"))


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(visit, "RETURN_SECONDS", 0.05)


def play(browser: Browser, rows: dict[int, tuple[dict[str, Any], float]]) -> None:
    """A page: what it posts of each row beside what is right, and how long a call takes."""
    for row in browser.plan()["rows"]:
        other = dict(rows.get(row["row"], ({"absent": "There is none."}, 0.0))[0])
        runs = other.pop("runs", [] if other.get("absent") or other.get("error") else RUNS)
        assert browser.post("checked", *checked(row["row"], runs, **other)).status == 200
    for number, (other, ms) in rows.items():
        if ms:
            told = {name: other[name] for name in ("group", "steady") if name in other}
            assert browser.post("timed", *timed(number, RUNS[0], ms, **told)).status == 200
    assert browser.post("done", {}).body == b"{}"


def test_rows_of_every_backend(visits: Visits) -> None:
    plans: list[Any] = []

    def part(browser: Browser) -> None:
        plans.append(browser.plan())
        adapter = "google swiftshader (software)"
        play(browser, {0: ({}, 2.0), 1: ({"threads": 4}, 1.0), 2: ({"adapter": adapter, "group": 3}, 8.0)})

    wasm, threads, gpu, webnn = visits(part, runs=40)
    plan = plans[0]
    assert (plan["openings"], plan["calls"], plan["seconds"]) == (OPENINGS, 40, 0.1)
    assert [(one["backend"], one["threads"]) for one in plan["rows"]] == list(
        zip(BACKENDS, (1, None, 1, 1), strict=True)
    )
    assert plan["rows"][0]["sizes"] == {"batch": 2}
    assert [one.device for one in (wasm, threads, gpu, webnn)] == [f"browser:{one}" for one in BACKENDS]
    assert [one.failure for one in (wasm, threads, gpu, webnn)] == [None] * 4
    assert wasm.latency is not None
    assert (wasm.latency.p50, wasm.latency.p90, wasm.latency.p99) == (2.0, pytest.approx(2.02), None)
    assert wasm.latency.calls == 12 * OPENINGS
    assert (wasm.load_ms, wasm.first_ms, wasm.memory, wasm.batch) == (30.0, 5.0, None, 2)
    assert wasm.agreement is not None
    assert (wasm.agreement.equal, wasm.agreement.error) == (True, 0.0)
    assert wasm.runtime == "onnxruntime-web 1.30.0"
    assert wasm.notes[0] == "measured in Chrome 156 on Android 15"
    assert "the ratios of browsers are to this row" in wasm.notes[1]
    assert [one.ratio and one.ratio.ratio for one in (wasm, threads, gpu)] == [
        1.0,
        pytest.approx(0.5),
        pytest.approx(4),
    ]
    beside = "its ratio is to square.onnx on browser:wasm"
    assert threads.notes == ("measured in Chrome 156 on Android 15, 4 threads", beside)
    assert (beside in gpu.notes, beside in wasm.notes) == (True, False)
    assert "GPU google swiftshader (software), whose times say nothing about a real one" in gpu.notes[0]
    assert "each time is the mean of 3 calls" in gpu.notes[1]
    assert gpu.latency is not None
    assert (gpu.latency.p90, gpu.latency.quantiles, gpu.latency.calls) == (None, (), 36 * OPENINGS)
    assert (webnn.latency, webnn.notes) == (None, ("Chrome 156 on Android 15 has no webnn here: There is none.",))
    assert all(one.to_json() for one in (wasm, threads, gpu, webnn))


def test_a_backend_by_name_must_be_there(visits: Visits) -> None:
    (row,) = visits(lambda browser: play(browser, {}), "webgpu")
    assert row.failure is not None
    assert (row.device, row.failure.exit_code) == ("browser:webgpu", 6)
    assert row.failure.message == "Chrome 156 on Android 15 has no webgpu here: There is none."


def test_a_backend_by_name_beside_all(visits: Visits) -> None:
    *others, first = visits(lambda browser: play(browser, {}), "", "webgpu")
    assert [row.device for row in (*others, first)] == [
        f"browser:{one}" for one in ("wasm", "wasm-threads", "webnn", "webgpu")
    ]
    assert [row.failure and row.failure.exit_code for row in (*others, first)] == [None, None, None, 6]


@pytest.mark.parametrize(
    ("other", "code", "words"),
    [
        ({"runs": WRONG}, 5, "y[0] is 2, expected 1"),
        ({"runs": [{"y": X * X}, {"y": np.array([1, np.nan], np.float32)}]}, 5, "y[1] is nan"),
        ({"runs": [{"y": X * X}, {"z": X * X}]}, 5, "the output 'y' is missing"),
        ({"runs": [{"y": X * X}, {"y": (X * X).astype(np.float64)}]}, 5, "is float64, expected float32"),
        ({"runs": [{"y": X * X}, {"y": np.ones((2, 1), np.float32)}]}, 5, "has the shape (2, 1)"),
        ({"placement": SPLIT}, 6, "1 of its 4 nodes ran on WebAssembly: Mul (no kernel)"),
        ({"placement": {"whole": False, "fallbacks": []}}, 6, "a part"),
        ({"error": "RuntimeError: \x1b[31maborted\x1b[0m\nstack ..."}, 3, "browser:wasm': RuntimeError: aborted."),
    ],
)
def test_what_is_wrong_is_not_timed(visits: Visits, other: dict[str, Any], code: int, words: str) -> None:
    def part(browser: Browser) -> None:
        browser.plan()
        told = dict(other)
        runs = told.pop("runs", [] if "error" in told else RUNS)
        answer = browser.post("checked", *checked(0, runs, **told))
        assert b'"time": false' in answer.body
        assert browser.post("timed", *timed(0, RUNS[0])).status == 409
        browser.post("done", {})

    (row,) = visits(part, "wasm")
    assert row.failure is not None
    assert row.failure.exit_code == code
    assert words in row.failure.message
    assert row.latency is None


def test_what_fell_back_is_timed_where_that_is_allowed(visits: Visits) -> None:
    (row,) = visits(lambda browser: play(browser, {0: ({"placement": SPLIT}, 1.0)}), "wasm", fallback=True)
    assert (row.failure, row.fell_back) == (None, True)
    assert row.latency is not None


def test_a_runtime_that_tells_no_nodes(visits: Visits) -> None:
    told = {"nodes": None, "on_device": None, "partitions": None, "fallbacks": [], "proof": "its word", "whole": True}
    (row,) = visits(lambda browser: play(browser, {0: ({"placement": told}, 1.0)}), "wasm")
    assert row.placement is not None
    assert (row.placement.nodes, row.placement.whole) == (1, True)  # of the file
    (row,) = visits(lambda browser: play(browser, {0: ({"placement": None}, 1.0)}), "wasm")
    assert (row.placement, "no evidence" in row.notes[1]) == (None, True)


def test_numbers_that_are_wrong_after_the_calls(visits: Visits) -> None:
    def part(browser: Browser) -> None:
        browser.plan()
        browser.post("checked", *checked(0, RUNS))
        assert browser.post("timed", *timed(0, WRONG[1])).status == 200
        browser.post("done", {})

    (row,) = visits(part, "wasm")
    assert row.failure is not None
    assert (row.failure.exit_code, row.latency) == (5, None)
    assert row.agreement is not None
    assert row.agreement.equal is False


def test_the_order_is_kept(visits: Visits) -> None:
    def part(browser: Browser) -> None:
        browser.plan()
        assert browser.post("timed", *timed(0, RUNS[0])).status == 409
        assert browser.post("checked", *checked(0, RUNS)).status == 200
        assert browser.post("checked", *checked(0, RUNS)).status == 409
        assert browser.post("timed", *timed(0, RUNS[0])).status == 409  # the other one is not checked yet
        browser.plan()  # loaded anew: all begins anew
        assert browser.post("checked", *checked(0, RUNS)).status == 200
        assert browser.post("checked", *checked(1, RUNS)).status == 200
        told, arrays = timed(0, RUNS[0])
        bare = [{name: one for name, one in opening.items() if name != "control_ms"} for opening in told["openings"]]
        assert browser.post("timed", told | {"openings": bare}, arrays).text.endswith("has no 'control_ms'.\n")
        assert browser.post("timed", told, arrays).status == 200
        assert browser.post("timed", told, arrays).status == 409
        told, arrays = timed(1, RUNS[0])
        assert browser.post("timed", told | {"openings": bare}, arrays).status == 200
        browser.post("done", {})

    assert [row.failure for row in visits(part, "webgpu", "wasm")] == [None, None]


def test_a_page_that_goes(visits: Visits) -> None:
    def part(browser: Browser) -> None:
        browser.plan()
        browser.post("checked", *checked(0, RUNS))
        browser.post("checked", *checked(1, [], error="It cannot."))
        browser.post("gone", {})

    first, second = visits(part, "wasm", "webgpu")
    assert first.failure is not None
    assert (first.failure.exit_code, first.failure.message) == (6, "the page was closed before it was done.")
    assert second.failure is not None
    assert "It cannot" in second.failure.message


def test_a_page_that_is_loaded_anew_has_not_gone(visits: Visits, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(visit, "RETURN_SECONDS", 5.0)

    def part(browser: Browser) -> None:
        browser.plan()
        browser.post("gone", {})
        play(browser, {0: ({}, 1.0)})

    assert visits(part, "wasm")[0].failure is None


def test_a_page_that_falls_silent(visits: Visits, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(visit, "ALIVE_SECONDS", 0.2)
    (row,) = visits(lambda browser: browser.plan() and None, "wasm")
    assert row.failure is not None
    assert "has not been heard of for 0 s" in row.failure.message


def test_a_page_that_never_ends(visits: Visits, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(visit, "LONGEST_SECONDS", 0.2)

    def part(browser: Browser) -> None:
        browser.plan()
        with suppress(OSError):  # once the server is gone
            while True:
                browser.post("alive", {"step": "still here"})

    (row,) = visits(part, "wasm")
    assert row.failure is not None
    assert "was not done after" in row.failure.message


def test_a_page_that_says_it_is_done_and_is_not(visits: Visits) -> None:
    def part(browser: Browser) -> None:
        browser.plan()
        browser.post("checked", *checked(0, RUNS))
        browser.post("done", {})

    for one in (part, lambda browser: browser.plan() and browser.post("done", {}) and None):
        (row,) = visits(one, "wasm")
        assert row.failure is not None
        assert "has not timed all" in row.failure.message


def test_nobody_comes(visits: Visits) -> None:
    rows = visits(None, wait=0.1)
    assert [row.device for row in rows] == [f"browser:{one}" for one in BACKENDS]
    for row in rows:
        assert row.failure is not None
        assert (row.failure.exit_code, row.failure.message) == (6, "no browser opened the page within 0.1 s.")


def test_a_page_from_another_machine_says_why_it_lacks_much(visits: Visits, monkeypatch: pytest.MonkeyPatch) -> None:
    from mh_edge.profiling.browser import browsing

    far = replace(browsing.address("127.0.0.1"), loopback=False)
    assert isinstance(far, Address)
    monkeypatch.setattr(browsing, "address", lambda host: far)
    rows = visits(lambda browser: play(browser, {0: ({}, 1.0)}))
    for row in rows[1:]:
        assert "browsers keep threads, WebGPU and WebNN from pages of plain http" in row.notes[0]
    assert ["adb reverse tcp:8000 tcp:8000" in " ".join(row.notes) for row in rows] == [False, False, False, True]
    (row,) = visits(lambda browser: play(browser, {}), "webgpu")
    assert row.failure is not None
    assert "adb reverse" in row.failure.hint


def test_a_file_that_the_page_does_not_take_is_no_harm_to_others(visits: Visits) -> None:
    other = replace(visits.case, artifact=visits.folder / "more" / "SQUARE.onnx")
    other.artifact.parent.mkdir(exist_ok=True)
    other.artifact.write_bytes(SQUARE_ONNX)
    asked = {Pair(one.artifact, "browser:wasm", True): one for one in (visits.case, other)}
    shown = Offer(
        settings={"node_modules": str(visits.modules)},
        on_address=lambda url, far: threading.Thread(target=play, args=[Browser(url), {0: ({}, 1.0)}]).start(),
    )
    ways: Any = {"threads": 1, "runs": None, "seconds": 0.1, "rtol": None, "fallback": False}
    found, noise = profile_in_browser(asked, shown, visits.folder / "two", **ways, on_step=lambda *told, **more: None)
    (first,), (second,) = found.values()
    assert (first.failure, noise) == (None, 1.02)
    assert second.failure is not None
    assert "a page holds one file of the name 'SQUARE.onnx'" in second.failure.message


def test_without_the_javascript_runtime(visits: Visits, tmp_path: Path) -> None:
    asked = {Pair(visits.case.artifact, "browser", True): visits.case}
    ways: Any = {"threads": 1, "runs": None, "seconds": 0.1, "rtol": None, "fallback": False}
    found, _ = profile_in_browser(
        asked,
        Offer(settings={"node_modules": str(tmp_path)}),
        tmp_path / "page",
        **ways,
        on_step=lambda *told, **more: None,
    )
    ((row,),) = found.values()
    assert row.failure is not None
    assert row.failure.exit_code == 6
    assert "npm install onnxruntime-web" in row.failure.hint
    assert "--device-option browser.node_modules=DIR" in row.failure.hint


def test_beside_other_devices(visits: Visits) -> None:
    """A whole profile: rows in the order asked for, the ratio of each to the first of its kind."""
    square = {"y": np.zeros(0, np.float32)}

    def part(url: str) -> None:
        browser = Browser(url)
        plan = browser.plan()
        told = json.loads(browser.ask("/bundle.json").body)["artifacts"][0]["golden"]
        content = browser.ask(f"/{told['path']}").body
        runs = []
        for one in (*told["cases"], told["cases"][0]):
            place = one["inputs"]["x"]
            x = np.frombuffer(content, np.float32, int(np.prod(place["shape"])), place["offset"]).reshape(
                place["shape"]
            )
            runs.append({"y": x * x})
        square.update(runs[0])
        browser.post("checked", *checked(plan["rows"][0]["row"], runs))
        browser.post("timed", *timed(0, runs[0], 3.0))
        browser.post("done", {})

    shown = Offer(
        on_address=lambda url, far: threading.Thread(target=part, args=[url]).start(),
    )
    found = mh_edge.profile(
        [visits.case.artifact], ["browser:wasm", "cpu"], runs=5, offer=shown,
        settings={"browser": {"node_modules": str(visits.modules)}},
    )  # fmt: skip
    browser, cpu = found.rows
    assert (browser.device, cpu.device, found.exit_code) == ("browser:wasm", "cpu", 0)
    assert square["y"].size
    assert browser.latency is not None
    assert browser.latency.p50 == pytest.approx(3.0)
    assert [row.ratio and row.ratio.ratio for row in (browser, cpu)] == [1.0, 1.0]
