"""The export step: what goes where under which name and size, and what is left when something fails."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import fakes
from mh_edge.artifact import read_manifest
from mh_edge.errors import ConversionError, NotEqualError, UsageError
from mh_edge.exporting import export
from mh_edge.inspection import inspect

BOTH = ("onnx", "tflite")


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> fakes.Fakes:
    return fakes.install(monkeypatch)


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_both_formats_with_their_manifests(tmp_path: Path, fake: fakes.Fakes) -> None:
    steps: list[str] = []
    result = export("models/net.keras", tmp_path / "out", formats=BOTH, progress=steps.append)
    assert sorted(files(tmp_path / "out")) == ["net.onnx", "net.onnx.json", "net.tflite", "net.tflite.json"]
    assert fake.verified == [["net.onnx", "net.tflite"]]
    assert steps == ["loading the model", "converting to onnx", "converting to tflite", "verifying", "writing"]
    onnx, tflite = result.artifacts
    assert (onnx.path, onnx.format, tflite.format) == (tmp_path / "out" / "net.onnx", "onnx", "tflite")
    assert onnx.verified == {
        "passed": True,
        "feeds": 9,
        "required_tolerance": {"abs": 1e-7, "rel": 1e-6},
        "worst": fakes.WORST,
    }
    manifest = read_manifest(onnx.path)
    assert manifest is not None
    assert (manifest.verified, manifest.sha256) == (onnx.verified, onnx.sha256)
    assert {"mh-edge", "keras", "onnxruntime"} <= manifest.versions.keys()
    assert inspect(onnx.path) == onnx


def test_the_result_in_json_has_the_keys_of_the_contract(tmp_path: Path, fake: fakes.Fakes) -> None:
    data = export("net.keras", tmp_path).to_json()
    assert list(data) == ["command", "model", "artifacts", "seconds"]
    assert (data["command"], data["model"]) == ("export", "net.keras")
    keys = {"path", "format", "bytes", "sha256", "opset", "inputs", "outputs", "ops", "rules", "verified"}
    assert keys <= data["artifacts"][0].keys()


def test_twice_gives_the_same_bytes(tmp_path: Path, fake: fakes.Fakes) -> None:
    export("net.keras", tmp_path / "1", formats=BOTH)
    export("net.keras", tmp_path / "2", formats=BOTH)
    assert files(tmp_path / "1") == files(tmp_path / "2")


@pytest.mark.parametrize(
    ("model", "name"),
    [("a/net.v2.keras", "net.v2"), ("old.h5", "old"), ("zoo.models:small", "small")],
)
def test_files_are_named_after_the_model(tmp_path: Path, fake: fakes.Fakes, model: str, name: str) -> None:
    assert export(model, tmp_path).artifacts[0].path.name == f"{name}.onnx"


def test_one_format_may_name_its_file(tmp_path: Path, fake: fakes.Fakes) -> None:
    export("net.keras", tmp_path / "deep" / "best.onnx")
    assert sorted(files(tmp_path / "deep")) == ["best.onnx", "best.onnx.json"]


@pytest.mark.parametrize("formats", [BOTH, ("tflite",)])
def test_a_file_name_that_does_not_fit_the_formats(tmp_path: Path, fake: fakes.Fakes, formats: Sequence[str]) -> None:
    with pytest.raises(UsageError, match=r"best\.onnx' is one onnx file, but the formats asked for are"):
        export("net.keras", tmp_path / "best.onnx", formats=formats)


def test_the_format_is_a_word_or_what_the_output_ends_in(tmp_path: Path, fake: fakes.Fakes) -> None:
    (artifact,) = export("net.keras", tmp_path, formats="tflite").artifacts
    assert artifact.path == tmp_path / "net.tflite"
    (artifact,) = export("net.keras", tmp_path / "y.tflite").artifacts
    assert (artifact.path.name, artifact.format) == ("y.tflite", "tflite")
    assert (artifact.inputs, artifact.outputs) == (artifact.signature.inputs, artifact.signature.outputs)


def test_what_is_no_model_and_no_name(tmp_path: Path, fake: fakes.Fakes) -> None:
    with pytest.raises(UsageError, match=r"3 is no model\. Give a keras\.Model"):
        export(3, tmp_path)  # type: ignore[arg-type]
    for name in ("a/b", "", ".."):
        with pytest.raises(UsageError, match="is not one of a file"):
            export("net.keras", tmp_path / "out", name=name)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("formats", "sentence"), [((), "no format"), (("coreml",), "'coreml' is not known")])
def test_formats_that_are_not_there(tmp_path: Path, fake: fakes.Fakes, formats: Sequence[str], sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        export("net.keras", tmp_path, formats=formats)


@pytest.mark.parametrize(
    ("options", "sentence"), [({"runtime": "abacus"}, "runtime 'abacus'"), ({"opset": 9}, "opset 9 cannot be written")]
)
def test_a_runtime_or_opset_that_is_not_there(
    tmp_path: Path, fake: fakes.Fakes, options: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(UsageError, match=sentence):
        export("net.keras", tmp_path, formats=("tflite",), **options)
    assert fake.calls == []


@pytest.mark.parametrize(
    ("options", "onnx", "tflite"),
    [
        ({}, ("batch", "a_sequence", "b_sequence"), (1, "a_sequence", "b_sequence")),
        ({"batch": 4}, (4, "a_sequence", "b_sequence"), (4, "a_sequence", "b_sequence")),
        ({"sequence": 16}, ("batch", 16, 16), (1, 16, 16)),
        ({"sequence": 16, "dims": {"b_sequence": 5}}, ("batch", 16, 5), (1, 16, 5)),
    ],
)
def test_sizes_are_fixed_as_asked(
    tmp_path: Path, fake: fakes.Fakes, options: dict[str, Any], onnx: tuple[Any, ...], tflite: tuple[Any, ...]
) -> None:
    export("net.keras", tmp_path, formats=BOTH, **options)
    found = {kind: (*sig.inputs[0].shape[:2], sig.inputs[1].shape[1]) for kind, sig, _ in fake.calls}
    assert found == {"onnx": onnx, "tflite": tflite}


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"dims": {"time": 3}}, r"no free size 'time'\. Free are batch, a_sequence, b_sequence\."),
        ({"dims": {"batch": 0}}, "batch=0 is below 1"),
        ({"batch": -1}, "batch=-1 is below 1"),
    ],
)
def test_sizes_that_make_no_sense(tmp_path: Path, fake: fakes.Fakes, options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        export("net.keras", tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_the_onnx_converter_gets_opset_and_runtime_and_the_other_does_not(tmp_path: Path, fake: fakes.Fakes) -> None:
    export("net.keras", tmp_path, formats=BOTH, opset=17, runtime="portable", merge=False)
    assert [options for _, _, options in fake.calls] == [
        {"opset": 17, "runtime": "portable", "merge": False},
        {"merge": False},
    ]


def test_without_a_proof_the_manifest_says_so(tmp_path: Path, fake: fakes.Fakes) -> None:
    (artifact,) = export("net.keras", tmp_path, verify=False).artifacts
    assert fake.verified == []
    assert artifact.verified is None
    manifest = read_manifest(artifact.path)
    assert manifest is not None
    assert manifest.verified is None
    assert "onnxruntime" not in manifest.versions


def test_a_failed_proof_leaves_everything_as_it_was(tmp_path: Path, fake: fakes.Fakes) -> None:
    export("net.keras", tmp_path, formats=BOTH)
    before = files(tmp_path)
    fake.different = ["net.tflite"]
    with pytest.raises(NotEqualError) as caught:
        export("net.keras", tmp_path, formats=BOTH, dims={"batch": 3}, failures=Path("bad"))
    assert caught.value.message == (
        "net.tflite does not compute what net.keras computes, so nothing was written: "
        "net.tflite: y[0, 2] is 2.0, expected 1.0."
    )
    assert caught.value.hint == (
        f"Repeat it with: mh-edge export net.keras -o {tmp_path}/net.tflite --feeds bad/feed.npz "
        "--dim batch=3 --failures bad"
    )
    assert files(tmp_path) == before
    with pytest.raises(NotEqualError):
        export("net.keras", tmp_path / "new", formats=BOTH)
    assert not (tmp_path / "new").exists()


def test_a_converter_that_fails_leaves_everything_as_it_was(
    tmp_path: Path, fake: fakes.Fakes, monkeypatch: pytest.MonkeyPatch
) -> None:
    export("net.keras", tmp_path, formats=BOTH)
    before = files(tmp_path)
    real = fake.convert

    def convert(kind: str, *args: Any, **options: Any) -> Any:
        if kind == "tflite":
            raise ConversionError("no such operation.")
        return real(kind, *args, **options)

    monkeypatch.setattr(fake, "convert", convert)
    fake.data = {"1.data": b"1"}
    with pytest.raises(ConversionError, match="no such operation"):
        export("net.keras", tmp_path, formats=BOTH)
    assert files(tmp_path) == before


def test_a_full_disk_leaves_everything_as_it_was(
    tmp_path: Path, fake: fakes.Fakes, monkeypatch: pytest.MonkeyPatch
) -> None:
    export("net.keras", tmp_path)
    before = files(tmp_path)

    def full(self: Path, content: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        with pytest.raises(ConversionError, match="cannot be written: No space left on device"):
            export("net.keras", tmp_path)
    assert files(tmp_path) == before


def test_external_data_is_replaced_with_its_model(tmp_path: Path, fake: fakes.Fakes) -> None:
    (tmp_path / "mine.data").write_bytes(b"unrelated")
    fake.data = {"aaaa.data": b"old"}
    (artifact,) = export("net.keras", tmp_path).artifacts
    assert read_manifest(artifact.path).data == ("aaaa.data",)  # type: ignore[union-attr]
    fake.data = {"bbbb.data": b"new"}
    export("net.keras", tmp_path)
    assert sorted(files(tmp_path)) == ["bbbb.data", "mine.data", "net.onnx", "net.onnx.json"]
    export("net.keras", tmp_path)
    assert sorted(files(tmp_path)) == ["bbbb.data", "mine.data", "net.onnx", "net.onnx.json"]


@pytest.mark.parametrize("output", ["file", "file/out", "file/net.onnx"])
def test_an_output_that_cannot_be_a_folder(tmp_path: Path, fake: fakes.Fakes, output: str) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ConversionError, match="file"):
        export("net.keras", tmp_path / output)
    assert files(tmp_path) == {"file": b"mine"}


def test_a_killed_export_leaves_the_old_files_or_the_new_ones(tmp_path: Path) -> None:
    """At every step in turn, and at sixty random moments: both formats with data and manifests, never a mix."""
    program = Path(fakes.__file__).with_name("killed_exports.py")
    paths = os.pathsep.join(filter(None, sys.path))
    done = subprocess.run(
        [sys.executable, str(program), str(tmp_path)],
        env=os.environ | {"PYTHONPATH": paths},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert set(found["step"]) == {"old", "new"}
    assert found["step"] == sorted(found["step"], reverse=True)  # all old, then from the commit point on all new
    assert len(found["step"]) > 30
    assert set(found["moment"]) <= {"old", "new"}
    assert len(found["moment"]) == 60
