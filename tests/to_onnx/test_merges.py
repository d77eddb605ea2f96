"""Parallel heads as one operation: equal to Keras, taken and declined by the cost model, never under --no-merge.

The cases of MultiHead's rule go through the whole grid of feeds; here are more models and fewer feeds.
"""

from __future__ import annotations

import keras
import numpy as np
import onnxruntime
import pytest
from keras import layers

import mh_edge_onnx
from mh_edge.layers import MultiHead
from mh_edge.merging import Taps, block_diagonal, common_taps, folded, groups, interleaved, placed, taps
from mh_edge.opsets import OLDEST_RUNTIME
from mh_edge.program import program
from mh_edge.verification.domains import derive
from to_onnx.conversion import convert, operations

ROWS, FIXED, IMAGE = (None, 6), (12, 6), (None, None, 6)


def model(shape, layer, count=1, masked=False, **options):
    """MultiHead with weights that are not where initialisers put them, biases above all."""
    x = keras.Input(shape, name="x")
    z = layers.Masking()(x) if masked else x
    made = keras.Model(x, MultiHead(layer, count, **options)(z))
    random = np.random.default_rng(3)
    for variable in made.variables:
        if "float" in variable.dtype:
            variable.assign(random.normal(size=variable.shape) * 0.5)
    return made


def kernels(*sizes, **options):
    return [layers.Conv1D(4, size, padding="same", **options) for size in sizes]


# name -> (model, the operations that do the heads' work)
# fmt: off
MERGED = {
    "dense_of_rows": (lambda: model((6,), layers.Dense(3), 4), {"Gemm": 1}),
    "dense_traced_activation": (lambda: model(IMAGE, layers.Dense(3, "tanh_shrink", use_bias=False), 3), {"Gemm": 1}),
    "dense_time_distributed": (
        lambda: model(ROWS, layers.TimeDistributed(layers.Dense(3)), 3, masked=True), {"Gemm": 1}),
    "dense_two_kinds": (
        lambda: model(ROWS, [layers.Dense(3), layers.Dense(3, "relu"), layers.Dense(3), layers.Dense(3, "relu")]),
        {"Gemm": 2, "Gather": 1}),
    "dense_softmax": (lambda: model(ROWS, layers.Dense(3, "softmax"), 3), {"MatMul": 3}),
    "hidden_bias": (lambda: model(ROWS, layers.Dense(3, use_bias=False), 3, hidden_dim=4), {"Gemm": 1, "MatMul": 0}),
    "hidden_batched": (lambda: model(ROWS, layers.Dense(32, "relu"), 5, hidden_dim=1), {"MatMul": 2, "Split": 0}),
    "hidden_of_some": (
        lambda: model(ROWS, [layers.Dense(3), layers.Dense(3, "softmax"), layers.Dense(3)], hidden_dim=4),
        {"Gemm": 1, "MatMul": 2}),
    "valid": (lambda: model(FIXED, layers.Conv1D(4, 3, strides=2, activation="elu"), 3, hidden_dim=5), {"Conv": 1}),
    "valid_one_extent": (
        lambda: model(FIXED, [layers.Conv1D(4, 5), layers.Conv1D(4, 3, dilation_rate=2)]), {"Conv": 1}),
    "same_stride": (lambda: model(ROWS, layers.Conv1D(4, 2, strides=3, padding="same"), 3), {"Conv": 1}),
    "same_stride_two_sizes": (lambda: model(ROWS, kernels(3, 5, 3, strides=2)), {"Conv": 2}),
    "causal_stride": (
        lambda: model(ROWS, [layers.Conv1D(4, size, 2, "causal") for size in (3, 4, 1)]), {"Conv": 1}),
    "places": (
        lambda: model(ROWS, [
            layers.Conv1D(4, 2, dilation_rate=4, padding="same"),
            layers.Conv1D(4, 3, dilation_rate=2, padding="causal"),
            layers.Conv1D(4, 1), layers.Conv1D(4, 4, padding="same")]),
        {"Conv": 1}),
    "channel_groups": (lambda: model(ROWS, kernels(3, 5, groups=2)), {"Conv": 1}),
    "hidden_padded": (lambda: model(ROWS, kernels(3, 3), hidden_dim=4), {"Conv": 2, "Split": 1}),
    "hidden_padded_no_bias": (
        lambda: model(ROWS, kernels(3, 3, use_bias=False), hidden_dim=5, use_bias=False), {"Conv": 1, "MatMul": 0}),
    "many_zeros": (lambda: model(IMAGE, [layers.Conv2D(32, size, padding="same") for size in (1, 5)]), {"Conv": 2}),
    "images": (lambda: model(IMAGE, [layers.Conv2D(4, size, padding="same") for size in (3, (1, 2))]), {"Conv": 1}),
    "separable": (
        lambda: model(ROWS, layers.SeparableConv1D(4, 3, padding="same", depth_multiplier=2), 2), {"Conv": 1}),
    "depthwise": (lambda: model(ROWS, layers.DepthwiseConv1D(3, padding="same", depth_multiplier=2), 3), {"Conv": 1}),
    "depthwise_many": (lambda: model((None, 8), layers.DepthwiseConv1D(3, padding="same"), 3), {"Conv": 3}),
    "backwards": (
        lambda: model(ROWS, layers.LSTM(3, return_sequences=True, go_backwards=True, use_bias=False), 2, masked=True,
                      hidden_dim=4),
        {"LSTM": 1, "MatMul": 0}),
    "hidden_gru_no_bias": (lambda: model(ROWS, layers.GRU(3, use_bias=False), 3, hidden_dim=4), {"GRU": 1}),
    "hidden_gru": (lambda: model(ROWS, layers.GRU(3), 3, masked=True, hidden_dim=1), {"GRU": 1, "MatMul": 1}),
    "reset_before": (lambda: model(ROWS, layers.GRU(3, reset_after=False), 3, masked=True), {"GRU": 1}),
    "zero_output": (
        lambda: model(ROWS, layers.LSTM(3, return_sequences=True, zero_output_for_mask=True), 2, masked=True),
        {"LSTM": 1}),
    "simple_rnn": (lambda: model(ROWS, layers.SimpleRNN(3, "relu", return_sequences=True), 3, masked=True), {"RNN": 1}),
    "blocks": (lambda: model(ROWS, layers.LSTM(16), 5, hidden_dim=1), {"LSTM": 2}),
    "two_directions": (
        lambda: model(ROWS, layers.Bidirectional(layers.GRU(3, return_sequences=True), "ave"), 3, masked=True),
        {"GRU": 1}),
    "hidden_two_directions": (
        lambda: model(ROWS, layers.Bidirectional(layers.LSTM(3)), 2, masked=True, hidden_dim=4), {"LSTM": 1}),
    "several_kinds": (
        lambda: model(ROWS, [layers.LSTM(3), layers.GRU(3), layers.LSTM(3), layers.GRU(3, go_backwards=True)]),
        {"LSTM": 1, "GRU": 2, "Gather": 1}),
    "too_wide": (lambda: model(ROWS, layers.GRU(17), 2), {"GRU": 2}),
}
# fmt: on


