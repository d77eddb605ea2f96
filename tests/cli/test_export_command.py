"""`export`, `verify`, `upgrade` with real models: from a file on disk to proven files, and what they say when it
cannot be.
"""

from __future__ import annotations

import hashlib
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import mh_edge
from mh_edge.artifact import manifest_path, read_manifest
from mh_edge.commit import STAGING_PREFIX, recover
from mh_edge.signature import Domain

keras = pytest.importorskip("keras")

Runner = Callable[..., Any]

ROOT = Path(mh_edge.__file__).parents[1]


def classifier() -> Any:
    """ids -> Embedding with a mask -> Dense per step; free batch and length."""
    keras.utils.set_random_seed(1)
    ids = keras.Input((None,), dtype="int32", name="ids")
    hidden = keras.layers.Embedding(20, 4, mask_zero=True)(ids)
    return keras.Model(ids, keras.layers.Dense(3, activation="tanh", name="p")(hidden), name="classifier")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "classifier.keras"
    classifier().save(path)
    return path


@pytest.fixture(scope="module")
def exported(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """classifier.onnx and classifier.tflite, proven, with their manifests."""
    folder = tmp_path_factory.mktemp("exported")
    mh_edge.export(model, folder, formats=("onnx", "tflite"))
    return folder


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}


