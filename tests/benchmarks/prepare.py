"""Make and check every candidate of the grid in a cache folder; what is there already is not made again.

A candidate may be timed at a point only if its outputs there are those of Keras.
"""

from __future__ import annotations

import functools
import gc
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import mh_edge
from benchmarks.engines import ENGINES
from benchmarks.models import Model, Point
from benchmarks.peers import ONNX, OURS, TFLITE, Source, make_tflite

TOLERANCE = 1e-3
"""Allowed error, in units of the largest output: beside a mask of -10000 float32 is right to 5e-4 of a score."""

REASON_LENGTH = 220


@functools.cache
def converters_hash() -> str:
    """Of the sources that make our files: two results with one hash measured the same converters."""
    import mh_edge_onnx
    import mh_edge_tflite

    digest = hashlib.sha256()
    layers = Path(mh_edge.__file__).parent / "layers"
    files = [*Path(mh_edge.__file__).parent.glob("*.py"), *layers.glob("*.py")]
    for package in (mh_edge_onnx, mh_edge_tflite):
        files += Path(package.__file__).parent.rglob("*.py")
    for file in sorted(files):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:12]


def reason(error: Exception) -> str:
    """One line of what went wrong, without the folders of this machine."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    told = [line for line in lines if not line.startswith("Exception from")] or lines
    words = " ".join(told[:3]).replace("|", "/").split()
    shown = " ".join(word.rpartition("/")[2] if word.count("/") > 1 else word for word in words)
    return f"{type(error).__name__}: {shown}"[:REASON_LENGTH]


def check(expected: Sequence[np.ndarray], outputs: Sequence[Any]) -> str | None:
    """Why these are not the expected outputs, or None."""
    if len(expected) != len(outputs):
        return f"{len(outputs)} outputs instead of {len(expected)}"
    for right, output in zip(expected, outputs, strict=True):
        got = np.asarray(output)
        if right.shape != got.shape:
            return f"the shape {got.shape} instead of {right.shape}"
        error = np.abs(right - got).max() / np.abs(right).max()
        if not error <= TOLERANCE:
            return f"wrong by {error:.2g} of the largest output"
    return None


def _is_ours(key: str) -> bool:
    return key.removeprefix("tflite ").split()[0] in OURS


class Preparation:
    """The candidates of one model. meta.json holds for each its file, engine, error, and the check of each point."""

    def __init__(self, model: Model, cache: Path) -> None:
        self.model = model
        self.folder = cache / model.folder
        self.folder.mkdir(parents=True, exist_ok=True)
        self.source = Source(model, self.folder)
        self._meta = self.folder / "meta.json"
        self.meta: dict[str, Any] = json.loads(self._meta.read_text()) if self._meta.exists() else {}
        self._expected: dict[Point, list[np.ndarray]] = {}

    def run(self, fresh: bool = False, only: Sequence[str] = ()) -> None:
        """Make what is missing. fresh: and ours if the converters have changed. only: these candidates alone."""
        for candidate in ONNX:
            if only and candidate.name not in only:
                continue
            if candidate.takes(self.model) and self._missing(candidate.name, fresh):
                path = self.folder / f"{candidate.name}{candidate.suffix}"
                points = {point.label: point for point in self.model.points}
                self._make(candidate.name, candidate.engine, path, points, candidate.make, self.source, path)
        for point in self.model.tflite if not only or "tflite" in only else ():
            for name in TFLITE:
                key = f"tflite {name} {point.label}"
                if (name != "branches" or self.model.branches) and self._missing(key, fresh):
                    path = self.folder / f"{name}-{point.time}-{point.batch}.tflite"
                    self._make(key, "litert", path, {point.label: point}, make_tflite, name, self.source, point, path)

    def _missing(self, key: str, fresh: bool) -> bool:
        made = self.meta.get(key)
        return made is None or (fresh and _is_ours(key) and made.get("converters") != converters_hash())

    def _make(self, key: str, engine: str, path: Path, points: dict[str, Point], make: Any, *arguments: Any) -> None:
        path.unlink(missing_ok=True)
        entry: dict[str, Any] = {"file": path.name, "engine": engine, "error": None, "points": {}}
        try:
            make(*arguments)
        except Exception as error:  # noqa: BLE001 - whatever a tool raises is what the table says of it
            entry["error"] = reason(error)
        else:
            entry["points"] = self._checked(engine, path, points)
        if _is_ours(key):
            entry["converters"] = converters_hash()
        self.meta[key] = entry
        self._meta.write_text(json.dumps(self.meta, indent=1))
        gc.collect()

    def _checked(self, engine: str, path: Path, points: dict[str, Point]) -> dict[str, str | None]:
        """label -> None where the candidate may be timed, else why not."""
        try:
            bind = ENGINES[engine](self.model, path, 1)
        except Exception as error:  # noqa: BLE001 - see above
            return dict.fromkeys(points, reason(error))
        found: dict[str, str | None] = {}
        for label, point in points.items():
            try:
                outputs = bind(self.model.feeds(point))()
                again = bind(self.model.feeds(point))()
            except Exception as error:  # noqa: BLE001 - see above
                found[label] = reason(error)
                continue
            expected = [] if engine == "floor" else self._truth(point)
            found[label] = None if engine == "floor" else check(expected, outputs) or self._second(expected, again)
        return found

    def _second(self, expected: Sequence[np.ndarray], outputs: Sequence[Any]) -> str | None:
        found = check(expected, outputs)
        return found and f"the second call: {found}"

    def _truth(self, point: Point) -> list[np.ndarray]:
        if point not in self._expected:
            outputs = self.source.keras_model(list(self.model.feeds(point).values()))
            self._expected[point] = [np.asarray(outputs)]
        return self._expected[point]
