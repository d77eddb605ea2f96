"""Devices: what works is proven, and what does not says what to do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from mh_edge import machine
from mh_edge.errors import UsageError


def test_the_embedded_models_square() -> None:
    values = np.array([0.5, -3.0], np.float32)
    assert machine._square_onnx(values) == [0.25, 9.0]
    assert machine._square_litert(values) == [0.25, 9.0]


def test_what_is_installed_here_works() -> None:
    found = machine.devices()
    assert [device.name for device in found.devices] == ["cpu", "litert"]
    for device in found.to_json()["devices"]:
        assert device["available"] is True
        assert device["version"][0].isdigit()
        assert (device["reason"], device["fix"]) == ("", "")


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(UsageError, match=r"'gpu' is not known. Known are cpu, litert"):
        machine.devices(["gpu"])


def patched(monkeypatch: pytest.MonkeyPatch, square: Callable[[Any], list[float]]) -> machine.Device:
    monkeypatch.setitem(machine._KNOWN, "cpu", machine._Known(("onnxruntime",), "cpu", square))
    (device,) = machine.devices(["cpu"]).devices
    assert not device.available
    assert device.version is not None
    return device


def test_a_wrong_answer_is_not_available(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "squares [3.0, -2.0] to [9.0, -4.0]" in patched(monkeypatch, lambda values: [9.0, -4.0]).reason


def test_whatever_a_broken_runtime_raises_is_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(values: Any) -> list[float]:
        raise ImportError("libfoo.so: cannot open shared object file\nmore")

    device = patched(monkeypatch, broken)
    assert device.reason == "ImportError: libfoo.so: cannot open shared object file"
    assert "pip install" in device.fix


def test_a_missing_package_has_the_pip_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "version", lambda name: None)
    (device,) = machine.devices(["litert"]).devices
    assert (device.available, device.reason, device.version) == (False, "not installed", None)
    assert device.fix == 'pip install "mh-edge[litert]"'


def test_two_packages_that_overwrite_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "version", lambda name: "1.31.1")
    (device,) = machine.devices(["cpu"]).devices
    assert not device.available
    assert "onnxruntime and onnxruntime-gpu are both installed" in device.reason
    assert device.fix.startswith("pip uninstall -y onnxruntime onnxruntime-gpu")
