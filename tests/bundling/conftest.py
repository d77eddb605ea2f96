"""Bundles of the one-node models."""

from __future__ import annotations

from pathlib import Path

import pytest

from bundling.kit import Plain
from mh_edge.bundling import platform
from mh_edge.machine import SQUARE_ONNX, SQUARE_TFLITE


@pytest.fixture
def squares(tmp_path: Path) -> tuple[Path, Path]:
    """square.onnx and square.tflite."""
    paths = tmp_path / "square.onnx", tmp_path / "square.tflite"
    for path, content in zip(paths, (SQUARE_ONNX, SQUARE_TFLITE), strict=True):
        path.write_bytes(content)
    return paths


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of the tests' own platform."""
    monkeypatch.setitem(platform.PLATFORMS, Plain.name, f"{Plain.__module__}:{Plain.__name__}")
    return Plain.name
