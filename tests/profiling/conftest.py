"""Fixtures of tests of Android devices."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mh_edge.machine import SQUARE_ONNX, SQUARE_TFLITE
from mh_edge.profiling import android
from mh_edge.profiling.result import Row
from profiling.fake_adb import Fake
from profiling.phones import CPU_TEXT, TABLE, X, case


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fake:
    fake = Fake(tmp_path / "phone")
    monkeypatch.setenv("PATH", str(fake.path), prepend=":")
    monkeypatch.delenv("ANDROID_SERIAL", raising=False)
    fake.says(timed=CPU_TEXT, ops=TABLE)
    return fake


@pytest.fixture
def profiled(tmp_path: Path) -> Callable[..., Row]:
    """Profile the square of a vector, in the format asked for."""
    binary = tmp_path / "my benchmark"
    binary.write_bytes(android.MAGIC + b"of some phone")
    (tmp_path / "a model's.tflite").write_bytes(SQUARE_TFLITE)
    (tmp_path / "a model's.onnx").write_bytes(SQUARE_ONNX)

    def profile(kind: str = "tflite", serial: str | None = None, **asked: Any) -> Row:
        known = case(tmp_path / f"a model's.{kind}", {"x": X}, asked.pop("sizes", {}))
        settings: dict[str, Any] = {"threads": 2, "runs": None, "seconds": 5.0} | asked
        return android.profile_on_android(known, serial, binary, **settings)

    return profile
