"""Attention by destination: which operations each runtime gets, and what masks and subclasses change."""

from __future__ import annotations

import keras
import numpy as np
import onnx
import onnxruntime
import pytest

import mh_edge_onnx
from mh_edge.inspection import inspect
from mh_edge.layers import MultiHeadAttention, ScaledDotProductAttention, SeqSelfAttention, SeqWeightedAttention
from mh_edge.opsets import DEFAULT_OPSET
from mh_edge.program import program
from mh_edge.rules import rules_for
from mh_edge.verification import verify
from mh_edge.verification.domains import derive
from mh_edge_onnx.attention import FLASH_TIME
from mh_edge_onnx.context import OWN_DOMAIN
from to_onnx.conversion import convert, operations

LAYERS = (
    MultiHeadAttention,
    ScaledDotProductAttention,
    SeqSelfAttention,
    SeqWeightedAttention,
    keras.layers.MultiHeadAttention,
    keras.layers.GroupQueryAttention,
    keras.layers.Attention,
    keras.layers.AdditiveAttention,
)
CASES = [
    pytest.param(case, id=f"{rule.layer.__module__.split('.')[0]}-{rule.name}-{case.name}")
    for rule in rules_for("onnx")
    for case in rule.cases
    if rule.layer in LAYERS and case.name in ("both", "history", "masked", "weights", "window", "given")
]

ON_EVERY_PLUGIN = {
    *(
        "Add",
        "Cast",
        "Clip",
        "Concat",
        "Div",
        "Exp",
        "Gather",
        "MatMul",
        "Max",
        "Mul",
        "ReduceMax",
        "ReduceSum",
        "Relu",
    ),
    *("Reshape", "Sigmoid", "Softmax", "Sqrt", "Squeeze", "Sub", "Tanh", "Transpose", "Unsqueeze"),
}
"""What WebGPU, OpenVINO, QNN, NNAPI and CoreML take, the last three with fixed sizes. Gather is not CoreML's, ReduceMax
and ReduceSum are not NNAPI's: no form without them is exact for their layers.

Sources: ONNX Runtime's lists of supported operations of NNAPI and CoreML (ML programs), and the kernels that its WebGPU
provider registers.
"""

FIXED = dict.fromkeys(("sequence", "query_sequence", "value_sequence"), 6)


def operations_of_rules(path):
    """Those of the attention rules alone: what makes a mask of an input (Masking) belongs to others."""
    names = {layer.__name__ for layer in LAYERS}
    return {
        node.op_type
        for node in onnx.load(path).graph.node
        for item in node.metadata_props
        if item.key == "mh_edge.rule" and item.value in names
    }


@pytest.mark.parametrize("case", CASES)
def test_plugins_hold_no_operation_that_falls_back(case, tmp_path):
    source = derive(program(case.build()))
    sizes = {name: FIXED[name] for name in source.signature.free_dims() if name in FIXED}
    path = tmp_path / "model.onnx"
    mh_edge_onnx.convert(source, source.signature.pin(sizes), opset=None, runtime="plugins").save(path)
    made = operations_of_rules(path)
    assert made
    assert made <= ON_EVERY_PLUGIN


@pytest.mark.parametrize("runtime", sorted(DEFAULT_OPSET))
def test_the_form_of_each_runtime(runtime, tmp_path):
    x = keras.Input((None, 8), name="x")
    model = keras.Model(x, MultiHeadAttention(2, history_only=True)(keras.layers.Masking()(x)))
    _, path = convert(model, tmp_path / "model.onnx", runtime=runtime)
    made = operations(path)
    fused = runtime in ("cpu", "cuda")
    assert (made["Attention"], made["Softmax"]) == ((1, 0) if fused else (0, 1))
    assert ("Trilu" in made) == (runtime != "plugins")
    assert not any(node.domain for node in onnx.load(path).graph.node)


