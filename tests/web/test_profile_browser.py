"""`mh-edge profile --device browser --browser chromium`, for real: the page, its runtimes and Chromium. WebGPU runs on
the software Vulkan that Chromium brings.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import TensorProto, helper

import mh_edge
from mh_edge.machine import SQUARE_ONNX, SQUARE_TFLITE
from mh_edge.profiling.browser import Offer
from mh_edge.profiling.result import Profile
from web.browsing import Chromium

PACKAGES = {"browser": {"node_modules": str(Path(__file__).parent / "node_modules")}}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """square.onnx, square.tflite, and det.onnx: a square and a determinant, which WebGPU leaves to WebAssembly."""
    folder = tmp_path_factory.mktemp("files")
    nodes = [helper.make_node("Mul", ["x", "x"], ["s"]), helper.make_node("Det", ["s"], ["y"])]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 3])
    graph = helper.make_graph(nodes, "det", [x], [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), folder / "det.onnx")
    (folder / "square.onnx").write_bytes(SQUARE_ONNX)
    (folder / "square.tflite").write_bytes(SQUARE_TFLITE)
    return folder / "square.onnx", folder / "square.tflite", folder / "det.onnx"


@pytest.fixture(scope="module")
def found(files: tuple[Path, Path, Path]) -> Profile:
    """All files on all that Chromium has, beside this machine's CPU."""
    return mh_edge.profile(
        files, ["cpu", "xnnpack", "browser"], runs=50, offer=Offer(program="chromium"), settings=PACKAGES
    )


def test_every_backend_is_right_and_timed(found: Profile, files: tuple[Path, Path, Path]) -> None:
    rows = {(Path(row.artifact).name, row.device): row for row in found.rows}
    runtimes = {"square.onnx": "onnxruntime-web 1.30.0", "square.tflite": "@litertjs/core 2.5.3"}
    for name, runtime in runtimes.items():
        for backend in ("wasm", "wasm-threads", "webgpu"):
            row = rows[name, f"browser:{backend}"]
            assert row.failure is None, row.failure
            assert row.agreement is not None
            assert (row.agreement.equal, row.runtime) == (True, runtime)
            assert row.placement is not None
            assert row.placement.whole
            assert row.placement.proof
            assert row.latency is not None
            assert 0 < row.latency.interval[0] <= row.latency.interval[1]
            assert row.latency.calls >= 5
            assert row.load_ms
            assert row.first_ms
            assert row.ratio is not None
            assert row.notes[0].startswith("measured in Chrome ")
    assert "threads" in rows["square.onnx", "browser:wasm-threads"].notes[0]
    assert "whose times say nothing about a real one" in rows["square.onnx", "browser:webgpu"].notes[0]
    assert "the ratios of browsers are to this row" in rows["square.onnx", "browser:wasm"].notes[-1]
    assert rows["square.onnx", "browser:wasm"].ratio == rows["square.onnx", "cpu"].ratio


def test_what_this_chromium_lacks_is_said_and_no_failure(found: Profile) -> None:
    (row,) = (row for row in found.rows if row.artifact.endswith("square.onnx") and row.device == "browser:webnn")
    assert (row.failure, row.latency) == (None, None)
    assert "has no webnn here: " in row.notes[0]


def test_what_falls_back_is_not_timed(found: Profile) -> None:
    (row,) = (row for row in found.rows if row.artifact.endswith("det.onnx") and row.device == "browser:webgpu")
    assert row.failure is not None
    assert (row.failure.exit_code, found.exit_code) == (6, 6)
    assert "fell back from 'browser:webgpu'" in row.failure.message
    assert row.latency is None
    assert row.agreement is not None
    assert row.agreement.equal


def command(*words: str, **more: Any) -> subprocess.Popen[str]:
    line = [sys.executable, "-c", "import sys; from mh_edge.cli import main; sys.exit(main())", "profile", *words]
    option = f"browser.node_modules={PACKAGES['browser']['node_modules']}"
    return subprocess.Popen([*line, "--device-option", option], text=True, stderr=subprocess.PIPE, **more)


