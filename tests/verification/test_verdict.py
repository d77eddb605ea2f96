"""The verdict: right artifacts pass whatever their noise, and one weight that is wrong by 1 % turns it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers

import artifacts
from mh_edge.errors import InputError, NotEqualError, UsageError
from mh_edge.verification import verify
from verification import models

MODELS = [
    models.dense,
    models.masked_attention,
    models.keras_attention,
    models.convolution,
    models.recurrent,
    models.deep,
]


@pytest.fixture(scope="module", params=MODELS, ids=lambda build: build.__name__)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[keras.Model, Path]:
    build: Callable[[], keras.Model] = request.param
    model = build()
    return model, artifacts.to_onnx(model, tmp_path_factory.mktemp("onnx") / f"{build.__name__}.onnx")


def test_a_right_artifact_passes_and_nothing_is_inconclusive(case: tuple[keras.Model, Path]) -> None:
    model, path = case
    for seed in (0, 1):
        found = verify(model, [path], seed=seed)
        (candidate,) = found.candidates
        assert found.passed, candidate.reasons
        assert candidate.feeds >= 8
        assert (candidate.skipped, candidate.inconclusive, candidate.flips) == (0, 0, 0)
        assert found.yardstick == "float64 clone"


def test_one_weight_off_by_one_percent_turns_the_verdict(case: tuple[keras.Model, Path], tmp_path: Path) -> None:
    model, path = case
    # A bias of the keys adds the same to every score of a softmax row: it has no effect in exact arithmetic.
    weights = [variable for variable in model.trainable_weights if not variable.path.endswith(("key/bias", "/bk"))]
    wrong = []
    for number, variable in enumerate(weights[:: max(1, len(weights) // 3)]):
        kept = variable.value.numpy()
        variable.assign(kept * 1.01)
        wrong.append(artifacts.to_onnx(model, tmp_path / f"{number}.onnx"))
        variable.assign(kept)
    found = verify(model, [path, *wrong])
    assert [candidate.passed for candidate in found.candidates] == [True] + [False] * len(wrong)


def test_a_single_number_off_by_one_percent_is_seen(tmp_path: Path) -> None:
    model = models.dense("linear")
    kernel, bias = model.get_weights()
    path = artifacts.affine_onnx(tmp_path / "right.onnx", kernel, bias)
    assert verify(model, [path]).passed
    kernel[3, 2] *= 1.01
    wrong = artifacts.affine_onnx(tmp_path / "wrong.onnx", kernel, bias)
    found = verify(model, [path, wrong])
    assert [candidate.passed for candidate in found.candidates] == [True, False]
    worst = found.candidates[1].worst
    assert worst is not None
    assert worst.output == "y"
    assert worst.index[-1] == 2  # the column that the number feeds
    assert worst.abs == pytest.approx(abs(worst.got - worst.expected))
    with pytest.raises(NotEqualError, match=r"wrong\.onnx is not equal to .*feeds differ; worst: y\["):
        found.require()


def test_a_small_column_does_not_hide_behind_a_large_one(tmp_path: Path) -> None:
    model = models.dense("linear")
    kernel, bias = model.get_weights()
    kernel[:, 0] *= 1e4
    model.set_weights([kernel, bias])
    wrong = kernel.copy()
    wrong[:, 4] *= 1.01
    assert verify(model, [artifacts.affine_onnx(tmp_path / "right.onnx", kernel, bias)]).passed
    assert not verify(model, [artifacts.affine_onnx(tmp_path / "wrong.onnx", wrong, bias)]).passed


def test_an_artifact_with_a_fixed_batch_and_length_is_compared_at_those(tmp_path: Path) -> None:
    model = models.convolution()
    fixed = artifacts.to_tflite(model, tmp_path / "fixed.tflite", batch=1, sequence=9)
    free = artifacts.to_onnx(model, tmp_path / "free.onnx")
    rows = np.random.default_rng(0).standard_normal((5, 9, 4)).astype("float32")
    found = verify(model, [fixed, free], feeds={"x": rows})
    assert found.passed, [candidate.reasons for candidate in found.candidates]
    one_by_one = next(row for row in found.candidate(str(fixed)).classes if row.kind == "feeds")
    at_once = next(row for row in found.candidate(str(free)).classes if row.kind == "feeds")
    assert (one_by_one.feeds, at_once.feeds) == (5, 1)
    assert found.candidate(str(fixed)).feeds >= 8


def test_float32_that_means_something_else_than_float64_is_compared_with_float32(tmp_path: Path) -> None:
    model = models.swallowing_softmax()
    right = artifacts.to_onnx(model, tmp_path / "right.onnx")
    found = verify(model, [right])
    yardsticks = {row.kind: row.yardstick for row in found.candidates[0].classes}
    assert yardsticks["normal"] == "float64 clone"
    assert yardsticks["normal, mask row"] == "float32 orders"
    assert found.passed, found.candidates[0].reasons
    assert found.candidates[0].inconclusive == 0


def test_state_between_calls_is_named(tmp_path: Path) -> None:
    x = keras.Input((4,), name="x", batch_size=1)
    model = keras.Model(x, keras.layers.Rescaling(2.0, name="y")(x))
    found = verify(model, [artifacts.stateful_tflite(tmp_path / "state.tflite")])
    assert not found.passed
    assert "keeps state between calls" in found.candidates[0].reasons[0]


def test_nan_and_infinity_must_be_in_the_same_places(tmp_path: Path) -> None:
    x = keras.Input((6,), name="x")
    model = models.filled(keras.Model(x, keras.layers.Dense(5, activation=keras.ops.log, name="y")(x)))
    kernel, bias = model.get_weights()
    right = artifacts.affine_onnx(tmp_path / "right.onnx", kernel, bias, op="Log")
    assert verify(model, [right]).passed
    wrong = artifacts.affine_onnx(tmp_path / "wrong.onnx", kernel, bias, op="Identity")
    (candidate,) = verify(model, [wrong]).candidates
    assert not candidate.passed
    assert candidate.required_tolerance.abs == float("inf")
    assert candidate.to_json()["required_tolerance"]["abs"] == "inf"
    assert candidate.to_json()["worst"]["expected"] == "nan"


def _argmax() -> keras.Model:
    class Winner(keras.layers.Layer):
        def call(self, inputs: object) -> object:
            return keras.ops.cast(keras.ops.argmax(inputs, axis=-1), "int64")

    x = keras.Input((6,), name="x")
    return models.filled(keras.Model(x, Winner(name="y")(keras.layers.Dense(5)(x))))


def test_integer_outputs_must_be_equal(tmp_path: Path) -> None:
    model = _argmax()
    kernel, bias = model.get_weights()
    right = artifacts.affine_onnx(tmp_path / "right.onnx", kernel, bias, op="ArgMax")
    assert verify(model, [right]).passed
    bias[0] += 0.5
    (candidate,) = verify(model, [artifacts.affine_onnx(tmp_path / "w.onnx", kernel, bias, op="ArgMax")]).candidates
    assert not candidate.passed
    assert candidate.flips == 0


def test_an_integer_that_the_model_itself_cannot_decide_is_a_flip(tmp_path: Path) -> None:
    model = _argmax()
    kernel, bias = model.get_weights()
    kernel[:, 1], bias[1] = kernel[:, 0] * (1 + 1e-7), bias[0]
    kernel[:, 2:], bias[2:] = 0, -1e6  # columns 0 and 1 alone decide, and they are equal but for the last place
    model.set_weights([kernel, bias])
    kernel[:, [0, 1]] = kernel[:, [1, 0]]
    (candidate,) = verify(model, [artifacts.affine_onnx(tmp_path / "w.onnx", kernel, bias, op="ArgMax")]).candidates
    assert candidate.flips > 0
    assert not candidate.passed
    assert any("flip" in reason for reason in candidate.reasons)


def test_explicit_tolerances_decide_element_by_element(tmp_path: Path) -> None:
    model = models.dense("linear")
    kernel, bias = model.get_weights()
    path = artifacts.affine_onnx(tmp_path / "moved.onnx", kernel, bias + 1e-3)
    assert not verify(model, [path]).passed
    found = verify(model, [path], atol=1.2e-3)
    assert found.passed
    assert found.yardstick == "explicit tolerances"
    assert found.candidates[0].required_tolerance.abs == pytest.approx(1e-3, rel=0.1)
    assert not verify(model, [path], atol=0.9e-3).passed
    needed = found.candidates[0].required_tolerance
    assert verify(model, [path], atol=needed.abs).passed
    assert not verify(model, [path], rtol=1e-7).passed


def test_an_artifact_as_reference_needs_tolerances(tmp_path: Path) -> None:
    kernel, bias = models.dense("linear").get_weights()
    one = artifacts.affine_onnx(tmp_path / "one.onnx", kernel, bias)
    two = artifacts.affine_onnx(tmp_path / "two.onnx", kernel * 1.01, bias)
    with pytest.raises(UsageError, match="rounding errors cannot be measured"):
        verify(one, [two])
    assert verify(one, [one], atol=1e-6).passed
    assert not verify(one, [two], atol=1e-6).passed


def test_another_interface_is_refused_with_both_forms(tmp_path: Path) -> None:
    model = models.dense()
    path = artifacts.affine_onnx(tmp_path / "narrow.onnx", np.ones((4, 5)), np.ones(5))
    with pytest.raises(InputError, match=r"'x' is float32 \(batch, 6\) in the reference and float32 \(batch, 4\)"):
        verify(model, [path])


def test_an_output_of_another_size_is_a_failure_not_a_crash(tmp_path: Path) -> None:
    model = models.dense("linear")
    kernel, bias = model.get_weights()
    path = artifacts.affine_onnx(tmp_path / "shape.onnx", kernel[:, :4], bias[:4])
    with pytest.raises(InputError, match="these shapes do not fit"):
        verify(model, [path])


def test_a_model_that_is_random_at_inference_is_refused(tmp_path: Path) -> None:
    class Noisy(keras.layers.Layer):
        def __init__(self, **kwargs: object) -> None:
            super().__init__(**kwargs)
            self.seed_generator = keras.random.SeedGenerator(1)

        def call(self, inputs: object) -> object:
            return inputs + keras.random.normal(keras.ops.shape(inputs), seed=self.seed_generator)

    x = keras.Input((6,), name="x")
    model = keras.Model(x, Noisy(name="y")(x))
    path = artifacts.affine_onnx(tmp_path / "any.onnx", np.eye(6), np.zeros(6))
    with pytest.raises(InputError, match="gives another 'y' each time"):
        verify(model, [path])


def test_a_candidate_that_refuses_a_feed_fails_with_the_runtimes_words(tmp_path: Path) -> None:
    ids = keras.Input((None,), dtype="int32", name="ids")
    model = keras.Model(ids, keras.layers.Embedding(11, 4, name="y")(ids))
    small = keras.Model(ids, keras.layers.Embedding(7, 4, name="y")(ids))
    (candidate,) = verify(model, [artifacts.to_onnx(small, tmp_path / "small.onnx")]).candidates
    assert not candidate.passed
    assert "ONNX Runtime cannot run" in candidate.reasons[0]


def test_an_output_of_one_number_is_compared(tmp_path: Path) -> None:
    x = keras.Input((4,), name="x")
    model = keras.Model(x, keras.ops.sum(layers.Dense(3)(x)))
    path = artifacts.to_onnx(model, tmp_path / "sum.onnx")
    assert verify(model, [path]).passed
    model.layers[1].bias.assign([0.001, 0.0, 0.0])
    assert not verify(model, [path]).passed


def test_an_output_that_is_empty_for_one_step_is_compared_for_more(tmp_path: Path) -> None:
    x = keras.Input((None, 4), name="x")
    dense = layers.Dense(2)
    model = keras.Model(x, [dense(x)[:, 1:], dense(x)])
    path = artifacts.to_onnx(model, tmp_path / "rest.onnx")
    found = verify(model, [path])
    assert found.passed
    assert found.candidates[0].feeds >= 8
    dense.bias.assign([0.001, 0.0])
    assert not verify(model, [path]).passed


def test_a_feed_on_which_all_outputs_are_empty_does_not_count(tmp_path: Path) -> None:
    x = keras.Input((None, 4), name="x")
    model = keras.Model(x, layers.Dense(2)(x)[:, 1:])
    (candidate,) = verify(model, [artifacts.to_onnx(model, tmp_path / "rest.onnx")]).candidates
    assert candidate.passed
    assert candidate.feeds >= 8
    assert candidate.skipped > 0
