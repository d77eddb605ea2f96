"""How a page is offered to a browser: a program that is opened, an address that is shown, what makes no sense."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

import mh_edge
from mh_edge.commands import inviting
from mh_edge.errors import UnavailableError, UsageError
from mh_edge.machine import SQUARE_ONNX
from mh_edge.profiling.browser import Offer, chromium


@pytest.fixture
def square(tmp_path: Path) -> Path:
    path = tmp_path / "square.onnx"
    path.write_bytes(SQUARE_ONNX)
    return path


@pytest.mark.parametrize(
    ("devices", "offer", "words"),
    [
        (["browser:cuda"], None, "names no backend of browsers"),
        (["browser:"], None, "names no backend of browsers"),
        (["cpu"], Offer(port=80), "are for browsers, and none is named"),
        (["browser"], Offer(port=70_000), "--port is 70000"),
        (["browser"], Offer(wait=0.0), "--wait is 0"),
        (["browser"], Offer(host="no such host"), "--host 'no such host'"),
        (["browser"], Offer(program="firefox"), "--browser 'firefox' is not known"),
        (["browser"], Offer(program="./nothing"), "--browser './nothing' is no program"),
    ],
)
def test_wrong_usage(square: Path, devices: list[str], offer: Offer | None, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        mh_edge.profile([square], devices, offer=offer)


def test_settings_of_the_page(square: Path) -> None:
    with pytest.raises(UsageError, match="has no option 'speed'"):
        mh_edge.profile([square], ["browser:wasm"], settings={"browser": {"speed": "1"}})
    with pytest.raises(UsageError, match="is for a device that is not run"):
        mh_edge.profile([square], ["cpu"], settings={"browser": {"node_modules": "x"}})


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "browser"
    path.write_text("#!/bin/sh\necho 'cannot open display' >&2\nexit 7\n")
    path.chmod(0o755)
    return path


def test_a_browser_that_ends_at_once(script: Path) -> None:
    with chromium.opened(str(script), "http://127.0.0.1/") as running:
        folder = running._log.parent
        running._process.wait()
        with pytest.raises(UnavailableError, match=r"ended with 7 before the page was done: cannot open display"):
            running.require_running()
    assert not folder.exists()


def _runs(number: int) -> bool:
    try:
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_children_end_with_the_browser(script: Path) -> None:
    script.write_text("#!/bin/sh\nsleep 600 & echo $! > $HOME/child\nwait\n")
    with chromium.opened(str(script), "") as running:
        child = running._log.parent / "child"
        while not (child.exists() and child.read_text().strip()):
            running.require_running()
        number = int(child.read_text())
    until = time.monotonic() + 10
    while _runs(number) and time.monotonic() < until:  # the signal may still be on its way
        time.sleep(0.01)
    assert not _runs(number)
    assert not child.exists()


def test_where_names_are_long_its_folder_has_a_short_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Chromium ends at once where the path of its socket is too long."""
    long = tmp_path / ("x" * 60)
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    folder = chromium._folder()
    folder.rmdir()
    assert len(str(folder)) <= chromium.LONGEST_FOLDER
    assert not any(long.iterdir())


def test_no_browser_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(UnavailableError, match="none of chromium"):
        Offer(program="chromium").require_sense()


def test_an_address_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal:
        def isatty(self) -> bool:
            return True

    said: list[tuple[str, str]] = []

    def say(text: str, style: str = "") -> None:
        said.append((text, style))

    inviting.show_address(say, Terminal(), "http://127.0.0.1:1/?token=x", False)  # type: ignore[arg-type]
    assert [text for text, _ in said] == [
        "Open this address in a browser; it works once:\n  http://127.0.0.1:1/?token=x"
    ]
    monkeypatch.setitem(sys.modules, "segno", None)
    inviting.show_address(say, Terminal(), "http://10.0.0.7:1/?token=x", True)  # type: ignore[arg-type]
    assert "plain http" in said[-2][0]
    assert 'pip install "mh-edge[qr]"' in said[-1][0]


def test_modules_are_drawn_two_rows_a_line() -> None:
    assert inviting.drawn([[True, False, True], [True, True, False], [False, False, True]]) == "█▄▀\n  ▀"


def test_a_code_is_drawn() -> None:
    pytest.importorskip("segno")
    said: list[tuple[str, str]] = []

    class Terminal:
        def isatty(self) -> bool:
            return True

    def say(text: str, style: str = "") -> None:
        said.append((text, style))

    inviting.show_address(say, Terminal(), "http://192.168.100.100:65535/?token=" + "x" * 22, True)  # type: ignore[arg-type]
    code, style = said[-1]
    assert style == "black on white"
    assert len({len(line) for line in code.splitlines()}) == 1
    assert len(code.splitlines()) <= 22  # a terminal of 24 lines shows all of it


def test_a_browser_ends_with_us_even_where_we_are_killed(script: Path, tmp_path: Path) -> None:
    told = tmp_path / "told"
    script.write_text(f"#!/bin/sh\nsleep 600 &\necho $! $$ $HOME > {told}.part; mv {told}.part {told}\nwait\n")
    code = (
        "import sys, time; from mh_edge.profiling.browser import chromium\n"
        "with chromium.opened(sys.argv[1], ''):\n print(flush=True); time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(script)], stdout=subprocess.PIPE) as ours:
        assert ours.stdout is not None
        ours.stdout.readline()
        until = time.monotonic() + 10
        while not told.exists() and time.monotonic() < until:
            time.sleep(0.01)
        ours.kill()
    child, itself, folder = told.read_text().split()
    until = time.monotonic() + 10
    while (_runs(int(child)) or _runs(int(itself)) or Path(folder).exists()) and time.monotonic() < until:
        time.sleep(0.01)
    assert not _runs(int(child))
    assert not _runs(int(itself))
    assert not Path(folder).exists()