LONG = {
    "ours": (lambda x: MultiHeadAttention(2, bias_initializer="normal")(x), 1),
    "keras": (lambda x: keras.layers.MultiHeadAttention(2, 3, value_dim=5)(x, x), 1),
    "single": (lambda x: ScaledDotProductAttention()(x), 1),
    "unscaled": (lambda x: keras.layers.Attention()([x, x]), 1),
    "masked": (lambda x: MultiHeadAttention(2)(keras.layers.Masking()(x)), 0),
    "history": (lambda x: MultiHeadAttention(2, history_only=True)(x), 0),
    "weights": (lambda x: keras.layers.MultiHeadAttention(2, 3)(x, x, return_attention_scores=True)[0], 0),
    "groups": (lambda x: keras.layers.GroupQueryAttention(3, 4, 2)(x, x), 0),
}
"""Models of a sequence, and how many of ONNX Runtime's own attentions they become."""


@pytest.mark.parametrize("name", LONG)
def test_long_sequences_get_the_own_operation(name, tmp_path):
    keras.utils.set_random_seed(4)
    build, own = LONG[name]
    x = keras.Input((None, 8), name="x")
    source, path = convert(keras.Model(x, build(x)), tmp_path / "model.onnx", sequence=FLASH_TIME)
    made = [(node.domain, node.op_type) for node in onnx.load(path).graph.node]
    assert made.count((OWN_DOMAIN, "MultiHeadAttention")) == own
    assert {item.domain for item in onnx.load(path).opset_import} == ({"", OWN_DOMAIN} if own else {""})
    assert inspect(path).ops.get(f"{OWN_DOMAIN}.MultiHeadAttention", 0) == own
    result = verify(source, [path])
    assert result.passed, result.to_json()


@pytest.mark.parametrize(
    ("runtime", "opset", "sequence"),
    [
        ("cpu", 22, FLASH_TIME),
        ("cpu", None, FLASH_TIME - 1),
        ("cuda", None, FLASH_TIME),
        ("portable", None, FLASH_TIME),
    ],
)
def test_the_own_operation_stays_where_it_is_fast(runtime, opset, sequence, tmp_path):
    x = keras.Input((None, 8), name="x")
    model = keras.Model(x, MultiHeadAttention(2)(x))
    _, path = convert(model, tmp_path / "model.onnx", runtime=runtime, opset=opset, sequence=sequence)
    assert not any(node.domain for node in onnx.load(path).graph.node)


def test_the_choice_of_the_own_operation_is_told(tmp_path):
    source = derive(program(keras.Sequential([keras.Input((FLASH_TIME, 8)), MultiHeadAttention(2, name="far")])))
    (choice,) = mh_edge_onnx.convert(source, source.signature, opset=None, runtime="cpu").choices
    assert (choice.layer, choice.choice) == ("far", "ONNX Runtime's own attention")


MASKED = {
    "ours": lambda x: MultiHeadAttention(2, history_only=True, bias_initializer="normal")(x),
    "keras": lambda x: keras.layers.MultiHeadAttention(2, 4)(x, x, use_causal_mask=True),
    "zero": lambda x: keras.layers.MultiHeadAttention(2, 4, dropout=0.5)(x, x, use_causal_mask=True),
    "width": lambda x: SeqSelfAttention(3, attention_width=3, bias_initializer="normal")(x),
}


@pytest.mark.parametrize("name", MASKED)
def test_every_runtime_gives_the_same_numbers(name, tmp_path):
    keras.utils.set_random_seed(2)
    x = keras.Input((None, 8), name="x")
    model = keras.Model(x, MASKED[name](keras.layers.Masking()(x)))
    paths = []
    for runtime in ("cuda", "plugins"):
        source, path = convert(model, tmp_path / f"{runtime}.onnx", runtime=runtime)
        paths.append(path)
    _, path = convert(model, tmp_path / "fixed.onnx", runtime="plugins", sequence=7)
    result = verify(source, [*paths, path])
    assert result.passed, result.to_json()


def test_a_row_that_sees_nothing_is_told_apart(tmp_path):
    """Equal weights, or none: what Keras does depends on dropout, and a comparison notices the wrong one."""
    x = keras.Input((None, 8), name="x")
    y = keras.layers.Masking()(x)
    plain, dropping = (keras.Model(x, keras.layers.MultiHeadAttention(2, 4, dropout=rate)(y, y)) for rate in (0.0, 0.5))
    dropping.set_weights(plain.get_weights()[: len(dropping.get_weights())])
    source, path = convert(plain, tmp_path / "plain.onnx")
    other, dropped = convert(dropping, tmp_path / "dropping.onnx")
    assert verify(source, [path]).passed
    assert verify(other, [dropped]).passed
    assert not verify(source, [dropped]).passed


