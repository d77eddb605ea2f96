"""forecast(path): what each mobile delegate would take of a model file, without the device.

It is a forecast: nothing is measured, and each one names its basis. `mh-edge profile` measures where a device is here.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from mh_edge.artifact import read_manifest
from mh_edge.errors import UsageError
from mh_edge.forecast import coreml, litert_gpu, nnapi, onnxgraph, qnn, tflitegraph, xnnpack
from mh_edge.forecast.delegate import Delegate
from mh_edge.forecast.result import Forecast
from mh_edge.inspection import inspect

MODULES = (nnapi, coreml, xnnpack, litert_gpu, qnn)
"""Each file with its `DELEGATES`; a delegate is added by its file and its name here."""

_READERS = {"onnx": onnxgraph.read, "tflite": tflitegraph.read}


def delegates() -> tuple[Delegate, ...]:
    """All that are known, a delegate once for each format."""
    return tuple(delegate for module in MODULES for delegate in module.DELEGATES)


def forecast(path: str | Path, names: Iterable[str] = ()) -> dict[str, Forecast]:
    """Delegate -> its forecast for an .onnx or .tflite file, in the order of MODULES.

    names: only these; without any, all that take the format (see `inapplicable` for the others). Raises InputError for
    a file that cannot be read, UnavailableError when the format's packages are not installed, UsageError for a name
    that is unknown or does not take the format.
    """
    path, names = Path(path), tuple(names)
    found = inspect(path)
    known = [delegate for delegate in delegates() if delegate.format == found.format]
    for name in names:
        _require(name, known, found.format)
    ours = bool(found.rules) or read_manifest(path, found.sha256) is not None
    graph = _READERS[found.format](path, found.signature, ours)
    return {
        delegate.name: delegate.predict(graph)
        for delegate in known
        if not isinstance(delegate.predict, str) and (not names or delegate.name in names)
    }


def inapplicable(kind: str) -> dict[str, str]:
    """Delegate -> the sentence why it takes no files of this format ("onnx", "tflite")."""
    return {one.name: one.predict for one in delegates() if one.format == kind and isinstance(one.predict, str)}


def _require(name: str, known: list[Delegate], kind: str) -> None:
    takes = [delegate.name for delegate in known if not isinstance(delegate.predict, str)]
    if name not in takes:
        why = inapplicable(kind).get(name, f"there is no forecast of .{kind} files for {name!r}.")
        raise UsageError(why, f"There is one for {', '.join(takes)}.")
