"""A kit for Linux on ARM proves itself there: Debian 12 for arm64, emulated, with nothing but numpy and one runtime."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from emulator import Device
from kit_models import BIAS

from mh_edge.bundling.layout import render

CORES = {"cortex-a72": ("Cortex-A72", []), "cortex-a76": ("Cortex-A76", ["dot product", "float16"])}
"""Those of Raspberry Pi 4 and 5, and what kernels are chosen by."""

RUNTIMES = {"onnxruntime": ".onnx", "ai-edge-litert": ".tflite", "tflite-runtime": ".tflite"}

NOT_FOR_TFLITE_RUNTIME = "convolution.int8-per-channel.tflite"


def selftest(device: Device, kit: Path, runtime: str, *options: str, cpu: str = "cortex-a72") -> tuple[int, Any]:
    done = device.run(cpu, runtime, "selftest.py", "--json", *options, folder=kit)
    assert done.returncode in (0, 1), done.stdout + done.stderr
    return done.returncode, json.loads(done.stdout)


def packed_again(kit: Path) -> None:
    """Sizes and hashes are made those of the files: only their numbers can tell what was changed."""
    told = json.loads((kit / "bundle.json").read_text())
    for name, entry in told["files"].items():
        content = (kit / name).read_bytes()
        entry.update(bytes=len(content), sha256=hashlib.sha256(content).hexdigest())
    (kit / "bundle.json").write_text(render(told))


@pytest.mark.parametrize("cpu", CORES)
@pytest.mark.parametrize("runtime", RUNTIMES)
def test_every_model_gives_its_golden_numbers(device: Device, kit: Path, cpu: str, runtime: str) -> None:
    code, found = selftest(device, kit, runtime, "--runtime", runtime, cpu=cpu)
    assert (found["machine"]["architecture"], found["machine"]["core"], found["machine"]["features"]) == (
        "aarch64",
        *CORES[cpu],
    )
    models = [path.name for path in (kit / "models").glob(f"*{RUNTIMES[runtime]}")]
    assert sorted(one["name"] for one in found["artifacts"]) == sorted(models)
    wrong = {one["name"]: one.get("reason", "") for one in found["artifacts"] if not one["passed"]}
    if runtime == "tflite-runtime":
        assert (code, wrong.keys()) == (1, {NOT_FOR_TFLITE_RUNTIME})
        assert "crashed (SIGSEGV)" in wrong[NOT_FOR_TFLITE_RUNTIME]
        assert "--per-tensor" in wrong[NOT_FOR_TFLITE_RUNTIME]
    else:
        assert (code, wrong) == (0, {})
    for one in found["artifacts"]:
        if one["passed"]:
            assert one["cases"] >= 3
            assert one["latency"]["median_ms"] > 0
            if "int8" not in one["name"]:
                assert one["worst"]["error"] <= 1e-5  # other kernels, other orders of sums; allowed is more


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("what", ["weight", "golden"])
def test_other_numbers_are_noticed_where_hashes_are_right(device: Device, kit: Path, runtime: str, what: str) -> None:
    name = f"lstm_heads{RUNTIMES[runtime]}"
    if what == "weight":
        path, before = kit / "models" / name, np.array(BIAS, "float32")
        after = np.array([*BIAS[:3], BIAS[3] + 0.1], "float32")
        assert before.tobytes() in path.read_bytes()
        path.write_bytes(path.read_bytes().replace(before.tobytes(), after.tobytes()))
    else:
        told = json.loads((kit / "bundle.json").read_text())
        (entry,) = (one["golden"] for one in told["artifacts"] if one["name"] == name)
        (output,) = entry["cases"][-1]["outputs"].values()
        path = kit / entry["path"]
        content = bytearray(path.read_bytes())
        number = np.frombuffer(content, "<f4", 1, output["offset"] + 12)
        place = slice(output["offset"] + 12, output["offset"] + 16)
        content[place] = (number + 0.1).astype("<f4").tobytes()
        path.write_bytes(bytes(content))
    packed_again(kit)
    code, found = selftest(device, kit, runtime, "--model", name)
    (one,) = found["artifacts"]
    assert (code, one["passed"]) == (1, False)
    assert one["worst"]["error"] == pytest.approx(0.1, rel=0.01)
    assert one["worst"]["index"][1] == 3


def test_a_changed_byte_is_named(device: Device, kit: Path) -> None:
    path = kit / "models" / "attention.onnx"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))
    done = device.run("cortex-a72", "onnxruntime", "selftest.py", folder=kit)
    assert done.returncode == 1
    assert "FAIL: models/attention.onnx has changed since it was packed" in done.stderr


def test_people_read_a_table(device: Device, kit: Path) -> None:
    done = device.run("cortex-a76", "onnxruntime", "selftest.py", "--model", "attention.onnx", folder=kit)
    assert done.returncode == 0
    assert done.stderr == ""
    assert "aarch64" in done.stdout
    assert "PASS  models/attention.onnx  onnxruntime " in done.stdout
    assert done.stdout.endswith("PASS: 1 of 1 models are right here.\n")
    done = device.run("cortex-a76", "onnxruntime", "selftest.py", "--model", "attention.tflite", folder=kit)
    assert done.returncode == 1
    assert "ai-edge-litert or tflite-runtime is not installed: pip install ai-edge-litert" in done.stdout


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_the_sample_hands_states_on(
    device: Device, kit: Path, steps: Mapping[str, np.ndarray], runtime: str, tmp_path: Path
) -> None:
    np.savez(tmp_path / "inputs.npz", x=steps["x"])
    files = (tmp_path / "inputs.npz", tmp_path / "outputs.npz")
    done = device.run("cortex-a72", runtime, "sample.py", f"stream{RUNTIMES[runtime]}", *files, folder=kit)
    assert done.returncode == 0, done.stderr
    with np.load(tmp_path / "outputs.npz") as outputs:
        first = next(outputs[name] for name in outputs.files if outputs[name].shape == steps["y"].shape)
    np.testing.assert_allclose(first, steps["y"], atol=1e-5)
