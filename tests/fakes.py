"""Stand-ins for the slow parts of an export (Keras, converters, proof), so that its own promises are tested quickly."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from mh_edge import exporting
from mh_edge.artifact import Converted
from mh_edge.machine import SQUARE_ONNX, SQUARE_TFLITE
from mh_edge.signature import Signature, Tensor

SIGNATURE = Signature(
    (Tensor("a", "float32", ("batch", "a_sequence", 4)), Tensor("b", "float32", ("batch", "b_sequence", 4))),
    (Tensor("y", "float32", ("batch", "a_sequence", 4)),),
)

CONTENT = {"onnx": SQUARE_ONNX, "tflite": SQUARE_TFLITE}

WORST = {"feed": 3, "output": "y", "index": [0, 2], "expected": 1.0, "got": 2.0, "abs": 1.0, "rel": 1.0}


@dataclass
class FakeProgram:
    signature: Signature = SIGNATURE


@dataclass
class FakeCandidate:
    path: str
    passed: bool
    saved: str | None

    @property
    def reasons(self) -> tuple[str, ...]:
        return () if self.passed else (f"{self.path}: y[0, 2] is 2.0, expected 1.0.",)

    def to_json(self) -> dict[str, Any]:
        tolerance = {"abs": 1e-7, "rel": 1e-6}
        figures = {"passed": self.passed, "feeds": 9, "required_tolerance": tolerance, "worst": WORST}
        return {"path": self.path, **figures, "saved": self.saved, "repeat": self.saved}


class FakeVerification:
    """Equal unless the file's name is among `different`."""

    def __init__(self, paths: Sequence[Path], different: Sequence[str], failures: Path | None) -> None:
        self.candidates = tuple(
            FakeCandidate(str(path), path.name not in different, failures and str(failures / "feed.npz"))
            for path in paths
        )


class Fakes:
    """What the fakes were called with, and what they are to do."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, Signature, dict[str, Any]]] = []
        self.different: list[str] = []
        self.data: dict[str, bytes] = {}
        self.suffix: Mapping[str, bytes] = {}
        self.verified: list[list[str]] = []

    def convert(self, kind: str, program: FakeProgram, signature: Signature, **options: Any) -> Converted:
        self.calls.append((kind, signature, options))

        def save(path: Path) -> list[Path]:
            path.write_bytes(CONTENT[kind] + self.suffix.get(kind, b""))
            files = [path]
            for name, content in self.data.items() if kind == "onnx" else ():
                (path.parent / name).write_bytes(content)
                files.append(path.parent / name)
            return files

        return Converted(kind, options.get("opset"), signature, {"Rule": 2}, (), save)

    def verify(self, reference: Any, candidates: Sequence[Path], **options: Any) -> FakeVerification:
        self.verified.append([path.name for path in candidates])
        return FakeVerification(candidates, self.different, options["failures"])


def install(monkeypatch: pytest.MonkeyPatch) -> Fakes:
    """Put the fakes in place of the real things."""
    fakes = Fakes()
    packages: Mapping[str, str] = {kind: f"fake_converter_{kind}" for kind in CONTENT}

    def program(*args: Any) -> tuple[FakeProgram, tuple[str, ...]]:
        return FakeProgram(), ()

    for kind, package in packages.items():
        module = ModuleType(package)
        vars(module)["convert"] = lambda *args, kind=kind, **options: fakes.convert(kind, *args, **options)
        monkeypatch.setitem(sys.modules, package, module)
    verification = ModuleType("mh_edge.verification")
    vars(verification)["verify"] = fakes.verify
    monkeypatch.setitem(sys.modules, "mh_edge.verification", verification)
    monkeypatch.setattr(exporting, "FORMATS", packages)
    monkeypatch.setattr(exporting, "_program", program)
    return fakes