def test_export_writes_proven_files(run: Runner, model: Path, tmp_path: Path) -> None:
    done = run("export", model, "-o", tmp_path / "out", "--json")
    assert (done.code, done.err) == (0, "")
    assert (done.json["command"], done.json["model"]) == ("export", str(model))
    (artifact,) = done.json["artifacts"]
    path = tmp_path / "out" / "classifier.onnx"
    assert artifact["path"] == str(path)
    assert artifact["bytes"] == path.stat().st_size
    assert artifact["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert artifact["opset"] == 23
    assert artifact["inputs"] == [{"name": "ids", "dtype": "int32", "shape": ["batch", "sequence"]}]
    assert artifact["outputs"] == [{"name": "p", "dtype": "float32", "shape": ["batch", "sequence", 3]}]
    assert artifact["ops"]["Gather"] == 1
    verified = artifact["verified"]
    assert verified["passed"] is True
    assert verified["feeds"] >= 8
    assert 0 <= verified["required_tolerance"]["abs"] < 1e-5
    manifest = read_manifest(path)
    assert manifest is not None
    assert manifest.verified == verified
    assert manifest.signature.inputs[0].domain == Domain(ids_below=20, mask_value=0.0)
    assert str(tmp_path) not in manifest_path(path).read_text()
    assert run("inspect", path, "--json").json == artifact


def test_export_twice_gives_the_same_bytes(model: Path, exported: Path, tmp_path: Path) -> None:
    mh_edge.export(model, tmp_path, formats=("onnx", "tflite"))
    assert files(tmp_path) == files(exported)
    assert len(files(tmp_path)) == 4


def test_tflite_has_batch_1_and_a_free_length(run: Runner, exported: Path) -> None:
    found = run("inspect", exported / "classifier.tflite", "--json").json
    assert found["inputs"] == [{"name": "ids", "dtype": "int32", "shape": [1, "sequence"]}]
    assert found["outputs"] == [{"name": "p", "dtype": "float32", "shape": [1, "sequence", 3]}]
    assert found["verified"]["passed"] is True
    assert found["notes"] == []


def test_export_says_what_it_did(run: Runner, model: Path, tmp_path: Path) -> None:
    done = run("export", model, "-o", tmp_path / "best.onnx", "--no-verify")
    assert done.code == 0
    assert "NOT VERIFIED: nothing says that" in done.out
    assert sorted(files(tmp_path)) == ["best.onnx", "best.onnx.json"]
    assert run("export", model, "-o", tmp_path / "best.onnx", "--no-verify", "-q").out == ""


def test_sizes_and_opset_are_those_asked_for(run: Runner, model: Path, tmp_path: Path) -> None:
    done = run("export", model, "-o", tmp_path, "--batch", 2, "--dim", "sequence=7", "--runtime", "portable", "--json")
    (artifact,) = done.json["artifacts"]
    assert (artifact["opset"], artifact["inputs"][0]["shape"]) == (17, [2, 7])
    assert artifact["verified"]["passed"] is True
    assert onnx.load(tmp_path / "classifier.onnx").opset_import[0].version == 17
    done = run("export", model, "-o", tmp_path, "--dim", "time=7")
    assert done.code == 2
    assert "no free size 'time'.\nFree are batch, sequence." in done.err


def test_a_function_of_the_working_directory(run: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "made_here.py").write_text(
        "import keras\n"
        "def small():\n"
        "    print('noise')\n"
        "    return keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])\n"
    )
    monkeypatch.chdir(tmp_path)
    done = run("export", "made_here:small", "--json")
    assert done.code == 0
    assert done.json["artifacts"][0]["path"] == "small.onnx"
    assert (tmp_path / "small.onnx").is_file()


def test_weights_of_a_large_model_lie_beside_it(
    run: Runner, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the limit of protobuf set to nothing, so that a small model is a large one."""
    monkeypatch.setattr("mh_edge_onnx.writing.EXTERNAL_DATA_LIMIT", 0)
    monkeypatch.setattr("mh_edge_onnx.writing._INLINE_LIMIT", 0)
    (artifact,) = run("export", model, "-o", tmp_path, "--json").json["artifacts"]
    (data,) = tmp_path.glob("*.data")
    assert artifact["verified"]["passed"] is True
    assert artifact["bytes"] == (tmp_path / "classifier.onnx").stat().st_size + data.stat().st_size
    changed = classifier()
    changed.layers[-1].bias.assign([1.0, 2.0, 3.0])
    mh_edge.export(changed, tmp_path)
    (replaced,) = tmp_path.glob("*.data")
    assert replaced != data
    assert run("verify", model, tmp_path / "classifier.onnx", "--failures", tmp_path / "failures").code == 5


def test_half_precision_is_exported_in_float32_and_says_so(tmp_path: Path) -> None:
    keras.utils.set_random_seed(1)
    policy = "mixed_bfloat16"
    model = keras.Sequential([keras.Input((4,), name="x"), keras.layers.Dense(2, dtype=policy, name="y")], name="half")
    (artifact,) = mh_edge.export(model, tmp_path).artifacts
    assert artifact.path.name == "half.onnx"
    assert artifact.signature.outputs[0].dtype == "float32"
    assert artifact.verified is not None
    assert any("in float32" in note for note in artifact.notes)


def tampered(source: Path, target: Path, factor: float) -> Path:
    """The same model with its largest weight scaled."""
    proto = onnx.load(source)
    weights = max(
        (tensor for tensor in proto.graph.initializer if tensor.data_type == tensor.FLOAT),
        key=lambda tensor: numpy_helper.to_array(tensor).size,
    )
    scaled = numpy_helper.to_array(weights) * np.float32(factor)
    weights.CopyFrom(numpy_helper.from_array(scaled.astype(np.float32), weights.name))
    onnx.save(proto, target)
    return target


def test_verify_of_an_equal_and_a_different_file(run: Runner, model: Path, exported: Path, tmp_path: Path) -> None:
    good, bad = exported / "classifier.onnx", tampered(exported / "classifier.onnx", tmp_path / "bad.onnx", 1.01)
    done = run("verify", model, good, exported / "classifier.tflite", "--json")
    assert (done.code, done.err, done.json["passed"]) == (0, "", True)
    assert [item["passed"] for item in done.json["candidates"]] == [True, True]
    done = run("verify", model, good, bad, "--failures", tmp_path / "failures", "--json")
    assert (done.code, done.err) == (5, "")
    assert done.json["passed"] is False
    assert done.json["reference"] == str(model)
    first, second = done.json["candidates"]
    assert (first["path"], first["passed"], second["path"], second["passed"]) == (str(good), True, str(bad), False)
    assert second["worst"].keys() == {"feed", "output", "index", "expected", "got", "abs", "rel"}
    assert second["worst"]["abs"] > first["worst"]["abs"]
    assert Path(second["saved"]).is_relative_to(tmp_path / "failures")
    done = run("verify", model, good, bad, "--failures", tmp_path / "failures")
    assert done.code == 5
    for text in ("classifier.onnx", "bad.onnx", "equal", "NOT EQUAL", "Repeat it with: mh-edge verify"):
        assert text in done.out
    assert run("verify", model, good, bad, "--failures", tmp_path / "failures", "-q").out == ""


def test_the_command_that_is_printed_fails_again(
    run: Runner, exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With every option that was given, in one line."""
    (tmp_path / "bring_layers.py").write_text(
        "import keras\n"
        "@keras.saving.register_keras_serializable('bring')\n"
        "class Twice(keras.layers.Layer):\n"
        "    def call(self, x):\n"
        "        return 2 * x\n"
        "def model():\n"
        "    keras.utils.set_random_seed(0)\n"
        "    return keras.Sequential([keras.Input((4,), name='x'), keras.layers.Dense(2), Twice()])\n"
    )
    monkeypatch.chdir(tmp_path)
    assert run("export", "bring_layers:model", "--import", "bring_layers", "-o", "good.onnx").code == 0
    tampered(tmp_path / "good.onnx", tmp_path / "bad.onnx", 1.01)
    given = ("--import", "bring_layers", "--atol", "1e-5", "--seed", 2, "--failures", "a folder with a long name " * 3)
    done = run("verify", "bring_layers:model", "bad.onnx", *given)
    (line,) = [line for line in done.out.splitlines() if line.startswith("Repeat it with: mh-edge ")]
    again = shlex.split(line.partition(" mh-edge ")[2])
    assert again[-len(given) :] == [
        "--atol",
        "1e-05",
        "--seed",
        "2",
        "--failures",
        str(given[-1]),
        *map(str, given[:2]),
    ]
    repeated = run(*again)
    assert (done.code, repeated.code) == (5, 5), repeated.err


def test_verify_of_two_models_says_how(run: Runner, model: Path) -> None:
    done = run("verify", model, model)
    assert done.code == 2
    assert f"mh-edge export {model} -o x.onnx; mh-edge verify OTHER x.onnx" in done.err


def test_an_artifact_as_reference_needs_a_tolerance(run: Runner, exported: Path, tmp_path: Path) -> None:
    good, bad = exported / "classifier.onnx", tampered(exported / "classifier.onnx", tmp_path / "bad.onnx", 1.01)
    done = run("verify", good, good)
    assert done.code == 2
    assert "--atol" in done.err
    assert run("verify", good, good, "--atol", "1e-9").code == 0
    assert run("verify", good, bad, "--atol", "1e-9", "--failures", tmp_path / "failures").code == 5


def test_an_export_that_is_not_equal_leaves_the_target_as_it_was(
    run: Runner, model: Path, exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One weight is changed by 1 % between the converter and the proof."""
    from mh_edge import exporting

    real = exporting._write

    def write(converted: Any, staging: Any, name: str, *rest: Any) -> Any:
        manifest = real(converted, staging, name, *rest)
        tampered(staging.path / name, staging.path / name, 1.01)
        return manifest

    monkeypatch.setattr(exporting, "_write", write)
    for name, content in files(exported).items():
        (tmp_path / name).write_bytes(content)
    done = run("export", model, "-o", tmp_path, "--failures", tmp_path / "failures", "--json")
    assert done.code == 5
    assert done.json["error"]["kind"] == "not_equal"
    assert "classifier.onnx does not compute what" in done.json["error"]["message"]
    assert STAGING_PREFIX not in done.out
    assert files(tmp_path) == files(exported)
    assert len(list((tmp_path / "failures").glob("*.npz"))) == 1
    assert str(tmp_path / "failures") in done.json["error"]["hint"]


def test_real_inputs_are_used_and_bad_ones_are_sentences(
    run: Runner, model: Path, exported: Path, tmp_path: Path
) -> None:
    good = exported / "classifier.onnx"
    np.savez(tmp_path / "good.npz", ids=np.array([[3, 1, 0], [19, 0, 0]], np.int32))
    plain = run("verify", model, good, "--json").json["candidates"][0]["feeds"]
    with_feeds = run("verify", model, good, "--feeds", tmp_path / "good.npz", "--json").json["candidates"][0]["feeds"]
    assert with_feeds == plain + 1
    np.savez(tmp_path / "other.npz", x=np.zeros(3, np.float32))
    np.save(tmp_path / "one.npy", np.zeros(3))
    np.savez(tmp_path / "pickled.npz", ids=np.array([{"a": 1}], dtype=object))
    (tmp_path / "cut.npz").write_bytes((tmp_path / "good.npz").read_bytes()[:50])
    (tmp_path / "empty.npz").write_bytes(b"")
    for name in ("gone.npz", "other.npz", "one.npy", "pickled.npz", "cut.npz", "empty.npz"):
        done = run("verify", model, good, "--feeds", tmp_path / name, "--json")
        assert (done.code, done.json["error"]["kind"]) == (3, "input"), name


@pytest.mark.parametrize("spec", ["gone.keras", "folder", "empty.keras", "foreign.keras", "empty.h5", "gone:function"])
def test_models_that_cannot_be_read(run: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spec: str) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "empty.keras").touch()
    (tmp_path / "empty.h5").touch()
    (tmp_path / "foreign.keras").write_text("not a zip archive")
    done = run("export", spec, "-o", "out", "--json")
    assert (done.code, done.err, done.json["error"]["kind"]) == (3, "", "input")
    assert spec.partition(":")[0] in done.json["error"]["message"]
    assert not (tmp_path / "out").exists()


def test_a_target_below_a_file(run: Runner, model: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    done = run("export", model, "-o", tmp_path / "file" / "out", "--no-verify", "--json")
    assert (done.code, done.json["error"]["kind"]) == (4, "conversion")
    assert files(tmp_path) == {"file": b"mine"}


def test_upgrade(run: Runner, model: Path, tmp_path: Path) -> None:
    new = tmp_path / "new.keras"
    done = run("upgrade", model, "-o", new, "--json")
    assert (done.code, done.err) == (0, "")
    assert done.json == {"command": "upgrade", "model": str(model), "output": str(new)}
    feed = np.array([[3, 1, 0]], np.int32)
    expected = keras.models.load_model(model).predict(feed, verbose=0)
    np.testing.assert_array_equal(keras.models.load_model(new).predict(feed, verbose=0), expected)
    assert f"wrote {new}" in run("upgrade", model, "-o", new).out
    assert run("upgrade", model, "-o", tmp_path / "new.h5").code == 2
    assert run("upgrade", tmp_path / "gone.h5", "-o", new).code == 3


STAGES: dict[str, Callable[[Path], bool]] = {
    "staging": lambda folder: any(folder.glob(f"{STAGING_PREFIX}*")),
    "written": lambda folder: any(folder.glob(f"{STAGING_PREFIX}*/*.onnx")),
    "moving": lambda folder: (folder / "classifier.onnx").read_bytes() != b"old",
}
"""What can be seen from outside of how far an export is."""


@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
def test_a_real_export_that_is_killed(model: Path, exported: Path, tmp_path: Path, stage: str) -> None:
    """kill -9 of `mh-edge export` as soon as it has come so far: what was there stays, or what was to come is there."""
    old = {"classifier.onnx": b"old", "classifier.onnx.json": b"{}"}
    for name, content in old.items():
        (tmp_path / name).write_bytes(content)
    command = [sys.executable, "-c", "from mh_edge.cli import main; raise SystemExit(main())"]
    command += ["export", str(model), "-o", str(tmp_path), "--no-verify", "-q"]
    paths = os.pathsep.join([str(ROOT), str(ROOT / "converters")])
    with subprocess.Popen(command, env=os.environ | {"PYTHONPATH": paths}) as process:
        while process.poll() is None and not STAGES[stage](tmp_path):
            time.sleep(0.0005)
        process.kill()
    recover(tmp_path)
    found = files(tmp_path)
    assert [path for path in tmp_path.iterdir() if path.name.startswith(STAGING_PREFIX)] == []
    assert found != old or stage != "moving"
    if found != old:
        assert found["classifier.onnx"] == (exported / "classifier.onnx").read_bytes()
        assert found.keys() == old.keys()
        assert read_manifest(tmp_path / "classifier.onnx") is not None
