"""The kit for Linux on ARM, its self-test run by this machine's Python; `make test-arm64` runs it on ARM."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import mh_edge
from mh_edge.bundling.layout import render
from mh_edge.bundling.platform import KITS
from mh_edge.machine import SQUARE_ONNX, SQUARE_TFLITE


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("kit")
    files = folder / "square.onnx", folder / "square.tflite"
    for path, content in zip(files, (SQUARE_ONNX, SQUARE_TFLITE), strict=True):
        path.write_bytes(content)
    mh_edge.bundle(files, "linux-arm64", folder / "kit")
    return folder / "kit"


@pytest.fixture
def kit(packed: Path, tmp_path: Path) -> Path:
    """A copy of its own."""
    for path in packed.rglob("*"):
        if path.is_file():
            copy = tmp_path / path.relative_to(packed)
            copy.parent.mkdir(exist_ok=True)
            copy.write_bytes(path.read_bytes())
    return tmp_path


@pytest.fixture(scope="module")
def module() -> ModuleType:
    """selftest.py, to call its functions."""
    spec = importlib.util.spec_from_file_location("kit_selftest", KITS / "linux-arm64" / "selftest.py")
    assert spec is not None
    assert spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


def selftest(kit: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "selftest.py", *options], cwd=kit, capture_output=True, text=True, timeout=60, check=False
    )


def test_both_models_pass_and_the_kit_stays_as_it_was(kit: Path) -> None:
    before = sorted(kit.rglob("*"))
    done = selftest(kit)
    assert (done.returncode, done.stderr) == (0, "")
    assert "PASS  models/square.onnx    onnxruntime " in done.stdout
    assert "PASS  models/square.tflite  ai-edge-litert " in done.stdout
    assert done.stdout.endswith("PASS: 2 of 2 models are right here.\n")
    assert sorted(kit.rglob("*")) == before


def test_the_readme_names_what_to_install_and_the_inputs(kit: Path) -> None:
    readme = (kit / "README.md").read_text(encoding="utf-8")
    assert 'pip install numpy "onnxruntime>=1.1' in readme
    assert '"ai-edge-litert"\n' in readme
    assert "model = Model(\"square.onnx\")\n    outputs = model({'x': x})\n" in readme
    assert "{{" not in readme


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("models/square.onnx", SQUARE_ONNX.replace(b"Mul", b"Add"), "has changed since it was packed"),
        ("models/square.onnx", SQUARE_ONNX + b"x", "bytes and had"),
        ("models/square.onnx", None, "cannot be read (No such file or directory)"),
        ("bundle.json", b"{", "bundle.json has changed"),
        ("bundle.json", b'{"artifacts": [], "files": {}}', "bundle.json has changed"),
    ],
)
def test_a_damaged_file_is_named(
    kit: Path, module: ModuleType, monkeypatch: pytest.MonkeyPatch, name: str, content: bytes | None, sentence: str
) -> None:
    if content is None:
        (kit / name).unlink()
    else:
        (kit / name).write_bytes(content)
    monkeypatch.setattr(module, "KIT", kit)
    with pytest.raises(module.Failure) as failure:
        module.read_kit()
    assert name in str(failure.value)
    assert sentence in str(failure.value)


def test_other_numbers_and_a_missing_runtime_fail(kit: Path) -> None:
    told = json.loads((kit / "bundle.json").read_text())
    path = kit / "models/square.onnx"
    path.write_bytes(SQUARE_ONNX.replace(b"Mul", b"Add"))
    told["files"]["models/square.onnx"]["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    (kit / "bundle.json").write_text(render(told))
    done = selftest(kit, "--json", "--model", "square.onnx")
    (one,) = json.loads(done.stdout)["artifacts"]
    assert (done.returncode, one["passed"]) == (1, False)
    assert one["worst"]["error"] > one["worst"]["allowed"] > 0
    done = selftest(kit, "--runtime", "tflite-runtime")
    assert done.returncode == 1
    assert "square.tflite: tflite-runtime is not installed: pip install tflite-runtime\n" in done.stdout
    assert "Not tested, as it was not asked for: square.onnx\n" in done.stdout


@pytest.mark.parametrize("free", [False, True], ids=["calls", "samples"])
def test_the_sample_calls_a_model_with_each_row(kit: Path, free: bool) -> None:
    x = np.arange(6, dtype="float64").reshape(3, 2)
    if free:
        told = json.loads((kit / "bundle.json").read_text())
        told["artifacts"][0]["signature"]["inputs"][0]["shape"] = ["batch", 2]
        (kit / "bundle.json").write_text(render(told))
        tensors = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ("batch", 2)) for name in "xy")
        graph = helper.make_graph([helper.make_node("Mul", ["x", "x"], ["y"])], "square", *([one] for one in tensors))
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        onnx.save(model, kit / "models/square.onnx")
    np.savez(kit / "inputs.npz", x=x)
    command = [sys.executable, "sample.py", "square.onnx", "inputs.npz", "outputs.npz"]
    subprocess.run(command, cwd=kit, check=True, timeout=60)
    with np.load(kit / "outputs.npz") as outputs:
        (y,) = (outputs[name] for name in outputs.files)
    np.testing.assert_array_equal(y, (x * x).astype("float32"))


def test_an_opset_that_is_too_new_names_the_version(module: ModuleType) -> None:
    entry: dict[str, Any] = {"opset": 23, "details": {"onnxruntime": "1.23"}}
    assert 'pip install "onnxruntime>=1.23"' in module.unopened(entry, "onnxruntime", "1.19.2", ValueError("no"))
    assert module.unopened(entry, "onnxruntime", "1.31.1", ValueError("no")) == "onnxruntime 1.31.1 cannot open it: no"


@pytest.mark.parametrize(
    ("got", "share"),
    [([1.0, np.nan, np.inf], 0.0), ([1.01, np.nan, np.inf], 0.5), ([1.1, np.nan, np.inf], 5.0),
     ([1.0, 0.0, np.inf], np.inf), ([1.0, np.nan, -np.inf], np.inf)],
)  # fmt: skip
def test_numbers_are_compared_as_the_kit_says(module: ModuleType, got: list[float], share: float) -> None:
    content = np.array([1.0, np.nan, np.inf], "<f4").tobytes()
    entry = {"dtype": "float32", "shape": [3], "offset": 0, "allowed": 0.02}
    found = module.compare({"name": "one", "outputs": {"y": entry}}, {"y": np.array(got, "float32")}, content)
    assert found["share"] == pytest.approx(share, rel=1e-3)
