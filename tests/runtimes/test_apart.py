"""Devices in processes of their own: whatever one does, the others go on, and nothing is left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import mh_edge
from mh_edge import machine
from mh_edge.errors import InputError, UnavailableError
from mh_edge.profiling import measuring, profiling
from mh_edge.profiling.plan import pairs
from mh_edge.runtimes import apart, description
from mh_edge.runtimes.apart import Apart, CrashError
from mh_edge.runtimes.base import LONGEST, first_line
from mh_edge.runtimes.description import described
from mh_edge.runtimes.ort import wheels
from runtimes import fake_devices

SOON = 30.0
"""Seconds in which a process that was told to end has ended."""

OPENED = """
import os, sys
from pathlib import Path
from mh_edge.runtimes.apart import Apart
session = Apart("fake-hanging")
session.open(Path(sys.argv[1]))
print(session._process.pid, flush=True)
session.run(Path(sys.argv[2]), Path(sys.argv[2]))
"""

WATCHED = """
import os, sys, time
sys.platform = "another"
from mh_edge.runtimes.worker import end_with
if os.fork():
    time.sleep(600)
end_with(os.getppid())
print(os.getpid(), flush=True)
time.sleep(600)
"""


@pytest.fixture
def square(tmp_path: Path) -> tuple[Path, Path]:
    """A model and its feeds."""
    model, feeds = tmp_path / "square.onnx", tmp_path / "feeds.npz"
    model.write_bytes(machine.SQUARE_ONNX)
    np.savez(feeds, x=np.array([3.0, -2.0], np.float32))
    return model, feeds


def run(device: str, square: tuple[Path, Path], patience: float | None = None) -> Path:
    model, feeds = square
    with Apart(device, patience=patience) as session:
        session.open(model)
        session.run(feeds, feeds.with_name("outputs.npz"))
    return feeds.with_name("outputs.npz")


def ends(process: int) -> bool:
    """Whether no such process runs, soon."""
    until = time.monotonic() + SOON
    while Path(f"/proc/{process}").exists() and _state(process) != "Z":
        if time.monotonic() > until:
            return False
        time.sleep(0.05)
    return True


def _state(process: int) -> str:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return "Z"


@pytest.mark.parametrize(
    ("device", "kind", "message"),
    [
        ("fake-hanging", CrashError, r"'fake-hanging' has not answered within 2 s\.$"),
        ("fake-forking", CrashError, "was ended by signal 40, without a word$"),
        ("fake-shouting", UnavailableError, r"the device 'fake-shouting' failed: ValueError: red  x{100,500} \.\.\.$"),
        ("fake-silent", InputError, r"'fake-silent' gave 0 outputs for .*, whose signature has 1\.$"),
    ],
)
def test_what_a_device_does_wrong_is_a_sentence(
    device: str,
    kind: type[Exception],
    message: str,
    square: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fake_devices.installed(tmp_path, monkeypatch, device)
    with pytest.raises(kind, match=message):
        run(device, square, 2.0 if device == "fake-hanging" else None)


def test_the_requests_are_not_a_devices_to_read(
    square: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_devices.installed(tmp_path, monkeypatch, "fake-reading")
    with np.load(run("fake-reading", square)) as outputs:
        np.testing.assert_array_equal(outputs["y"], [9.0, 4.0])


def test_calls_are_waited_for_as_long_as_they_take(square: tuple[Path, Path]) -> None:
    model, feeds = square
    with Apart("cpu") as session:
        session.open(model)
        session.prepare(feeds)
        session._patience, session._seconds = 0.0, 1.0
        assert len(session.calls(50_000)) == 50_000
        session._seconds = 0.0
        with pytest.raises(CrashError, match="has not answered within 0 s"):
            session.calls(10_000_000)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="processes are looked up in /proc")
@pytest.mark.parametrize("program", [OPENED, WATCHED], ids=["by the system", "by looking"])
def test_a_process_does_not_outlive_a_killed_parent(
    program: str, square: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_devices.installed(tmp_path, monkeypatch, "fake-hanging")
    root = str(Path(mh_edge.__file__).parents[1])
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([root, os.environ["PYTHONPATH"]]))
    with subprocess.Popen(
        [sys.executable, "-c", program, *map(str, square)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as parent:
        assert parent.stdout is not None
        worker = int(parent.stdout.readline())
        os.kill(worker, 0)
        parent.kill()
        parent.wait()
        if not ends(worker):
            os.kill(worker, signal.SIGKILL)
            pytest.fail("the worker lives on")


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, SystemExit])
def test_devices_ends_its_processes_when_it_is_interrupted(
    interruption: type[BaseException], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_devices.installed(tmp_path, monkeypatch, "fake-good", "fake-hanging")
    started: list[Apart] = []

    class Noted(Apart):
        def __init__(self, device: str, *, early: bool = True, patience: float | None = None) -> None:
            super().__init__(device, early=early, patience=patience)
            started.append(self)

    def interrupt(step: str, done: int | None = None, total: int | None = None) -> None:
        raise interruption

    monkeypatch.setattr(machine, "Apart", Noted)
    monkeypatch.setattr(machine, "PATIENCE", 600.0)
    with pytest.raises(interruption):
        machine.devices(["fake-good", "fake-hanging", "fake-hanging"], interrupt)
    assert {session.device for session in started} == {"fake-good", "fake-hanging"}
    assert all(session._process.poll() is not None for session in started)


ADAPTER = (
    "from mh_edge.runtimes.cpu import CpuSession\nclass S(CpuSession):\n    device, packages, extra = {}\n    {}\n"
)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("import os; os._exit(0)", "was ended with exit code 0, without a word"),
        ("import os; os.abort()", "was ended by SIGABRT"),
        ("import time; time.sleep(600)", "has not answered within 2 s"),
        ("raise KeyboardInterrupt", "was ended by SIGINT: KeyboardInterrupt"),
        ("raise ValueError('bad wheel')", "cannot be imported: ValueError: bad wheel"),
        ("from mh_edge.runtimes.base import Session as S", "does not say its 'device'"),
        (ADAPTER.format("'odd', (), ''", ""), r"names its packages as \(\), not as a tuple of one or more"),
        (ADAPTER.format("'other', ('p',), ''", ""), "calls itself 'other'"),
        (ADAPTER.format("'odd', ('p',), ''", "formats = ('pt',)"), r"names its formats as \('pt',\)"),
    ],
)
def test_an_adapter_that_breaks_is_named_with_its_package(
    source: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mh_edge_odd.py").write_text(source)
    fake_devices.announced(tmp_path, monkeypatch, {"odd": "mh_edge_odd:S"})
    if "sleep" in source:
        monkeypatch.setattr(description, "PATIENCE", 2.0)
    with pytest.raises(UnavailableError, match=f"{message}.*; the package 'mh-edge-fakes' brings it") as found:
        described("odd")
    assert found.value.hint == "pip install --force-reinstall mh-edge-fakes"
    assert "mh_edge_odd" not in sys.modules


def test_a_broken_adapter_is_a_row_and_the_others_are_measured(
    square: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mh_edge_odd.py").write_text("import os; os._exit(0)")
    fake_devices.announced(tmp_path, monkeypatch, {"odd": "mh_edge_odd:S"})
    for module in (measuring, profiling):
        monkeypatch.setattr(module, "OPENINGS", 2)
    good, odd = mh_edge.profile([square[0]], ["cpu", "odd"], seconds=0.01).rows
    assert (good.failure, odd.latency) == (None, None)
    assert good.latency is not None
    assert odd.failure is not None
    assert (odd.failure.kind, odd.failure.exit_code) == ("unavailable", 6)


@pytest.mark.parametrize("device", ["cpu", "cuda", "openvino"])
def test_where_nothing_is_installed_the_line_is_that_of_the_device(
    device: str, square: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (description, wheels):
        monkeypatch.setattr(module, "version", lambda name: None)
    (pair,) = pairs([square[0]], [device])
    assert pair.broken is not None
    assert pair.broken.hint == f'pip install "mh-edge[{device}]"'


def test_a_name_that_is_no_text_goes_to_the_process_and_back() -> None:
    name = os.fsdecode(b"/nowhere/\xff.onnx")
    with Apart("cpu") as session, pytest.raises(InputError) as found:
        session.open(Path(name))
    assert name in found.value.message


def test_other_programs_words_are_cut_and_plain() -> None:
    assert first_line("\r\n\x1b]0;title\x07\x1b[1;31m one\x00two\nthree") == "one two"
    assert len(first_line(LONGEST * 2 * "x")) < LONGEST + 10
    assert first_line(ValueError("")) == "ValueError"


def test_a_file_whose_name_is_no_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"\xff.onnx")
    path.write_bytes(machine.SQUARE_ONNX)
    with Apart("cpu") as session, pytest.raises(InputError, match="is not UTF-8"):
        session.open(path)


def test_a_process_that_was_begun_is_taken_over_once_and_a_rest_is_ended() -> None:
    with apart.begun("cpu"):
        process, _ = apart._begun["cpu"]
        with Apart("cpu") as first, Apart("cpu") as second:
            assert first._process is process
            assert second._process is not process
            assert first.load().startswith("ONNX Runtime ")
    with apart.begun("cpu"):
        process, _ = apart._begun["cpu"]
    assert process.poll() is not None
    assert not apart._begun
