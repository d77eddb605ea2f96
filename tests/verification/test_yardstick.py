"""The yardstick: which one is chosen, that a false float64 is found out, and what noise allows."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import onnx
import pytest
from keras import layers
from onnx import TensorProto, helper, numpy_helper

import artifacts
from mh_edge.program import program
from mh_edge.signature import Signature, Tensor
from mh_edge.verification import truth, verify
from mh_edge.verification.evaluate import Evaluator
from mh_edge.verification.keras_reference import KerasReference
from mh_edge.verification.noise import CAP, FACTOR, FLOOR_ULPS, Pool
from mh_edge.verification.orders import Orders
from mh_edge.verification.reference import Expected
from verification import models

FEEDS = {"x": np.random.default_rng(0).standard_normal((4, 6)).astype("float32")}


class Rounded(layers.Layer):
    """A Dense that computes in float32 whatever its policy says."""

    def __init__(self, whole: bool = False, **kwargs: object) -> None:
        super().__init__(**kwargs)
        self.whole = whole

    def build(self, shape: tuple[int, ...]) -> None:
        self.kernel = self.add_weight(shape=(shape[-1], 6), initializer="glorot_uniform", name="kernel")

    def call(self, inputs: object) -> object:
        narrow = keras.ops.matmul(keras.ops.cast(inputs, "float32"), keras.ops.cast(self.kernel, "float32"))
        return narrow if self.whole else keras.ops.cast(narrow, self.compute_dtype)

    def get_config(self) -> dict[str, object]:
        return {**super().get_config(), "whole": self.whole}


def _rounded(whole: bool, residual: bool = False) -> keras.Model:
    x = keras.Input((6,), name="x")
    h = layers.Dense(6, activation="tanh")(x)
    h = h + Rounded()(h) if residual else Rounded(whole)(h)
    return models.filled(keras.Model(x, h if whole else layers.Dense(5, name="y")(h)))


@pytest.mark.parametrize("build", [models.dense, models.deep], ids=lambda build: build.__name__)
def test_an_honest_clone_is_believed(build: object) -> None:
    found = program(build())
    feeds = {"x": np.random.default_rng(1).standard_normal((4, found.signature.inputs[0].shape[1])).astype("float32")}
    before = [variable.value.numpy() for variable in found.variables]
    assert isinstance(truth.float64_truth(found, feeds), Evaluator)
    for variable, value in zip(found.variables, before, strict=True):
        np.testing.assert_array_equal(variable.value.numpy(), value)


def test_the_clone_has_its_own_weights_back_after_it_was_tried() -> None:
    found = program(models.dense())
    evaluator = truth.float64_truth(found, FEEDS)
    assert isinstance(evaluator, Evaluator)
    kernel, bias = (value.astype("float64") for value in found.model.get_weights())
    np.testing.assert_allclose(evaluator.run(FEEDS)["y"], np.maximum(FEEDS["x"] @ kernel + bias, 0), rtol=1e-14)


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (_rounded(whole=True), "still gives float32"),
        (_rounded(whole=False), "rounds to float32 somewhere before output 'y'"),
        (_rounded(whole=False, residual=True), "rounds to float32 somewhere before output 'y'"),
    ],
    ids=["at the end", "in the middle", "beside a residual"],
)
def test_a_hidden_cast_to_float32_is_found_out(model: keras.Model, reason: str) -> None:
    found = truth.float64_truth(program(model), FEEDS)
    assert isinstance(found, str)
    assert reason in found


def test_a_clone_too_large_for_the_memory_is_not_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(truth, "ALWAYS_CLONED", 100)
    monkeypatch.setattr(truth, "_free_memory", lambda: 1000)
    found = truth.float64_truth(program(models.dense()), FEEDS)
    assert isinstance(found, str)
    assert "too large" in found


def test_without_float64_the_orders_decide_and_still_see_one_percent(tmp_path: Path) -> None:
    model = _rounded(whole=False)
    path = artifacts.to_onnx(model, tmp_path / "rounded.onnx")
    found = verify(model, [path])
    assert found.yardstick.startswith("float32 orders, because its float64 clone rounds")
    assert found.passed, found.candidates[0].reasons
    for variable in model.trainable_weights:
        kept = variable.value.numpy()
        variable.assign(kept * 1.01)
        assert not verify(model, [path]).passed, variable.path
        variable.assign(kept)


def test_orders_are_the_same_function_with_other_rounding() -> None:
    found = program(models.deep())
    evaluator = Evaluator(found)
    feeds = {"x": np.random.default_rng(1).standard_normal((5, 32)).astype("float32")}
    value = evaluator.run(feeds)["y"]
    runs = [outputs["y"] for outputs in Orders(found, evaluator).runs(feeds)]
    assert len(runs) == 5  # eager, two nudges, XLA, row by row
    spread = max(float(np.abs(run - value).max()) for run in runs)
    assert 0 < spread < 1e-3 * np.abs(value).max()


def test_what_is_allowed_is_factor_times_noise_between_floor_and_cap() -> None:
    output = Tensor("y", "float32", ("batch", 2))
    pool = Pool(Signature((), (output,)))
    exact = np.array([[1.0, -2.0], [0.5, 1.0]])
    noisy = exact + np.array([[1e-6, 0.0], [0.0, 3e-4]])
    pool.add("normal", Expected({"y": noisy.astype("float32")}, {"y": exact}))
    limits = pool.allowance("normal", output)
    assert limits.yardstick == "float64 clone"
    assert limits.noise == pytest.approx(3e-4, rel=1e-3)
    cap = CAP * 2.0
    assert limits.explained[1] == pytest.approx(FACTOR * 3e-4, rel=1e-3)
    assert limits.allowed[1] == pytest.approx(cap)
    quiet = Pool(Signature((), (output,)))
    quiet.add("normal", Expected({"y": exact.astype("float32")}, {"y": exact}))
    assert quiet.allowance("normal", output).allowed == pytest.approx(FLOOR_ULPS * 2**-23 * np.array([1.0, 2.0]))


@pytest.mark.filterwarnings("error")
def test_outputs_that_are_infinite_do_not_make_a_clone_doubtful() -> None:
    """The mask that a layer puts out as 0 and -inf says nothing about rounding; the rest of the output does."""
    x = keras.Input((6,), name="x")
    masked = keras.ops.where(x > 0, x * x, -np.inf)
    found = program(models.filled(keras.Model(x, layers.Dense(6)(x) + masked)))
    assert isinstance(truth.float64_truth(found, FEEDS), Evaluator)
    infinite = np.array([np.inf, -np.inf, np.nan, 1.0])
    assert truth._bend(infinite, infinite, np.full(4, np.inf)) == 0.0
    assert truth._bend(infinite, infinite + 1, infinite + 3) == 1.0


def _of_one_number(model: keras.Model, path: Path, gain: float = 1.0) -> Path:
    """LayerNormalization of one number as Keras writes it, x inv + (beta - mean inv), which no graph simplifies."""
    gamma, beta = (value.astype("float32") for value in model.get_weights())
    inv = (gamma / np.sqrt(np.float32(1e-3))).astype("float32")
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["mean"], axes=[-1], keepdims=1),
        helper.make_node("Mul", ["mean", "inv"], ["shift"]),
        helper.make_node("Sub", ["beta", "shift"], ["rest"]),
        helper.make_node("Mul", ["x", "inv"], ["scaled"]),
        helper.make_node("Add", ["scaled", "rest"], ["y"]),
    ]
    values = {"inv": inv, "beta": beta * np.float32(gain)}
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 1]) for name in "xy")
    graph = helper.make_graph(nodes, "g", [x], [y], [numpy_helper.from_array(v, k) for k, v in values.items()])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))
    return path


def test_rounding_that_tensorflows_graph_simplified_away_is_no_difference(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = keras.Sequential([keras.Input((1,), name="x"), layers.LayerNormalization(name="y")])
    model.set_weights([np.array([1.3]), np.array([0.9])])
    found = verify(model, [_of_one_number(model, tmp_path / "y.onnx")])
    assert found.passed, found.candidates[0].reasons
    assert not verify(model, [_of_one_number(model, tmp_path / "wrong.onnx", gain=1.01)]).passed
    monkeypatch.setattr(KerasReference, "eager", KerasReference.expected)
    assert not verify(model, [tmp_path / "y.onnx"]).passed


def test_noise_beyond_the_cap_takes_float64_off_the_throne() -> None:
    output = Tensor("y", "float32", ("batch", 1))
    pool = Pool(Signature((), (output,)))
    plain = np.array([[1.0], [0.9]], "float32")
    pool.add("normal", Expected({"y": plain}, {"y": plain.astype("float64") + 0.1}))
    assert pool.needs_orders("normal")
    assert not pool.measured("normal")
    pool.add_order("normal", {"y": plain}, {"y": plain * np.float32(1 + 1e-6)})
    limits = pool.allowance("normal", output)
    assert limits.yardstick == "float32 orders"
    assert limits.noise == pytest.approx(1e-6, rel=0.1)


def test_a_model_without_digits_is_inconclusive_and_does_not_pass(tmp_path: Path) -> None:
    x = keras.Input((6,), name="x")
    model = models.filled(keras.Model(x, layers.Dense(5, activation=keras.ops.sin, name="y")(x)))
    kernel, bias = model.get_weights()
    kernel *= 1e6  # float32 does not know which turn of the sine it is in
    model.set_weights([kernel, bias])
    rounded = np.nextafter(kernel, np.float32(np.inf))  # as good as the kernel itself
    (candidate,) = verify(model, [artifacts.affine_onnx(tmp_path / "y.onnx", rounded, bias, op="Sin")]).candidates
    assert not candidate.passed
    assert candidate.inconclusive > 0.1 * candidate.feeds
    assert "prove nothing" in candidate.reasons[0]
    assert "--feeds" in candidate.reasons[0]