def _converted(layer, call, tmp_path):
    x = keras.Input((4, 6), name="x")
    model = keras.Model(x, call(layer, x))
    source = derive(program(model))
    converted = mh_edge_onnx.convert(source, source.signature, opset=None, runtime="cpu")
    converted.save(tmp_path / "model.onnx")
    return converted


class Sharpened(keras.layers.MultiHeadAttention):
    def _masked_softmax(self, attention_scores, attention_mask=None):
        return super()._masked_softmax(attention_scores * 2.0, attention_mask)


class Squared(keras.layers.Attention):
    def _calculate_scores(self, query, key):
        return keras.ops.square(super()._calculate_scores(query, key))


@pytest.mark.parametrize(
    ("layer", "call", "reason"),
    [
        (Sharpened(2, 4), lambda layer, x: layer(x, x), "_masked_softmax of its own"),
        (Squared(), lambda layer, x: layer([x, x]), "_calculate_scores of its own"),
        (
            keras.layers.MultiHeadAttention(2, 4, attention_axes=(2,)),
            lambda layer, x: layer(keras.ops.expand_dims(x, 1), keras.ops.expand_dims(x, 1)),
            "its query has 4 axes",
        ),
        (
            keras.layers.MultiHeadAttention(2, 4),
            lambda layer, x: layer(x, x, query_mask=keras.ops.ones_like(x[:, :, 0], dtype="bool")),
            "takes its query_mask from the query alone",
        ),
    ],
    ids=["hook", "scores", "axes", "query_mask"],
)
def test_what_a_rule_declines_is_said(layer, call, reason, tmp_path):
    converted = _converted(layer, call, tmp_path)
    assert any(reason in note for note in converted.notes)
    assert not converted.rules.keys() & {"MultiHeadAttention", "Attention"}


def test_masked_attention_asks_for_denormals_as_zero(tmp_path):
    option = "session.set_denormal_as_zero"
    masked = _converted(MultiHeadAttention(2, history_only=True), lambda layer, x: layer(x), tmp_path)
    plain = _converted(MultiHeadAttention(2), lambda layer, x: layer(x), tmp_path)
    assert masked.session_options.get(option) == "1"
    assert option not in plain.session_options


def test_scores_far_apart_leak_as_in_the_layer(tmp_path):
    """Scores beyond 10000 outweigh the mask, in the file as in the layer."""
    x = keras.Input((5, 4), name="x")
    model = keras.Model(x, ScaledDotProductAttention(history_only=True)(keras.layers.Masking()(x)))
    source, path = convert(model, tmp_path / "model.onnx")
    feeds = {"x": np.random.default_rng(3).normal(size=(3, 5, 4)).astype("float32") * 300}
    feeds["x"][1, :2] = 0
    result = verify(source, [path], feeds=feeds)
    assert result.passed, result.to_json()


def test_nothing_of_a_hidden_value_comes_through(tmp_path):
    """However large, and in every row for itself: the first sees itself alone."""
    rng = np.random.default_rng(5)
    inputs = [keras.Input((None, 4), name=name) for name in ("q", "k", "v")]
    model = keras.Model(inputs, ScaledDotProductAttention(history_only=True)(inputs))
    _, path = convert(model, tmp_path / "model.onnx")
    feeds = {name: rng.normal(size=(2, 200, 4)).astype("float32") for name in ("q", "k", "v")}
    feeds["v"][:, 1:] *= np.exp(rng.uniform(0, 60, size=(2, 199, 1))).astype("float32")
    (got,) = onnxruntime.InferenceSession(path).run(None, feeds)
    np.testing.assert_allclose(got[:, 0], feeds["v"][:, 0], rtol=1e-6)
    expected = model.predict(feeds, verbose=0)
    scale = np.maximum.accumulate(np.abs(feeds["v"]).max(-1, keepdims=True), axis=1)
    assert (np.abs(got - expected) / scale).max() < 1e-6
