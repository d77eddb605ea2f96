"""One adapter per runtime: load a file, run it on named arrays. `open_session(path)` picks the adapter by the file's
suffix.
"""

from __future__ import annotations

from pathlib import Path

from mh_edge.errors import UsageError
from mh_edge.runtimes.base import Session

__all__ = ["SUFFIXES", "Session", "open_session"]

SUFFIXES = {".onnx": "onnx", ".tflite": "tflite"}
"""File suffix -> format."""


def open_session(path: str | Path, *, threads: int | None = None) -> Session:
    """A session of the plain CPU runtime of the file's format: ONNX Runtime for .onnx, LiteRT for .tflite. threads:
    None for the runtime's own choice.

    Raises UsageError for another suffix, InputError when the file cannot be read or run, UnavailableError when the
    runtime is not installed.
    """
    path = Path(path)
    kind = SUFFIXES.get(path.suffix.lower())
    if kind == "onnx":
        from mh_edge.runtimes.cpu import CpuSession

        return CpuSession(path, threads=threads)
    if kind == "tflite":
        from mh_edge.runtimes.litert import LiteRtSession

        return LiteRtSession(path, threads=threads)
    raise UsageError(f"{path} has the suffix {path.suffix!r}.", f"An artifact ends in {' or '.join(SUFFIXES)}.")
