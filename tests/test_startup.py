"""What starts quickly stays quick: no TensorFlow, no Keras, nothing heavy before it is needed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import mh_edge
from mh_edge.machine import SQUARE_ONNX, SQUARE_TFLITE

ROOT = Path(mh_edge.__file__).parents[1]
KERAS = ("tensorflow", "keras", "tf2onnx", "jax", "torch")
HEAVY = (*KERAS, "numpy", "onnx", "onnxruntime", "ai_edge_litert", "onnxscript", "onnx_ir", "h5py", "rich")


def imported(code: str) -> set[str]:
    """Top-level packages that a fresh process has imported after running the code."""
    script = f"import sys\n{code}\nprint('|'.join(sorted({{name.partition('.')[0] for name in sys.modules}})))"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=120, check=True
    )
    return set(done.stdout.splitlines()[-1].split("|"))


def test_importing_the_package_is_light() -> None:
    assert imported("import mh_edge").isdisjoint({*HEAVY, "click"})


@pytest.mark.parametrize(
    "args",
    [
        ["--help"],
        ["--version"],
        ["export", "--help"],
        ["verify", "--help"],
        ["quantize", "--help"],
        ["profile", "--help"],
    ],
)
def test_help_imports_nothing_heavy(args: list[str]) -> None:
    found = imported(f"from mh_edge.cli import main\nassert main({args}) == 0")
    assert "click" in found
    assert found.isdisjoint(HEAVY)


@pytest.mark.parametrize(("name", "content"), [("s.onnx", SQUARE_ONNX), ("s.tflite", SQUARE_TFLITE)])
def test_inspect_imports_neither_tensorflow_nor_keras(tmp_path: Path, name: str, content: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    found = imported(f"from mh_edge.cli import main\nassert main(['inspect', {str(path)!r}, '--json']) == 0")
    assert found.isdisjoint(KERAS)
    assert ("onnx" in found, "ai_edge_litert" in found) == (name.endswith("onnx"), name.endswith("tflite"))


@pytest.mark.parametrize(("name", "content"), [("s.onnx", SQUARE_ONNX), ("s.tflite", SQUARE_TFLITE)])
def test_verify_of_artifacts_imports_neither_tensorflow_nor_keras(tmp_path: Path, name: str, content: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    args = ["verify", str(path), str(path), "--atol", "1e-6", "--json"]
    assert imported(f"from mh_edge.cli import main\nassert main({args}) == 0").isdisjoint(KERAS)


@pytest.mark.parametrize(("name", "content"), [("s.onnx", SQUARE_ONNX), ("s.tflite", SQUARE_TFLITE)])
def test_profile_imports_no_runtime_and_nothing_that_reads_models(tmp_path: Path, name: str, content: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    found = imported(
        f"from mh_edge.cli import main\nassert main(['profile', {str(path)!r}, '--runs', '5', '--json']) == 0"
    )
    assert found.isdisjoint({*KERAS, "onnx", "onnxruntime", "ai_edge_litert", "onnx_ir"})


@pytest.mark.parametrize(
    ("device", "runtime", "name", "content"),
    [("cpu", "onnxruntime", "s.onnx", SQUARE_ONNX), ("xnnpack", "ai_edge_litert", "s.tflite", SQUARE_TFLITE)],
)
def test_the_process_of_a_device_imports_its_runtime_alone(
    tmp_path: Path, device: str, runtime: str, name: str, content: bytes
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    found = imported(
        f"import numpy as np\nfrom mh_edge.runtimes.worker import Worker\nworker = Worker({device!r})\n"
        f"np.savez({str(tmp_path / 'x.npz')!r}, x=np.ones(2, 'float32'))\n"
        f"worker.open({str(path)!r}, 1, {{}}, {{}})\nworker.prepare({str(tmp_path / 'x.npz')!r})\nworker.calls(3)"
    )
    assert runtime in found
    assert found.isdisjoint({*KERAS, "onnx", "rich", "click"})


def test_devices_imports_neither_tensorflow_nor_keras() -> None:
    assert imported("from mh_edge.cli import main\nassert main(['devices', '--json']) == 0").isdisjoint(KERAS)


def test_every_public_name_is_there() -> None:
    for name in mh_edge.__all__:
        assert getattr(mh_edge, name) is not None
    assert callable(mh_edge.devices)
    assert callable(mh_edge.export)
    assert callable(mh_edge.verify)
    assert callable(mh_edge.inspect)
    assert mh_edge.layers.MultiHead.__name__ == "MultiHead"
    assert set(mh_edge.__all__) <= set(dir(mh_edge))


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'exprot'"):
        mh_edge.exprot  # noqa: B018
