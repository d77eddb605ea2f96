"""What native code prints on descriptor 2: its information and warnings are left out, everything else arrives."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import mh_edge
from mh_edge.quiet import LEVEL, quiet

ROOT = Path(mh_edge.__file__).parents[1]

NOISE = (
    "WARNING: All log messages before absl::InitializeLog() is called are written to STDERR",
    "I0000 00:00:1795429182.582452   28614 port.cc:153] oneDNN custom operations are on.",
    "To enable the following instructions: AVX2 FMA, in other operations, rebuild TensorFlow.",
    "W0000 00:00:1795429194.704883   28614 util.cc:163] Not handling type DT_DOUBLE",
    "2026-01-31 09:41:00.123456: I tensorflow/core/framework/local_rendezvous.cc:407] Local rendezvous is aborting",
    "INFO: Created TensorFlow Lite XNNPACK delegate for CPU.",
)
KEPT = (
    "E0000 00:00:1795429185.741127   28614 cuda_platform.cc:52] failed call to cuInit",
    "F0000 00:00:1795429185.741127   28614 array.cc:5] Check failed",
    "INFO: mine",
    "Information that begins with a capital I",
)


@pytest.fixture(autouse=True)
def usual_level(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(LEVEL, raising=False)


def native(*lines: str) -> None:
    os.write(2, "".join(f"{line}\n" for line in lines).encode())


def test_only_information_and_warnings_are_left_out(capfd: pytest.CaptureFixture[str]) -> None:
    with quiet():
        native(*NOISE, *KEPT)
    native("afterwards")
    assert capfd.readouterr().err.splitlines() == [*KEPT, "afterwards"]


def test_python_is_heard_at_once_and_before_native_lines() -> None:
    script = (
        "import os, sys, warnings\nfrom mh_edge.quiet import quiet\n"
        "with quiet():\n"
        "    os.write(2, b'native\\n')\n"
        "    print('python', file=sys.stderr)\n"
        "    warnings.warn('a warning')\n"
        "    print('out')\n"
    )
    environment = {name: value for name, value in os.environ.items() if name not in (LEVEL, "PYTHONWARNINGS")}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    first, *warned, last = done.stderr.splitlines()
    assert (first, last) == ("python", "native")
    assert "UserWarning: a warning" in warned[0]
    assert done.stdout == "out\n"


def test_what_is_raised_passes_and_takes_the_lines_along(capfd: pytest.CaptureFixture[str]) -> None:
    @quiet()
    def fails() -> None:
        native(NOISE[0], KEPT[0])
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fails()
    assert capfd.readouterr().err == f"{KEPT[0]}\n"


def test_a_level_below_fatal_shows_everything(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(LEVEL, "0")
    with quiet():
        native(*NOISE)
    assert capfd.readouterr().err.splitlines() == [*NOISE]
    assert os.environ[LEVEL] == "0"


def test_tensorflow_is_told_and_the_environment_left_as_it_was() -> None:
    with quiet():
        assert os.environ[LEVEL] == "3"
    assert LEVEL not in os.environ


def test_within_another_and_beside_one_in_another_thread(capfd: pytest.CaptureFixture[str]) -> None:
    entered, left = threading.Event(), threading.Event()

    @quiet()
    def other() -> None:
        entered.set()
        assert left.wait(60)

    thread = threading.Thread(target=other)
    thread.start()
    assert entered.wait(60)
    with quiet(), quiet():
        native(NOISE[0], KEPT[0])
    left.set()
    thread.join()
    native("afterwards")
    assert capfd.readouterr().err.splitlines() == [KEPT[0], "afterwards"]


def test_logging_that_began_before_is_not_lost(capfd: pytest.CaptureFixture[str]) -> None:
    handler = logging.StreamHandler()
    with quiet():
        handler.emit(logging.LogRecord("user", logging.INFO, "", 0, "logged", None, None))
    assert "logged" in capfd.readouterr().err


def test_a_closed_descriptor_is_no_reason_to_fail() -> None:
    script = "from mh_edge.quiet import quiet\nwith quiet():\n    print('done')\n"
    done = subprocess.run(
        ["bash", "-c", f'"{sys.executable}" -c "{script}" 2>&-'],
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if name != LEVEL},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    assert done.stdout == "done\n"


def test_a_logger_made_within_it_speaks_afterwards_too(capfd: pytest.CaptureFixture[str]) -> None:
    with quiet():
        handler = logging.StreamHandler()
    handler.emit(logging.LogRecord("mine", logging.WARNING, "", 0, "heard", None, None))
    assert capfd.readouterr().err == "heard\n"
