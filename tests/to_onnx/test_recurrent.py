"""Recurrent layers beyond the cases of their rules: initial states beside a mask, cells, and what stays a Loop."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import onnx
import onnxruntime
import pytest
from keras import layers

from mh_edge.verification import verify
from to_onnx.conversion import convert, operations, proven

ROWS = (None, 4)
DELEGATES = Path(__file__).parents[1] / "delegates"


@keras.saving.register_keras_serializable("tests")
class Leaky(layers.Layer):
    """y = h' = h / 2 + x W: a cell that ONNX has no operation for."""

    def __init__(self, units, **options):
        super().__init__(**options)
        self.units = self.state_size = self.output_size = units
        self.project = layers.Dense(units)

    def build(self, shape):
        self.project.build(shape)
        self.built = True

    def call(self, x, states):
        h = states[0] / 2 + self.project(x)
        return h, [h]

    def get_config(self):
        return {**super().get_config(), "units": self.units}


def present(x):
    """A mask with holes; Keras hands on none of its own beside an initial state."""
    return keras.ops.any(x > 0.9, axis=-1)


def started(layer, *units, states=list):
    """A model that gives the layer initial states and a mask."""
    x = keras.Input(ROWS, name="x")
    given = [keras.Input((size,), name=f"state{index}") for index, size in enumerate(units)]
    return keras.Model([x, *given], layer(x, initial_state=states(given), mask=present(x)))


STARTED = {
    "lstm_zero_output": lambda: started(layers.LSTM(3, return_sequences=True, zero_output_for_mask=True), 3, 3),
    "lstm_backwards": lambda: started(
        layers.LSTM(3, return_sequences=True, return_state=True, go_backwards=True), 3, 3
    ),
    "gru_last": lambda: started(layers.GRU(3, return_state=True), 3),
    "gru_zero_output": lambda: started(layers.GRU(3, zero_output_for_mask=True, go_backwards=True), 3),
    "cells": lambda: started(
        layers.RNN([layers.LSTMCell(3), layers.GRUCell(2)], return_sequences=True, return_state=True),
        *(3, 3, 2),
        states=lambda given: [given[:2], given[2:]],
    ),
}


@pytest.mark.parametrize("name", STARTED)
def test_initial_states_beside_a_mask(name, tmp_path):
    """Keras repeats nothing before the first valid step, and hands the initial state on where there is none."""
    keras.utils.set_random_seed(2)
    model, files = STARTED[name](), []
    for runtime in ("cpu", "portable", "plugins"):
        source, file = convert(model, tmp_path / f"{runtime}.onnx", runtime=runtime)
        assert not {"Loop", "Scan", "If"} & set(operations(file))
        files.append(file)
    result = verify(source, files)
    assert result.passed, result.to_json()


def test_a_masked_step_of_a_gru_holds_its_state_to_the_last_digit(tmp_path):
    """The update gate is exactly 1 there, however large the numbers that it has to outweigh."""
    keras.utils.set_random_seed(2)
    x = keras.Input(ROWS, name="x")
    mask = keras.Input((None,), dtype="bool", name="mask")
    model = keras.Model([x, mask], layers.GRU(5, return_sequences=True, return_state=True)(x, mask=mask))
    _, file = convert(model, tmp_path / "gru.onnx")
    rng = np.random.default_rng(0)
    valid = rng.random((3, 40)) < 0.4
    for size in (1, 1e4):
        feed = {"x": (size * rng.normal(size=(3, 40, 4))).astype("float32"), "mask": valid}
        sequence, last = onnxruntime.InferenceSession(file).run(None, feed)
        held = ~valid[:, 1:]
        np.testing.assert_array_equal(sequence[:, 1:][held], sequence[:, :-1][held])
        np.testing.assert_array_equal(sequence[:, -1], last)
        assert (sequence[:, 1:][~held] != sequence[:, :-1][~held]).any()


@pytest.mark.parametrize("garbage", [-1e12, 3e38, np.inf, np.nan])
@pytest.mark.parametrize(("layer", "runtime"), [(layers.GRU, "cpu"), (layers.LSTM, "cpu"), (layers.LSTM, "plugins")])
def test_what_stands_at_masked_steps_is_not_read(layer, runtime, garbage, tmp_path):
    keras.utils.set_random_seed(2)
    x = keras.Input(ROWS, name="x")
    mask = keras.Input((None,), dtype="bool", name="mask")
    _, file = convert(keras.Model([x, mask], layer(5)(x, mask=mask)), tmp_path / "layer.onnx", runtime=runtime)
    rng = np.random.default_rng(0)
    valid = rng.random((3, 12)) < 0.5
    clean = np.where(valid[..., None], rng.normal(size=(3, 12, 4)), 0).astype("float32")
    filled = np.where(valid[..., None], clean, np.float32(garbage))
    session = onnxruntime.InferenceSession(file)
    expected, got = (session.run(None, {"x": rows, "mask": valid})[0] for rows in (clean, filled))
    np.testing.assert_array_equal(got, expected)


