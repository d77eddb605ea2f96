"""Devices of an installed package, each broken in one way, which their package announces as any other does.

`installed(folder, monkeypatch)` makes the package known to this process, and to those that it starts.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from mh_edge.errors import UnavailableError
from mh_edge.runtimes.cpu import CpuSession
from mh_edge.runtimes.placement import Fallback, Placement

PACKAGE, VERSION = "mh-edge-fakes", "1.2"
TESTS = Path(__file__).parents[1]
UNNAMED_SIGNAL = 40


class Fake(CpuSession):
    """ONNX Runtime on the CPU under another name."""

    packages = (PACKAGE,)
    extra = ""


class GoodSession(Fake):
    """Nothing is wrong with it."""

    device = "fake-good"


class ZerosSession(Fake):
    """It says that all is well and returns zeros."""

    device = "fake-zeros"

    def _run(self, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
        return [np.zeros_like(array) for array in super()._run(feeds)]


class FallbackSession(Fake):
    """The first node of each operation but one runs elsewhere; the numbers are right."""

    device = "fake-fallback"

    def placement(self) -> Placement:
        nodes = super().placement().nodes
        gone = max(1, nodes // 2)
        fallback = Fallback("Softmax", gone, ("softmax",) * gone, "CPUExecutionProvider", "it knows no Softmax")
        return Placement(nodes, nodes - gone, int(nodes > gone), (fallback,), "its own word")


class CrashSession(Fake):
    """It ends the process when it runs."""

    device = "fake-crash"

    def _run(self, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
        del feeds
        os.write(2, b"fake: out of luck\n")
        os.abort()


class AbsentSession(Fake):
    """The machine lacks what it needs."""

    device = "fake-absent"

    @classmethod
    def load(cls) -> str:
        raise UnavailableError("there is no fake in this machine.", "buy one")


class HangingSession(Fake):
    """It never answers."""

    device = "fake-hanging"

    def _run(self, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
        del feeds
        time.sleep(600)
        raise AssertionError


class ForkingSession(Fake):
    """It crashes, and leaves a child that holds its pipes."""

    device = "fake-forking"

    def _run(self, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
        if os.fork() == 0:
            time.sleep(600)
        os.kill(os.getpid(), UNNAMED_SIGNAL)
        return super()._run(feeds)


class ReadingSession(Fake):
    """It reads what is none of its business."""

    device = "fake-reading"

    def _run(self, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
        assert os.read(0, 1) == b""
        return super()._run(feeds)


class ShoutingSession(Fake):
    """It raises what a terminal would obey."""

    device = "fake-shouting"

    def _run(self, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
        del feeds
        raise ValueError("\x1b[31mred\x07 " + 1000 * "x" + "\nmore")


class SilentSession(Fake):
    """It returns nothing."""

    device = "fake-silent"

    def _run(self, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
        del feeds
        return []


FAKES = {
    session.device: f"{__name__}:{session.__name__}"
    for session in (GoodSession, ZerosSession, FallbackSession, CrashSession, AbsentSession, HangingSession)
}
ODD = {
    session.device: f"{__name__}:{session.__name__}"
    for session in (ForkingSession, ReadingSession, ShoutingSession, SilentSession)
}
BROKEN = {"fake-broken": "mh_edge_fakes_not_there:Session", "fake-other": "pathlib:Path"}


def installed(folder: Path, monkeypatch: pytest.MonkeyPatch, *names: str) -> Sequence[str]:
    """Put a package that announces these devices, or all of FAKES, on the path -> their names."""
    known = FAKES | ODD | BROKEN
    names = names or tuple(FAKES)
    announced(folder, monkeypatch, {name: known[name] for name in names})
    return names


def announced(folder: Path, monkeypatch: pytest.MonkeyPatch, devices: Mapping[str, str]) -> None:
    """Put a package that announces these devices (name -> module:Class), and the modules in the folder, on the path."""
    info = folder / f"{PACKAGE.replace('-', '_')}-{VERSION}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {PACKAGE}\nVersion: {VERSION}\n")
    lines = [f"{name} = {place}" for name, place in devices.items()]
    (info / "entry_points.txt").write_text("\n".join(["[mh_edge.devices]", *lines, ""]))
    monkeypatch.syspath_prepend(str(folder))
    path = filter(None, (str(folder), str(TESTS), os.environ.get("PYTHONPATH")))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path))
