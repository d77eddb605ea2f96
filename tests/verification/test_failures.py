"""A failure leaves a small feed that repeats it, and a report that says everything."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers

import artifacts
from mh_edge.errors import InputError, NotEqualError
from mh_edge.signature import Signature, Tensor
from mh_edge.verification import verify
from mh_edge.verification.failures import shrink
from mh_edge.verification.feeds import Feed, Spec, build
from verification import models

SIGNATURE = Signature(
    (Tensor("x", "float32", ("batch", "sequence", 4)),), (Tensor("y", "float32", ("batch", "sequence", 4)),)
)


def test_the_failing_feed_is_shrunk_saved_and_fails_again(tmp_path: Path) -> None:
    model = models.convolution()
    path = artifacts.to_onnx(model, tmp_path / "model.onnx")
    last = model.layers[-1]
    last.set_weights([value * 1.01 for value in last.get_weights()])
    model.save(tmp_path / "my model.keras")
    found = verify(model, [path], failures=tmp_path / "failures")
    assert found.candidates[0].repeat is None  # no command knows a model in memory
    with pytest.raises(NotEqualError) as caught:
        found.require()
    assert caught.value.hint == f"The feed that fails is saved in {found.candidates[0].saved}."
    options = {"failures": tmp_path / "failures", "atol": 1e-5, "seed": 3, "custom_modules": ("json",), "unsafe": True}
    found = verify(tmp_path / "my model.keras", path, **options)
    (candidate,) = found.candidates
    assert not found.passed
    assert candidate.saved is not None
    assert candidate.repeat is not None
    assert shlex.split(candidate.repeat) == [
        *("mh-edge", "verify", str(tmp_path / "my model.keras"), str(path), "--feeds", candidate.saved),
        *("--atol", "1e-05", "--seed", "3", "--failures", str(tmp_path / "failures"), "--import", "json", "--unsafe"),
    ]
    with pytest.raises(NotEqualError) as caught:
        found.require()
    assert candidate.repeat in caught.value.hint
    with np.load(candidate.saved, allow_pickle=False) as arrays:
        feeds = dict(arrays)
    assert feeds["x"].shape == (1, 1, 4)  # the smallest feed fails as well
    again = verify(model, [path], feeds=feeds)
    row = next(row for row in again.candidates[0].classes if row.kind == "feeds")
    assert row.failed == 1


def test_nothing_is_saved_when_all_is_equal(tmp_path: Path) -> None:
    model = models.dense("linear")
    path = artifacts.affine_onnx(tmp_path / "right.onnx", *model.get_weights())
    (candidate,) = verify(model, [path], failures=tmp_path / "failures").candidates
    assert candidate.saved is None
    assert not (tmp_path / "failures").exists()


def test_shrinking_keeps_what_the_failure_needs() -> None:
    def fails(feed: Feed) -> bool:
        return feed.arrays["x"].shape[0] >= 2 and feed.arrays["x"].shape[1] > 1 and bool((feed.arrays["x"] != 0).any())

    start = build(SIGNATURE, Spec("large", "none", (("batch", 5), ("sequence", 33)), (0, 7)))
    small = shrink(SIGNATURE, start, fails)
    assert small.spec == Spec("normal", "none", (("batch", 2), ("sequence", 2)), (0, 7))
    assert fails(small)


def test_the_report_is_plain_strict_json(tmp_path: Path) -> None:
    model = models.dense("linear")
    kernel, bias = model.get_weights()
    right = artifacts.affine_onnx(tmp_path / "right.onnx", kernel, bias)
    wrong = artifacts.affine_onnx(tmp_path / "wrong.onnx", kernel, bias * np.inf)
    report = verify(model, [right, wrong], label="model.keras").to_json()
    assert json.loads(json.dumps(report, allow_nan=False)) == report
    assert report["reference"] == "model.keras"
    assert report["passed"] is False
    one, two = report["candidates"]
    assert one.keys() >= {"path", "passed", "feeds", "required_tolerance", "worst"}
    assert one["worst"].keys() == {"feed", "output", "index", "expected", "got", "abs", "rel"}
    assert one["required_tolerance"]["abs"] < 1e-5
    assert two["required_tolerance"]["abs"] == "inf"
    assert [row["failed"] > 0 for row in two["classes"]] == [True] * len(two["classes"])


def test_rows_put_the_candidates_side_by_side(tmp_path: Path) -> None:
    model = models.convolution()
    free = artifacts.to_onnx(model, tmp_path / "free.onnx")
    fixed = artifacts.to_tflite(model, tmp_path / "fixed.tflite", batch=1, sequence=5)
    found = verify(model, [free, fixed])
    rows = found.rows()
    assert [row["feeds"] for row in rows] == ["normal", "large", "zero", "verdict"]
    assert all(row.keys() == {"feeds", str(free), str(fixed)} for row in rows)
    assert rows[-1][str(free)] == rows[-1][str(fixed)] == "equal"


def test_a_model_that_refuses_the_grid_needs_feeds(tmp_path: Path) -> None:
    class Eleven(layers.Layer):
        def call(self, inputs: object) -> object:
            if inputs.shape[1] in (1, 3, 16, 33, 67, 128):
                raise ValueError(f"{inputs.shape[1]} steps are no sentence")
            return inputs * 2.0

        def compute_output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
            return shape

    x = keras.Input((None, 4), name="x")
    model = keras.Model(x, Eleven(name="y")(x))
    path = artifacts.affine_onnx(
        tmp_path / "twice.onnx", 2 * np.eye(4), np.zeros(4), input_shape=("batch", "sequence", 4)
    )
    with pytest.raises(
        InputError, match=r"itself refuses 49 of 53 generated feeds, and 8 are needed: [0-9]+ steps are no sentence"
    ) as caught:
        verify(model, [path])
    assert "--feeds" in caught.value.hint
    found = verify(model, [path], feeds={"x": np.ones((2, 11, 4), "float32")})
    assert found.passed
    (candidate,) = found.candidates
    assert candidate.skipped > 0
    assert f"{candidate.skipped} of {candidate.skipped + candidate.feeds} feeds were skipped" in candidate.notes[0]
    assert found.rows()[-1][str(path)] == f"equal, {candidate.skipped} feeds skipped"


def test_feeds_the_model_refuses_are_an_error(tmp_path: Path) -> None:
    ids = keras.Input((None,), dtype="int32", name="ids")
    model = keras.Model(ids, layers.Embedding(7, 3, name="y")(ids))
    path = artifacts.to_onnx(model, tmp_path / "ids.onnx")
    with pytest.raises(InputError, match="does not take the feeds given"):
        verify(model, [path], feeds={"ids": np.full((1, 4), 99, "int32")})