OPERATIONS = {
    "lstm_last": (layers.LSTM, {}, {"LSTM": 1, "TopK": 1, "GatherND": 1}),
    "lstm_sequences": (layers.LSTM, {"return_sequences": True}, {"LSTM": 1, "TopK": 1, "GatherND": 2, "CumSum": 1}),
    "gru_sequences": (layers.GRU, {"return_sequences": True}, {"GRU": 1, "Concat": 1}),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_a_mask_costs_these_operations_and_no_others(name, tmp_path):
    make, options, counted = OPERATIONS[name]
    x = keras.Input(ROWS, name="x")
    mask = keras.Input((None,), dtype="bool", name="mask")
    _, file = convert(keras.Model([x, mask], make(3, **options)(x, mask=mask)), tmp_path / "x.onnx")
    found = operations(file)
    costly = ("Concat", "CumSum", "GatherElements", "GatherND", "ScatterElements", "ScatterND", "TopK", "LSTM", "GRU")
    assert {op: found[op] for op in costly if found[op]} == counted
    assert sum(found.values()) <= 14


def on_plugins():
    """The model of tests/delegates/masked_*.onnx: every direction of the form for plug-ins, and a GRU that holds."""
    x = keras.Input((None, 16), name="x")
    mask = keras.Input((None,), dtype="bool", name="valid")
    both = layers.Bidirectional(layers.LSTM(4, return_sequences=True))(x, mask=mask)
    last = layers.LSTM(4)(both, mask=mask)
    held = layers.GRU(4)(both, mask=mask)
    return keras.Model([x, mask], layers.Concatenate(name="y")([last, held]))


@pytest.mark.parametrize(("name", "sizes"), {"free": {}, "fixed": {"batch": 1, "sequence": 7}}.items())
def test_plugins_are_given_no_lengths_and_no_equal_keys(name, sizes, tmp_path):
    """What plug-ins take wrongly: QNN equal keys of TopK, and numbers beyond float16; OpenVINO lengths."""
    keras.utils.set_random_seed(2)
    source, path = convert(on_plugins(), tmp_path / "masked.onnx", runtime="plugins", **sizes)
    assert operations(path) == operations(DELEGATES / f"masked_{name}.onnx"), "write that file anew, with this model"
    result = verify(source, [path])
    assert result.passed, result.to_json()
    file = onnx.load(path)
    recurrent = [node for node in file.graph.node if node.op_type in ("LSTM", "GRU")]
    assert len(recurrent) == 4
    assert not any("".join(node.input[4:]) for node in recurrent)
    assert max(np.abs(onnx.numpy_helper.to_array(item)).max() for item in file.graph.initializer) < 65504
    keys = sorted({node.input[0] for node in file.graph.node if node.op_type == "TopK"})
    assert keys
    file.graph.output.extend(onnx.helper.make_tensor_value_info(key, onnx.TensorProto.INT32, None) for key in keys)
    valid = np.array([[False, True, True, False, True, True, False]])
    session = onnxruntime.InferenceSession(file.SerializeToString())
    for found in session.run(keys, {"x": np.ones((1, 7, 16), "float32"), "valid": valid}):
        assert sorted(found[valid].ravel()) == [1, 2, 3, 4]
        assert not found[~valid].any()


@pytest.mark.parametrize("opset", [17, 23])
def test_plugins_find_masked_steps_by_the_largest_number(opset, tmp_path):
    """OpenVINO opens no file with ReduceL1 there; QNN's float16 has no sum of large numbers."""
    x = keras.Input(ROWS, name="x")
    model = keras.Model(x, layers.LSTM(3)(layers.Masking()(x)))
    source, path = convert(model, tmp_path / "masked.onnx", opset=opset, runtime="plugins")
    made = operations(path)
    assert (made["Abs"], made["ReduceMax"], made["ReduceL1"]) == (1, 1, 0)
    result = verify(source, [path])
    assert result.passed, result.to_json()


OTHERS = {
    "unrolled": (lambda: layers.GRU(3, unroll=True, reset_after=False, return_sequences=True), (6, 4), "GRU"),
    "custom_cell": (lambda: layers.RNN([layers.GRUCell(2), Leaky(3)], return_sequences=True), ROWS, "Loop"),
    "conv_lstm": (lambda: layers.ConvLSTM2D(2, 3, return_sequences=True, go_backwards=True), (3, 6, 5, 2), "Loop"),
    "both_ways_silu": (lambda: layers.Bidirectional(layers.GRU(3, activation="silu")), ROWS, "Loop"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_others(name, tmp_path):
    make, shape, operation = OTHERS[name]
    keras.utils.set_random_seed(2)
    result = proven(keras.Sequential([keras.Input(shape), make()]), tmp_path / "x.onnx")
    assert result.passed, result.to_json()
    assert operations(tmp_path / "x.onnx")[operation]
