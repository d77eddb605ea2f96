"""Devices: what works is proven, and what does not says what to do."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from mh_edge import machine
from mh_edge.commands.devices import devices as command
from mh_edge.errors import UsageError
from mh_edge.packages import version
from mh_edge.runtimes import DEVICES, adapter, description
from runtimes import fake_devices

WORKING = ("cpu", "xnnpack", "litert-builtin", "litert-reference", "tflite-micro")


def tried(name: str) -> machine.Device:
    (found,) = machine.devices([name]).devices
    assert found.name == name
    return found


@pytest.mark.parametrize("name", ["cpu", "litert-reference"])
def test_the_embedded_models_square(name: str, tmp_path: Path) -> None:
    session = adapter(name)
    (kind,) = session.formats
    path = tmp_path / f"square.{kind}"
    path.write_bytes(machine.SQUARES[kind])
    with session(path) as opened:
        np.testing.assert_array_equal(opened.run({"x": np.array([0.5, -3.0], np.float32)})["y"], [0.25, 9.0])


def test_every_device_is_tried_and_says_what_would_mend_it() -> None:
    steps: list[tuple[str, int | None, int | None]] = []
    found = machine.devices(progress=lambda *step: steps.append(step))
    assert [device.name for device in found.devices][: len(DEVICES)] == list(DEVICES)
    assert steps[-1][1:] == (len(found.devices), len(found.devices))
    for device in found.devices:
        if device.name in WORKING:
            assert device.available, device
        assert device.available == (not device.reason) == (not device.fix), device
        assert device.package


def test_what_works_has_a_version() -> None:
    assert tried("cpu") == machine.Device("cpu", True, "onnxruntime", version("onnxruntime"), "", "")


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(UsageError, match=r"'gpu' is not known. Known are cpu, cuda,"):
        machine.devices(["cpu", "gpu"])


def test_a_missing_package_has_the_pip_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(description, "version", lambda name: None)
    assert tried("xnnpack") == machine.Device(
        "xnnpack", False, "ai-edge-litert", None, "not installed", 'pip install "mh-edge[litert]"'
    )


@pytest.mark.parametrize(
    ("name", "reason", "fix"),
    [
        ("fake-good", "", ""),
        ("fake-zeros", "it squares [3.0, -2.0] to [0.0, 0.0]", "pip install --force-reinstall mh-edge-fakes"),
        ("fake-fallback", "the one-node model ran on CPUExecutionProvider instead", "pip install --force-reinstall"),
        ("fake-crash", "was ended by SIGABRT: fake: out of luck", "pip install --force-reinstall mh-edge-fakes"),
        ("fake-absent", "there is no fake in this machine", "buy one"),
        ("fake-hanging", "has not answered within 1 s", "pip install --force-reinstall mh-edge-fakes"),
        ("fake-broken", "No module named 'mh_edge_fakes_not_there'", "pip install --force-reinstall mh-edge-fakes"),
        ("fake-other", "'pathlib:Path', which is no Session class", "pip install --force-reinstall mh-edge-fakes"),
    ],
)
def test_a_device_of_another_package(
    name: str, reason: str, fix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if name == "fake-hanging":
        monkeypatch.setattr(machine, "PATIENCE", 1.0)
    fake_devices.installed(tmp_path, monkeypatch, name)
    found = tried(name)
    assert (found.package, found.version) == (fake_devices.PACKAGE, fake_devices.VERSION)
    assert found.available == (not reason)
    assert reason in found.reason
    assert fix in found.fix


def test_one_broken_package_does_not_hide_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_devices.installed(tmp_path, monkeypatch, "fake-good", "fake-broken")
    good, broken = machine.devices(["fake-good", "fake-broken"]).devices
    assert (good.available, broken.available) == (True, False)


def ran(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(command, arguments, standalone_mode=False)
    assert result.exception is None, result.output
    return result.return_value, result.stdout


def test_the_exit_code_is_for_scripts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_devices.installed(tmp_path, monkeypatch, "fake-good", "fake-absent")
    assert ran("fake-good", "--json")[0] == 0
    code, text = ran("fake-good", "fake-absent", "--json")
    assert code == 6
    good, absent = json.loads(text)["devices"]
    assert list(good) == ["name", "available", "package", "version", "reason", "fix", "notes"]
    assert (good["available"], good["reason"], good["fix"]) == (True, "", "")
    assert absent == {
        "name": "fake-absent", "available": False, "package": "mh-edge-fakes", "version": "1.2",
        "reason": "there is no fake in this machine", "fix": "buy one", "notes": [],
    }  # fmt: skip


@pytest.mark.parametrize("columns", [80, 120])
def test_the_table_fits_and_lines_to_copy_are_whole(monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    line = 'pip uninstall -y onnxruntime onnxruntime-gpu onnxruntime-openvino onnxruntime-directml; pip install "x[y]"'
    reason = "onnxruntime and onnxruntime-gpu are both installed and overwrite each other's files"
    rows = (
        machine.Device("litert-reference", True, "ai-edge-litert", "2.3.0", "", ""),
        machine.Device("tflite-micro", True, "tflite-micro", "0.dev20261023182759", "", ""),
        machine.Device("openvino", False, "onnxruntime-ep-openvino", "1.8.1", reason, line),
        machine.Device("qnn", False, "onnxruntime-qnn", "2.7.0", reason, line),
    )
    monkeypatch.setattr(machine, "devices", lambda names, progress: machine.Devices(rows))
    monkeypatch.setattr("mh_edge.commands.command.WIDTH_WITHOUT_TERMINAL", columns)
    code, text = ran()
    assert code == 0
    table, _, mended = text.partition("what would mend it")
    assert max(map(len, table.splitlines())) <= columns
    assert mended.splitlines()[1:] == ["  openvino, qnn:", f"    {line}"]
    assert [row.split()[:2] for row in table.splitlines() if row and row[0] in "lo"] == [
        ["litert-reference", "works"],
        ["openvino", "no"],
    ]
    assert " ".join(reason.split()) in " ".join(
        " ".join(row[len(table.splitlines()[0].split("remark")[0]) :] for row in table.splitlines()).split()
    )
