"""What this machine can really run: each device proven by a one-node model with the right answer, not by a list of
names.

A package that is installed proves nothing: two packages can overwrite each other's files, a wheel can miss a library
of the system, a runtime can take the CPU instead. So a device is available only when it squared the numbers it was
given, and itself did it.
"""

from __future__ import annotations

import base64
import tempfile
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mh_edge.arrayfiles import read_npz
from mh_edge.errors import MhEdgeError, UnavailableError
from mh_edge.packages import pip_line, version
from mh_edge.runtimes import Session, adapter, known_devices
from mh_edge.runtimes.apart import Apart

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

AT_ONCE = 2
"""How many devices are tried at the same time."""


@dataclass(frozen=True)
class Device:
    """A place where models run. reason: why it is not available (empty when it is). fix: what to do about it."""

    name: str
    available: bool
    package: str
    version: str | None
    reason: str
    fix: str

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "available": self.available,
            "package": self.package,
            "version": self.version,
            "reason": self.reason,
            "fix": self.fix,
        }


@dataclass(frozen=True)
class Devices:
    """The answer of `devices`."""

    devices: tuple[Device, ...]

    def to_json(self) -> dict[str, Any]:
        return {"devices": [device.to_json() for device in self.devices]}


def devices(names: Iterable[str] = ()) -> Devices:
    """Try the named devices, or all that are known. Raises UsageError for an unknown name."""
    wanted = tuple(names) or known_devices()
    for name in wanted:
        adapter(name)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return Devices(tuple(pool.map(_tried, wanted)))


def _tried(name: str) -> Device:
    found = adapter(name)
    package, number = _installed(found)
    if number is None:
        return Device(name, False, package, None, "not installed", pip_line(found.extra))
    reason, fix = _square(found)
    return Device(name, not reason, package, number, reason, fix)


def _installed(found: type[Session]) -> tuple[str, str | None]:
    """The distribution that brings the device, and its version; None for one that is missing."""
    brings = next((name for name in found.packages if version(name) is not None), found.packages[0])
    if found.plugin is None or version(brings) is None:
        return brings, version(brings)
    return found.plugin, version(found.plugin)


def _square(found: type[Session]) -> tuple[str, str]:
    """Let the device square two numbers -> why that is not what it did, and what would mend it; nothing when it is."""
    import numpy as np

    again = f"{pip_line(found.extra)} --force-reinstall"
    with tempfile.TemporaryDirectory(prefix="mh-edge-") as folder, Apart(found.device) as session:
        kind = found.formats[0]
        model, feeds, outputs = (Path(folder, name) for name in (f"square.{kind}", "feeds.npz", "outputs.npz"))
        model.write_bytes(SQUARES[kind])
        np.savez(feeds, x=np.array(GIVEN, np.float32))
        try:
            session.open(model)
            session.run(feeds, outputs)
            placement = session.placement()
        except UnavailableError as error:
            return error.message, error.hint or again
        except MhEdgeError as error:
            return error.message, again
        got = [float(value) for value in read_npz(outputs)["y"]]
    if not placement.whole:
        others = ", ".join(sorted({one.where for one in placement.fallbacks})) or "something else"
        return f"the one-node model ran on {others} instead", again
    near = len(got) == len(EXPECTED) and all(abs(a - b) <= SLACK * b for a, b in zip(got, EXPECTED, strict=True))
    if not near:
        return f"it squares {list(GIVEN)} to {got}", again
    return "", ""
