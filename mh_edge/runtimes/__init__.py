"""One adapter per runtime and device: open a file there, run it on named arrays, tell where it really ran.

`adapter(name)` finds a device's adapter; `open_session(path)` opens a file on the plain CPU runtime of its format.
"""

from __future__ import annotations

import importlib
import inspect
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from mh_edge.errors import InputError, UsageError
from mh_edge.packages import version
from mh_edge.wording import said

if TYPE_CHECKING:
    from mh_edge.runtimes.base import Session

__all__ = ["BASELINE", "BUILT_IN", "DEVICES", "SUFFIXES", "adapter", "known_devices", "open_session", "plain_device"]

SUFFIXES = {".onnx": "onnx", ".tflite": "tflite"}
"""File suffix -> format."""

DEVICES = {
    "cpu": "mh_edge.runtimes.cpu:CpuSession",
    "cuda": "mh_edge.runtimes.cuda:CudaSession",
    "tensorrt": "mh_edge.runtimes.tensorrt:TensorRtSession",
    "openvino": "mh_edge.runtimes.openvino:OpenVinoSession",
    "webgpu": "mh_edge.runtimes.webgpu:WebGpuSession",
    "qnn": "mh_edge.runtimes.qnn:QnnSession",
    "coreml": "mh_edge.runtimes.coreml:CoreMlSession",
    "nnapi": "mh_edge.runtimes.nnapi:NnapiSession",
    "xnnpack-ort": "mh_edge.runtimes.xnnpack_ort:XnnpackOrtSession",
    "xnnpack": "mh_edge.runtimes.xnnpack:XnnpackSession",
    "litert-builtin": "mh_edge.runtimes.litert_builtin:LiteRtBuiltinSession",
    "litert-reference": "mh_edge.runtimes.litert_reference:LiteRtReferenceSession",
    "litert-gpu": "mh_edge.runtimes.litert_gpu:LiteRtGpuSession",
    "litert-npu": "mh_edge.runtimes.litert_npu:LiteRtNpuSession",
    "tflite-runtime": "mh_edge.runtimes.tflite_runtime:TfliteRuntimeSession",
    "tflite-micro": "mh_edge.runtimes.tflite_micro:MicroSession",
}
"""The devices that come with mh-edge -> module:Class of the adapter."""

BASELINE = "keras"
BASELINES = {BASELINE: "mh_edge.runtimes.keras:KerasSession"}
"""What devices are compared with, and is none."""

BUILT_IN = DEVICES | BASELINES

REFERENCES = {"onnx": ("cpu",), "tflite": ("litert-builtin", "tflite-runtime", "tflite-micro")}
"""The devices with whose numbers others are compared: of those that are installed the first. For TFLite it is the one
without a delegate.
"""

ENTRY_POINTS = "mh_edge.devices"
"""The group in which installed packages name further adapters: name of the device = module:Class."""


def known_devices() -> tuple[str, ...]:
    """Names of all devices: our own, then those that installed packages bring."""
    return tuple(dict.fromkeys((*DEVICES, *(entry.name for entry in metadata.entry_points(group=ENTRY_POINTS)))))


def announced_by(device: str) -> str:
    """The distribution that names the device among its entry points; "" for none."""
    found = (entry.dist for entry in metadata.entry_points(group=ENTRY_POINTS, name=device))
    return next((dist.name for dist in found if dist is not None), "")


def adapter(device: str) -> type[Session]:
    """The adapter of a device, which imports no runtime yet. That of an installed package may do anything as it is
    imported: `mh_edge.runtimes.description` looks at it in a process of its own.

    Raises UsageError for a name that is not known, InputError for an adapter of an installed package that cannot be
    imported, or is none.
    """
    if (place := BUILT_IN.get(device)) is not None:
        module, _, name = place.partition(":")
        found: type[Session] = vars(importlib.import_module(module))[name]
        return found
    for entry in metadata.entry_points(group=ENTRY_POINTS, name=device):
        return _installed(entry)
    raise UsageError(f"device {device!r} is not known.", f"Known are {', '.join(known_devices())}.")


def _installed(entry: metadata.EntryPoint) -> type[Session]:
    from mh_edge.runtimes.base import Session

    try:
        found = entry.load()
    except (Exception, SystemExit) as error:  # somebody else's code: it may raise anything, or leave
        raise _no_adapter(entry, f"cannot be imported: {type(error).__name__}: {said(error)}") from error
    if not (isinstance(found, type) and issubclass(found, Session)):
        raise _no_adapter(entry, "is no Session class")
    if unsaid := [name for name in ("device", "runtime", "formats", "packages", "extra") if not hasattr(found, name)]:
        raise _no_adapter(entry, f"does not say its {unsaid[0]!r}")
    if inspect.isabstract(found):
        raise _no_adapter(entry, f"does not implement {', '.join(sorted(found.__abstractmethods__))}")
    if found.device != entry.name:
        raise _no_adapter(entry, f"calls itself {found.device!r}")
    if not isinstance(found.packages, tuple) or not found.packages:
        raise _no_adapter(entry, f"names its packages as {found.packages!r}, not as a tuple of one or more")
    if not isinstance(found.formats, tuple) or not found.formats or set(found.formats) - set(SUFFIXES.values()):
        raise _no_adapter(
            entry, f"names its formats as {found.formats!r}, not as a tuple of {' or '.join(SUFFIXES.values())}"
        )
    return found


def _no_adapter(entry: metadata.EntryPoint, why: str) -> InputError:
    return InputError(f"the device {entry.name!r} is brought by {entry.value!r}, which {why}.")


def plain_device(path: Path) -> str:
    """The device that every artifact of the format runs on: "cpu" for .onnx, "xnnpack" for .tflite ("tflite-runtime"
    where ai-edge-litert is absent and that is here). Raises UsageError for another suffix.
    """
    kind = SUFFIXES.get(path.suffix.lower())
    if kind == "onnx":
        return "cpu"
    if kind == "tflite":
        old = version("ai-edge-litert") is None and version("tflite-runtime") is not None
        return "tflite-runtime" if old else "xnnpack"
    raise UsageError(f"{path} has the suffix {path.suffix!r}.", f"An artifact ends in {' or '.join(SUFFIXES)}.")


def open_session(path: str | Path, *, threads: int | None = None) -> Session:
    """A session of the plain CPU runtime of the file's format: ONNX Runtime for .onnx, LiteRT for .tflite. threads:
    None for the runtime's own choice.

    Raises UsageError for another suffix, InputError when the file cannot be read or run, UnavailableError when the
    runtime is not installed.
    """
    path = Path(path)
    return adapter(plain_device(path))(path, threads=threads)
