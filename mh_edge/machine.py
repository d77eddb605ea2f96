"""What this machine can really run: each device proven by a one-node model with the right answer, not by a list of
names.

A package that is installed proves nothing: two packages can overwrite each other's files, a wheel can miss a library
of the system. So a device is available only when it squared the numbers it was given.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mh_edge.errors import UsageError
from mh_edge.packages import pip_line, version

if TYPE_CHECKING:
    import numpy as np

GIVEN, EXPECTED = (3.0, -2.0), [9.0, 4.0]

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
    wanted = tuple(names) or tuple(_KNOWN)
    for name in wanted:
        if name not in _KNOWN:
            raise UsageError(f"device {name!r} is not known.", f"Known are {', '.join(_KNOWN)}.")
    return Devices(tuple(_tried(name) for name in wanted))


@dataclass(frozen=True)
class _Known:
    """How to try one device. packages: distributions that bring it, the usual one first. square: run SQUARE_* on
    `GIVEN`.
    """

    packages: tuple[str, ...]
    extra: str
    square: Callable[[np.ndarray], list[float]]


def _square_onnx(values: np.ndarray) -> list[float]:
    import onnxruntime

    session = onnxruntime.InferenceSession(SQUARE_ONNX, providers=["CPUExecutionProvider"])
    (result,) = session.run(None, {"x": values})
    return [float(value) for value in result]


def _square_litert(values: np.ndarray) -> list[float]:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=SQUARE_TFLITE)
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], values)
    interpreter.invoke()
    return [float(value) for value in interpreter.get_tensor(interpreter.get_output_details()[0]["index"])]


_KNOWN = {
    "cpu": _Known(("onnxruntime", "onnxruntime-gpu"), "cpu", _square_onnx),
    "litert": _Known(("ai-edge-litert",), "litert", _square_litert),
}


def _tried(name: str) -> Device:
    import numpy as np

    known = _KNOWN[name]
    installed = [package for package in known.packages if version(package) is not None]
    package = (installed or known.packages)[0]
    fix = pip_line(known.extra)
    if not installed:
        return Device(name, False, package, None, "not installed", fix)
    if len(installed) > 1:
        reason = f"{' and '.join(installed)} are both installed and overwrite each other's files"
        return Device(name, False, package, version(package), reason, f"pip uninstall -y {' '.join(installed)}; {fix}")
    try:
        got = known.square(np.array(GIVEN, np.float32))
    except Exception as error:  # noqa: BLE001 - whatever a broken runtime raises is the answer to the question
        summary = f"{type(error).__name__}: {error}".splitlines()[0]
        return Device(name, False, package, version(package), summary, f"{fix} --force-reinstall")
    if got != EXPECTED:
        return Device(
            name, False, package, version(package), f"it squares {list(GIVEN)} to {got}", f"{fix} --force-reinstall"
        )
    return Device(name, True, package, version(package), "", "")