def leftovers(folder: Path) -> list[str]:
    """Processes that hold a path of this folder among their words, and what lies in it."""
    running = []
    for one in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = one.read_bytes()
        except OSError:
            continue  # has ended
        if str(folder).encode() in words:
            running.append(words.decode(errors="replace"))
    return running + [path.name for path in folder.iterdir() if path.name != ".ses"]  # ONNX Runtime leaves that


@pytest.fixture
def temporary() -> Iterator[Path]:
    """A folder for temporary files, whose name is as short as Chromium wants it."""
    with tempfile.TemporaryDirectory(prefix="t") as folder:
        yield Path(folder)


def test_the_command_leaves_nothing(files: tuple[Path, Path, Path], temporary: Path) -> None:
    words = [str(files[0]), "--device", "browser:wasm", "--browser", "chromium", "--runs", "10", "--json"]
    with command(*words, stdout=subprocess.PIPE, env=os.environ | {"TMPDIR": str(temporary)}) as done:
        said, complaints = done.communicate(timeout=240)
    assert (done.returncode, complaints) == (0, "")
    (row,) = json.loads(said)["results"]
    assert (row["device"], row["equal"], row["calls"] >= 10) == ("browser:wasm", True, True)
    assert leftovers(temporary) == []


def test_when_it_is_interrupted_it_leaves_nothing(files: tuple[Path, Path, Path], temporary: Path) -> None:
    words = [str(files[0]), "--device", "browser", "--browser", "chromium", "--seconds", "600", "-v"]
    with command(*words, stdout=subprocess.DEVNULL, env=os.environ | {"TMPDIR": str(temporary)}) as running:
        assert running.stderr is not None
        for line in running.stderr:
            if "timing square.onnx" in line:
                break
        running.send_signal(signal.SIGTERM)
        running.communicate(timeout=60)
    assert running.returncode == 128 + signal.SIGTERM
    assert leftovers(temporary) == []


def test_a_browser_that_is_ended(
    files: tuple[Path, Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script, number = tmp_path / "browser", tmp_path / "number"
    script.write_text(f'#!/bin/sh\necho $$ > {number}\nexec chromium "$@"\n')
    script.chmod(0o755)

    def step(words: str, done: int | None = None, total: int | None = None) -> None:
        if words.startswith("timing square.onnx on wasm"):
            os.kill(int(number.read_text()), signal.SIGKILL)

    (row,) = mh_edge.profile(
        files[:1], ["browser:wasm"], seconds=60, offer=Offer(program=str(script)), settings=PACKAGES, on_step=step
    ).rows
    assert row.failure is not None
    assert (row.failure.exit_code, "ended with -9 before the page was done" in row.failure.message) == (6, True)
    assert row.agreement is not None
    assert row.agreement.equal  # what was known stays


def test_an_address_that_is_opened_by_someone_else(files: tuple[Path, Path, Path], browser: Chromium) -> None:
    """What a user does; a second browser gets nothing, and the page that is closed ends it."""
    urls: list[str] = []
    rows: list[Any] = []
    offer = Offer(on_address=lambda url, far: urls.append(url))

    def run() -> None:
        rows.extend(mh_edge.profile(files[:1], ["browser:wasm"], seconds=60, offer=offer, settings=PACKAGES).rows)

    thread = threading.Thread(target=run)
    thread.start()
    while not urls:
        time.sleep(0.05)
    browser.open(urls[0])
    browser.page.wait_for_url("**/?profile")
    assert [one for one in browser.page.context.cookies() if one["httpOnly"] and one["sameSite"] == "Strict"]
    stranger = browser.page.context.browser
    assert stranger is not None
    other = stranger.new_context().new_page()
    answer = other.goto(urls[0])
    assert answer is not None
    assert (answer.status, "works once" in answer.text()) == (403, True)
    other.close()
    assert browser.complaints == []
    while "timing" not in browser.page.inner_text("body"):  # the policy of the page forbids Playwright's own waiting
        time.sleep(0.1)
    browser.open("about:blank")
    thread.join(60)
    (row,) = rows
    assert row.failure is not None
    assert row.failure.message == "the page was closed before it was done."
