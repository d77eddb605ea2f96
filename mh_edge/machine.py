"""What this machine can really run: each device proven by a one-node model with the right answer, not by a list of
names.

A package that is installed proves nothing: two packages can overwrite each other's files, a wheel can miss a library
of the system, a runtime can take the CPU instead. So a device is available only when it squared the numbers it was
given, and itself did it.
"""

from __future__ import annotations

import base64
import os
import tempfile
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mh_edge.arrayfiles import read_npz
from mh_edge.errors import MhEdgeError, UnavailableError, UsageError
from mh_edge.packages import version
from mh_edge.progress import Progress, silent
from mh_edge.runtimes import announced_by, known_devices
from mh_edge.runtimes.apart import Apart
from mh_edge.runtimes.description import Description, described

GIVEN, EXPECTED = (3.0, -2.0), [9.0, 4.0]
SLACK = 1e-3  # an ulp of float16, in which some devices compute

# y = x * x on two floats. The first was written with onnx.helper (opset 17, ir_version 8), the second with the
# generated classes of TFLite's schema (one MUL); both are plain flat data of those formats.
SQUARE_ONNX = base64.b64decode(
    "CAgSB21oLWVkZ2U6OgoOCgF4CgF4EgF5IgNNdWwSBnNxdWFyZVoPCgF4EgoKCAgBEgQKAggCYg8KAXkSCgoICAESBAoCCAJCBAoAEBE="
)
SQUARE_TFLITE = base64.b64decode(
    "CAAAAFRGTDPG////FAAAABwAAAAkAAAABAEAAAMAAAABAAAABAAAAIj///8GAAAAc3F1YXJlAAABAAAAFAAAAAAADgAYABQAEAAMAAgABAAOAAAA"
    "FAAAABwAAABgAAAAZAAAAGgAAAAEAAAAbWFpbgAAAAABAAAAFAAAAAAADgAUAAAAEAAMAAsABAAOAAAAFAAAAAAAABUQAAAAFAAAAAQABAAEAAAA"
    "AQAAAAEAAAACAAAAAAAAAAAAAAABAAAAAQAAAAEAAAAAAAAAAgAAADAAAAAEAAAA5P///wgAAAAMAAAAAQAAAHkAAAABAAAAAgAAAAwADAAIAAAA"
    "AAAEAAwAAAAIAAAADAAAAAEAAAB4AAAAAQAAAAIAAAABAAAAEAAAAAwADAALAAAAAAAEAAwAAAASAAAAAAAAEg=="
)

SQUARES = {"onnx": SQUARE_ONNX, "tflite": SQUARE_TFLITE}

AT_ONCE = max(2, min(8, os.cpu_count() or 2))
"""How many devices are tried at the same time: most of the time a processor imports a runtime."""

PATIENCE = 60.0
"""Seconds after which a device that has not answered is said not to work: compiling a kernel for a GPU takes some."""


@dataclass(frozen=True)
class Device:
    """A place where models run. reason: why it is not available (empty when it is). fix: what to do about it. notes:
    what else must be known of one that is ("a software GPU on the CPU ...").
    """

    name: str
    available: bool
    package: str
    version: str | None
    reason: str
    fix: str
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "available": self.available,
            "package": self.package,
            "version": self.version,
            "reason": self.reason,
            "fix": self.fix,
            "notes": list(self.notes),
        }


@dataclass(frozen=True)
class Devices:
    """The answer of `devices`."""

    devices: tuple[Device, ...]

    def to_json(self) -> dict[str, Any]:
        return {"devices": [device.to_json() for device in self.devices]}


def devices(names: Iterable[str] = (), progress: Progress = silent) -> Devices:
    """Try the named devices, or all that are known. Raises UsageError for an unknown name."""
    known = known_devices()
    wanted = tuple(names) or known
    if unknown := [name for name in wanted if name not in known]:
        raise UsageError(f"device {unknown[0]!r} is not known.", f"Known are {', '.join(known)}.")
    found: list[Device] = []
    processes = _Processes()
    pool = ThreadPoolExecutor(AT_ONCE)
    try:
        for name, device in zip(wanted, pool.map(lambda name: _tried(name, processes), wanted), strict=True):
            found.append(device)
            progress(f"tried {name}", len(found), len(wanted))
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        processes.end()  # where this was interrupted, some hang
        pool.shutdown()
    return Devices(tuple(found))


class _Processes:
    """Those of the devices that are being tried. After `end` there are none, and no new one begins."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._live: set[Apart] = set()
        self._over = False

    @contextmanager
    def start(self, device: str, *, early: bool = False) -> Iterator[Apart]:
        """A device's process. Raises UnavailableError once all were ended."""
        with self._lock:
            if self._over:
                raise UnavailableError("no more devices are tried.")
            session = Apart(device, early=early, patience=PATIENCE)
            self._live.add(session)
        try:
            with session:
                yield session
        finally:
            with self._lock:
                self._live.discard(session)

    def end(self) -> None:
        """End them, so that whoever waits for one goes on."""
        with self._lock:
            self._over = True
            for session in self._live:
                session.kill()


def _tried(name: str, processes: _Processes) -> Device:
    try:
        found = described(name, processes.start)
    except UnavailableError as error:  # an adapter of another package
        package = announced_by(name)
        return Device(name, False, package, version(package), error.message.rstrip("."), error.hint)
    package, number = found.brought_by()
    if number is None:
        return Device(name, False, package, None, "not installed", found.install)
    again = f"pip install --force-reinstall {package}"
    notes: tuple[str, ...] = ()
    try:
        reason, notes = _square(found, processes)
        fix = again
    except UnavailableError as error:
        reason, fix = error.message, error.hint or again
    except MhEdgeError as error:
        reason, fix = error.message, again
    return Device(name, not reason, package, number, reason.rstrip("."), fix.rstrip(".") if reason else "", notes)


def _square(found: Description, processes: _Processes) -> tuple[str, tuple[str, ...]]:
    """Let the device square two numbers -> why that is not what it did, nothing when it is; its notes. Raises what its
    session raises.
    """
    import numpy as np

    with (
        tempfile.TemporaryDirectory(prefix="mh-edge-") as folder,
        processes.start(found.device, early=True) as session,
    ):
        kind = found.formats[0]
        model, feeds, outputs = (Path(folder, name) for name in (f"square.{kind}", "feeds.npz", "outputs.npz"))
        model.write_bytes(SQUARES[kind])
        np.savez(feeds, x=np.array(GIVEN, np.float32))
        notes = session.open(model).notes
        session.run(feeds, outputs)
        placement = session.placement()
        got = [float(value) for value in read_npz(outputs)["y"].ravel()]
    if not placement.whole:
        others = ", ".join(sorted({one.where for one in placement.fallbacks})) or "something else"
        return f"the one-node model ran on {others} instead", ()
    near = len(got) == len(EXPECTED) and all(abs(a - b) <= SLACK * b for a, b in zip(got, EXPECTED, strict=True))
    return ("", notes) if near else (f"it squares {list(GIVEN)} to {got}", ())
