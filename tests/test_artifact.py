"""Manifests: what is written beside an artifact, and when it is believed."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest

from mh_edge.artifact import (
    Artifact,
    Choice,
    Manifest,
    file_sha256,
    manifest_path,
    read_manifest,
    unreferenced_data,
)
from mh_edge.jsontext import dumps
from mh_edge.signature import Domain, Signature, Tensor

SIGNATURE = Signature(
    (Tensor("ids", "int32", ("batch", "sequence"), Domain(ids_below=50, mask_value=0.0)),),
    (Tensor("p", "float32", ("batch", 2)),),
)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "m.onnx"
    path.write_bytes(b"weights")
    return path


def manifest(model: Path, data: tuple[str, ...] = ()) -> Manifest:
    return Manifest(
        format="onnx",
        sha256=file_sha256(model),
        opset=23,
        signature=SIGNATURE,
        rules={"LSTM": 5},
        notes=("a note",),
        choices=(Choice("heads", "4 heads as one MatMul", "one operation instead of 4"),),
        session_options={"session.set_denormal_as_zero": "1"},
        data=data,
        versions={"keras": "3.15"},
        verified={"passed": True, "feeds": 9, "required_tolerance": {"abs": 1e-7, "rel": float("inf")}},
        recipe={"seed": 0},
    )


def test_sha256_is_that_of_the_bytes(model: Path) -> None:
    assert file_sha256(model) == hashlib.sha256(b"weights").hexdigest()


def test_a_manifest_is_read_back_as_it_was_written(model: Path) -> None:
    written = manifest(model)
    assert written.write(model) == manifest_path(model) == model.with_name("m.onnx.json")
    found = read_manifest(model)
    assert found is not None
    assert found.signature == SIGNATURE
    assert found.signature.inputs[0].domain == Domain(50, 0.0)
    assert found.verified is not None
    assert found.verified["required_tolerance"] == {"abs": 1e-7, "rel": "inf"}
    assert replace(found, verified=None) == replace(written, verified=None)


def test_the_same_manifest_has_the_same_bytes_and_no_path_in_them(model: Path) -> None:
    manifest(model).write(model)
    first = manifest_path(model).read_bytes()
    manifest(model).write(model)
    assert manifest_path(model).read_bytes() == first
    assert str(model.parent).encode() not in first


def test_a_stale_manifest_is_ignored(model: Path) -> None:
    manifest(model).write(model)
    model.write_bytes(b"other weights")
    assert read_manifest(model) is None


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"sha256": 1}', '{"mh_edge_manifest": 99}', '{"mh_edge_manifest": 1}']
)
def test_another_json_beside_a_model_is_not_a_manifest(model: Path, text: str) -> None:
    manifest_path(model).write_text(text)
    assert read_manifest(model) is None


def test_a_manifest_of_another_form_is_ignored(model: Path) -> None:
    path = manifest(model).write(model)
    fields = json.loads(path.read_text())
    for change in ({"opset": "17"}, {"data": None}, {"signature": {}}, {"signature": {"inputs": [1], "outputs": []}}):
        path.write_text(json.dumps(fields | change))
        assert read_manifest(model) is None, change
    path.write_text(json.dumps(fields))
    assert read_manifest(model) is not None


def test_no_manifest(model: Path) -> None:
    assert read_manifest(model) is None


def test_only_data_that_nothing_else_refers_to_is_unreferenced(tmp_path: Path, model: Path) -> None:
    manifest(model, data=("1.data", "shared.data", "kept.data")).write(model)
    other = tmp_path / "n.onnx"
    other.write_bytes(b"n")
    manifest(other, data=("shared.data",)).write(other)
    (tmp_path / "notes.json").write_text("{}")
    assert unreferenced_data(tmp_path, ["m.onnx"], ["kept.data"]) == ["1.data"]


def test_data_of_a_stale_manifest_is_left_alone(tmp_path: Path, model: Path) -> None:
    manifest(model, data=("1.data",)).write(model)
    model.write_bytes(b"replaced by hand")
    assert unreferenced_data(tmp_path, ["m.onnx"], []) == []


def test_an_artifact_in_json_has_the_keys_of_the_contract() -> None:
    artifact = Artifact(Path("out/m.onnx"), "onnx", 7, "ab", 23, SIGNATURE, {"LSTM": 1}, {"LSTM": 5}, None)
    data = json.loads(dumps(artifact.to_json()))
    assert data == {
        "path": "out/m.onnx",
        "format": "onnx",
        "bytes": 7,
        "sha256": "ab",
        "opset": 23,
        "inputs": [{"name": "ids", "dtype": "int32", "shape": ["batch", "sequence"]}],
        "outputs": [{"name": "p", "dtype": "float32", "shape": ["batch", 2]}],
        "states": [],
        "ops": {"LSTM": 1},
        "rules": {"LSTM": 5},
        "made": {},
        "verified": None,
        "quantized": None,
        "notes": [],
        "choices": [],
        "session_options": {},
    }


def test_json_has_no_nan() -> None:
    data = {"a": float("nan"), "b": [float("-inf"), (1.5, {"c": float("inf")})]}
    assert dumps(data) == '{"a": "nan", "b": ["-inf", [1.5, {"c": "inf"}]]}'


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("session_options", {"session.set_denormal_as_zero": None}),
        ("session_options", {"session.set_denormal_as_zero": 1}),
        ("notes", [{"a": 1}]),
        ("rules", {"LSTM": "x"}),
        ("choices", ["merged"]),
        ("choices", [{"layer": "heads", "choice": "merged"}]),
        ("choices", [{"layer": "heads", "choice": 3, "why": "fast"}]),
        ("verified", {"passed": 1}),
        ("quantized", {"scheme": "int8"}),
        ("data", [7]),
    ],
)
def test_a_manifest_with_something_else_in_it_is_not_believed(model: Path, field: str, value: object) -> None:
    manifest(model).write(model)
    fields = json.loads(manifest_path(model).read_text())
    manifest_path(model).write_text(json.dumps({**fields, field: value}))
    assert read_manifest(model) is None