CLOSE = 2e-6
"""Of the output's scale: what float32 may lose where a kernel is folded or a sum is taken in another order."""


def feeds(model):
    """Batches of 1, 2 and 3; 9, 12 and 1 steps, some masked, one row of the last altogether."""
    random = np.random.default_rng(1)
    for batch, steps in ((2, 9), (1, 12), (3, 1)):
        shape = [batch, *(steps if size is None else size for size in model.inputs[0].shape[1:])]
        x = random.normal(size=shape)
        x[random.random(size=shape[:-1]) < 0.3] = 0
        yield x.astype("float32")


def distance(model, path):
    """The largest difference from Keras, as a part of the output's scale."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    pairs = [(session.run(None, {"x": x})[0], np.asarray(model(x))) for x in feeds(model)]
    assert all(got.shape == expected.shape for got, expected in pairs)
    return max(np.abs(got - expected).max() / max(1, np.abs(expected).max()) for got, expected in pairs)


@pytest.mark.parametrize("name", MERGED)
def test_equals_keras(name, tmp_path):
    build, expected = MERGED[name]
    made = build()
    _, path = convert(made, tmp_path / "x.onnx")
    found = operations(path)
    assert {kind: found[kind] for kind in expected} == expected
    assert distance(made, path) < CLOSE


@pytest.mark.parametrize("name", ["hidden_of_some", "places", "two_directions", "several_kinds"])
def test_apart_when_merging_is_off(name, tmp_path):
    made = MERGED[name][0]()
    source = derive(program(made))
    converted = mh_edge_onnx.convert(source, source.signature, merge=False)
    converted.save(tmp_path / "x.onnx")
    assert not any(" as " in choice.choice for choice in converted.choices)
    assert distance(made, tmp_path / "x.onnx") < CLOSE


def test_a_wrong_weight_is_noticed(tmp_path):
    made = MERGED["places"][0]()
    _, path = convert(made, tmp_path / "x.onnx")
    kernel = made.layers[-1].layers[2].kernel
    kernel.assign(kernel * 1.01)
    assert distance(made, path) > 100 * CLOSE


@pytest.mark.parametrize("opset", range(min(OLDEST_RUNTIME), max(OLDEST_RUNTIME)))
def test_every_opset(opset, tmp_path):
    heads = [layers.Dense(4), *kernels(3, 5), layers.Dense(4), *[layers.LSTM(4, return_sequences=True)] * 2]
    made = model(ROWS, heads, hidden_dim=4, use_bias=False)
    _, path = convert(made, tmp_path / "x.onnx", opset=opset, runtime="portable")
    found = operations(path)
    assert (found["MatMul"] + found["Gemm"], found["Conv"], found["LSTM"]) == (1, 1, 1)
    assert distance(made, path) < CLOSE


def choices(layer, count=1, shape=ROWS, merge=True, **options):
    source = derive(program(model(shape, layer, count, **options)))
    return [(one.choice, one.why) for one in mh_edge_onnx.convert(source, source.signature, merge=merge).choices]


def test_choices_are_told():
    assert choices(layers.Dense(3), 4) == [
        ("4 Dense heads as one product", "the input is read once and nothing is stacked")
    ]
    assert choices(layers.Dense(3), 4, merge=False) == [("Dense apart: head 0, 1, 2, 3", "merging is switched off")]
    [(choice, why), *_] = choices(layers.LSTM(64), 2)
    assert choice == "LSTM apart: head 0, 1"
    assert "64 units" in why
    [_, (choice, why)] = choices([layers.Dense(3), layers.Dense(3), layers.Dense(3, "relu")])
    assert (choice, why) == ("Dense apart: head 2", "head 2 has activation=relu, head 0 has linear")


def test_one_head_pays_nothing(tmp_path):
    _, path = convert(model(ROWS, layers.Dense(3)), tmp_path / "x.onnx")
    assert set(operations(path)) <= {"MatMul", "Gemm", "Add", "Unsqueeze"}
    assert choices(layers.Dense(3), 1) == []


def built(*heads):
    layer = MultiHead(list(heads))
    layer.build((None, 20, 6))
    return layer


def test_groups_name_what_differs():
    first, second, third = groups(
        built(layers.Dense(3), layers.Conv1D(3, 1, dtype="float64"), layers.Dense(3), layers.Dense(3, "softmax"))
    )
    assert first.numbers == (0, 2)
    assert first.reason is None
    assert second.reason == "head 1 has layer=Conv1D, head 0 has Dense"
    assert third.reason == "its activation softmax is not known to act on each number alone"


def test_common_taps():
    heads = built(*kernels(3, 7), layers.Conv1D(4, 3, dilation_rate=2, padding="causal")).layers
    assert [taps(head) for head in heads] == [(Taps(-1, 1, 3, 0),), (Taps(-3, 1, 7, 0),), (Taps(-4, 2, 3, 0),)]
    assert common_taps(heads) == (Taps(-4, 1, 8, 0),)
    every_second = built(*kernels(3, 5, dilation_rate=2)).layers
    assert common_taps(every_second) == (Taps(-4, 2, 5, 0),)
    kernel = np.arange(1, 4, dtype="float32").reshape(3, 1, 1)
    assert placed(kernel, [Taps(-2, 2, 3, 0)], [Taps(-4, 1, 8, 0)]).ravel().tolist() == [0, 0, 1, 0, 2, 0, 3, 0]


def test_weights_side_by_side():
    one, two = np.array([[1.0, 2.0]]), np.array([[3.0, 4.0]])
    assert interleaved(one, two).tolist() == [[1, 3, 2, 4]]
    assert block_diagonal(one, two).tolist() == [[1, 0, 2, 0], [0, 3, 0, 4]]


def test_folded():
    random = np.random.default_rng(0)
    x, outer, shift = random.normal(size=(5, 3)), random.normal(size=(3, 4)), random.normal(size=4)
    kernel, bias = random.normal(size=(2, 6)), random.normal(size=6)
    wide, moved = folded(kernel, bias, outer, shift, 1)
    expected = (x @ outer[:, 2:] + shift[2:]) @ kernel + bias
    np.testing.assert_allclose(x @ wide + moved, expected, rtol=1e-12)
    _, of_state = folded(kernel, np.stack([bias, bias]), outer, shift, 1)
    np.testing.assert_array_equal(of_state, np.stack([moved, bias]))
