"""Recipes: read back exactly as they were written, and nothing else is taken for one."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mh_edge.artifact import Artifact, Manifest
from mh_edge.errors import InputError, UsageError
from mh_edge.jsontext import dumps
from mh_edge.quantization.recipe import Recipe, read_recipe
from mh_edge.quantization.scheme import Options, Range
from mh_edge.signature import Signature

RECIPE = Recipe(
    format="onnx",
    scheme="int8",
    options=Options(per_channel=False, block_size=64, keep_float=("dense", "logits")),
    ranges={
        "z": Range(-0.1, 0.30000000000000004),
        "a": Range(float(np.float32(-0.1)), 5e-324),
        "mask": Range(-math.inf, -0.0),
    },
    source_sha256="0123456789abcdef" * 4,
    versions={"onnxruntime": "1.31.1"},
)


def artifact(**fields: Any) -> Artifact:
    known = {"path": Path("m.onnx"), "format": "onnx", "sha256": RECIPE.source_sha256} | fields
    return Artifact(bytes=1, opset=17, signature=Signature((), ()), ops={}, rules={}, verified=None, **known)


def write_recipe(recipe: Recipe, path: Path) -> None:
    path.write_text(dumps(recipe.to_json()), encoding="utf-8")


def test_a_recipe_file_gives_every_float_back_to_the_last_bit(tmp_path: Path) -> None:
    write_recipe(RECIPE, tmp_path / "r.json")
    found = read_recipe(tmp_path / "r.json")
    assert found == RECIPE
    assert list(found.ranges) == ["z", "a", "mask"]
    assert math.copysign(1, found.ranges["mask"].high) == -1
    first = (tmp_path / "r.json").read_bytes()
    write_recipe(found, tmp_path / "r.json")
    assert (tmp_path / "r.json").read_bytes() == first


def test_numpy_numbers_are_written_as_their_exact_value(tmp_path: Path) -> None:
    seen = np.float32(0.1)
    write_recipe(replace(RECIPE, ranges={"x": Range(seen, seen)}), tmp_path / "r.json")
    assert read_recipe(tmp_path / "r.json").ranges["x"].low == float(seen)


@pytest.mark.parametrize("named", ["q.onnx.json", "q.onnx"])
def test_a_recipe_is_read_from_the_manifest_of_the_file_it_made(tmp_path: Path, named: str) -> None:
    manifest = Manifest(
        "onnx", "0" * 64, 17, Signature((), ()), {}, (), (), {}, (), {}, None, {"quantize": RECIPE.to_json()}
    )
    manifest.write(tmp_path / "q.onnx")
    assert read_recipe(tmp_path / named) == RECIPE
    replace(manifest, recipe={"seed": 0}).write(tmp_path / "q.onnx")
    with pytest.raises(InputError, match="was not quantized"):
        read_recipe(tmp_path / named)


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"mh_edge_recipe": 2}, "layout is 2"),
        ({"format": "pb"}, "format is 'pb'"),
        ({"scheme": 8}, "scheme is 8"),
        ({"more": 1}, "holds 'more'"),
        ({"ranges": {"x": [2.0, 1.0]}}, "range of 'x'"),
        ({"ranges": {"x": ["nan", 1.0]}}, "range of 'x'"),
        ({"ranges": {"x": [math.nan, 1.0]}}, "range of 'x'"),
        ({"ranges": {"x": [True, 1.0]}}, "range of 'x'"),
        ({"ranges": {"x": [1.0]}}, "range of 'x'"),
        ({"ranges": []}, "ranges is"),
        ({"source_sha256": "abc"}, "source_sha256 is 'abc'"),
        ({"versions": {"onnx": 1}}, "versions is"),
        ({"options": {"per_channel": True}}, "options are per_channel"),
        ({"options": vars(Options()) | {"keep_float": "dense"}}, "keep_float is 'dense'"),
        ({"options": vars(Options()) | {"keep_float": [1]}}, "keep_float is"),
        ({"options": vars(Options()) | {"keep_float": [], "block_size": True}}, "block_size is True"),
    ],
)
def test_what_is_no_recipe_is_refused_with_the_value(tmp_path: Path, changed: dict[str, Any], says: str) -> None:
    path = tmp_path / "r.json"
    path.write_text(json.dumps(RECIPE.to_json() | changed))
    with pytest.raises(InputError, match=says):
        read_recipe(path)


@pytest.mark.parametrize("text", ["", "{", "[1]", "7", '"x"', "null", "{}", "\x00"])
def test_a_foreign_file_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "r.json").write_text(text)
    with pytest.raises(InputError, match="damaged or holds no recipe"):
        read_recipe(tmp_path / "r.json")


@pytest.mark.parametrize("key", RECIPE.to_json())
def test_a_recipe_that_lacks_a_field_is_refused(key: str) -> None:
    fields = RECIPE.to_json()
    del fields[key]
    with pytest.raises(InputError, match=f"no '{key}'"):
        Recipe.from_json(fields)


def test_a_missing_file_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read: No such file"):
        read_recipe(tmp_path / "r.json")


def test_it_fits_the_file_it_was_made_from_and_no_other() -> None:
    assert RECIPE.fits(artifact())
    other = artifact(sha256="f" * 64)
    assert not RECIPE.fits(other)
    assert "0123456789ab…; m.onnx has ffffffffffff…" in RECIPE.misfit(other)
    with pytest.raises(UsageError, match=r"is for an \.onnx file"):
        RECIPE.fits(artifact(format="tflite", path=Path("m.tflite")))
