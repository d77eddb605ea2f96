"""What the clean-up folds, joins and drops, and what it must leave alone."""

from __future__ import annotations

import keras
import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from keras import layers
from onnx_ir.passes import common

from mh_edge_onnx.affine import fold_affine
from mh_edge_onnx.layouts import settle_layouts
from mh_edge_onnx.peepholes import simplify
from to_onnx.conversion import convert, operations, proven

RANDOM = np.random.default_rng(5)


def graph(text, **weights):
    """A model in ONNX's own notation, and its weights."""
    model = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : 17]> {text}')
    tensors = [onnx.numpy_helper.from_array(np.asarray(value, np.float32), name) for name, value in weights.items()]
    model.graph.initializer.extend(tensors)
    return ir.from_proto(onnx.shape_inference.infer_shapes(model))


def same_after(change, model, **feeds):
    """Apply `change` -> the operations left; the numbers must be the same."""
    before = onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString()).run(None, feeds)
    change(model)
    proto = ir.to_proto(model)
    onnx.checker.check_model(proto, full_check=True)
    after = onnxruntime.InferenceSession(proto.SerializeToString()).run(None, feeds)
    for expected, got in zip(before, after, strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)
    return [node.op_type for node in proto.graph.node]


X, W, B, S, T = (RANDOM.normal(size=size).astype(np.float32) for size in ((2, 3, 4), (4, 5), 5, 5, 5))
HEAD = "g (float[b, t, 4] x) => (float[b, t, 5] y)"


def test_a_factor_and_an_addition_go_into_the_product_before():
    model = graph(f"{HEAD} {{ m = MatMul(x, w) a = Add(m, b) p = Mul(a, s) y = Add(t1, p) }}", w=W, b=B, s=S, t1=T)
    assert same_after(fold_affine, model, x=X) == ["MatMul", "Add"]


def test_and_into_the_product_after():
    text = f"{HEAD} {{ r = Relu(x) p = Mul(r, s) q = Add(p, t1) m = MatMul(q, w) y = Add(m, b) }}"
    assert same_after(fold_affine, graph(text, w=W, b=B, s=S[:4], t1=T[:4]), x=X) == ["Relu", "MatMul", "Add"]


@pytest.mark.parametrize(
    "body",
    [
        "m = MatMul(x, w) p = Mul(m, s) y = Add(p, m)",  # the product is used elsewhere
        "m = MatMul(x, w) p = Mul(m, s) n = MatMul(x, w) y = Sub(p, n)",  # the weight is
        "m = MatMul(x, w) k = Relu(m) y = Mul(k, s)",  # not linear in between
    ],
)
def test_nothing_is_folded_where_it_would_not_be_the_same(body):
    model = graph(f"{HEAD} {{ {body} }}", w=W, s=S)
    kinds = [node.op_type for node in model.graph]
    assert same_after(fold_affine, model, x=X) == kinds


def test_a_factor_along_time_is_no_factor_of_the_channels():
    model = graph("g (float[b, 5, 4] x) => (float[b, 5, 5] y) { m = MatMul(x, w) y = Mul(m, s) }", w=W, s=S[:, None])
    x = RANDOM.normal(size=(2, 5, 4)).astype(np.float32)
    assert same_after(fold_affine, model, x=x) == ["MatMul", "Mul"]


def test_layouts_meet_across_elementwise_operations():
    body = "a = Transpose<perm = [0, 2, 1]>(x) r = Relu(a) q = Mul(r, s) y = Transpose<perm = [0, 2, 1]>(q)"
    model = graph(f"g (float[b, t, 4] x) => (float[b, t, 4] y) {{ {body} }}", s=S[:4, None])
    assert same_after(settle_layouts, model, x=X) == ["Relu", "Mul"]


def test_a_reduction_takes_a_layout_in():
    body = "a = Transpose<perm = [0, 2, 1]>(x) y = ReduceMax<axes = [2], keepdims = 0>(a)"
    model = graph(f"g (float[b, t, 4] x) => (float[b, 4] y) {{ {body} }}")
    assert same_after(settle_layouts, model, x=X) == ["ReduceMax"]


def test_a_layout_that_is_used_elsewhere_stays():
    body = "a = Transpose<perm = [0, 2, 1]>(x) r = Relu(a) y = Sub(r, a)"
    model = graph(f"g (float[b, t, 4] x) => (float[b, 4, t] y) {{ {body} }}")
    assert same_after(settle_layouts, model, x=X) == ["Transpose", "Relu", "Sub"]


@pytest.mark.parametrize(
    ("body", "left"),
    [
        ("z = Mul(x, one) y = Add(z, nought)", []),
        ("c = Cast<to = 11>(x) d = Cast<to = 1>(c) y = Relu(d)", ["Relu"]),
        ("c = Cast<to = 9>(x) d = Or(c, c) n = Not(d) m = Not(n) y = Cast<to = 1>(m)", ["Cast", "Cast"]),
        ("c = Cast<to = 6>(x) y = Cast<to = 1>(c)", ["Cast", "Cast"]),  # rounds: not the same without
    ],
)
def test_operations_that_change_nothing(body, left):
    def change(model):
        simplify(model)
        common.RemoveUnusedNodesPass()(model)

    text = f"g (float[b, t, 4] x) => (float[b, t, 4] y) {{ {body} }}"
    model = graph(text, one=1.0, nought=[0.0])
    if not left:
        change(model)
        assert model.graph.outputs[0] is model.graph.inputs[0]
    else:
        assert same_after(change, model, x=X * 3) == left


def test_what_is_not_chosen_may_be_infinite(tmp_path):
    x = keras.Input((None, 6))
    # Keras's zeros give an infinite inverse, which a sum of products would turn into NaN.
    _, path = convert(keras.Model(x, keras.ops.where(x > 0, 1 / x, x)), tmp_path / "x.onnx")
    assert operations(path) == {"Greater": 1, "Div": 1, "Where": 1}
    zeros = np.zeros((1, 2, 6), np.float32)
    session = onnxruntime.InferenceSession(path)
    np.testing.assert_array_equal(session.run(None, {session.get_inputs()[0].name: zeros})[0], zeros)


def conv_stack():
    keras.utils.set_random_seed(4)
    stack = [
        layers.Conv1D(8, 3, padding="same", use_bias=False),
        layers.BatchNormalization(),
        layers.ReLU(),
        layers.MaxPooling1D(2),
        layers.Conv1D(6, 3, activation="gelu"),
        layers.GlobalAveragePooling1D(),
        layers.Dense(3),
    ]
    model = keras.Sequential([keras.Input((None, 6)), *stack])
    for weight in stack[1].weights:
        weight.assign(keras.random.uniform(weight.shape, 0.5, 1.5))
    return model


def test_between_layers_of_a_convolutional_stack_nothing_is_left(tmp_path):
    result = proven(conv_stack(), tmp_path / "x.onnx")
    assert result.passed, result.to_json()
    # Channels second once, at the start; then the layers alone.
    assert operations(tmp_path / "x.onnx") == {
        "Unsqueeze": 1,
        "Transpose": 1,
        "Conv": 2,
        "Relu": 1,
        "MaxPool": 1,
        "Gelu": 1,
        "ReduceMean": 1,
        "Gemm": 1,
    }


def test_flattening_asks_for_no_shape(tmp_path):
    model = keras.Sequential([keras.Input((8, 6)), layers.Conv1D(4, 3), layers.Flatten(), layers.Dense(2)])
    result = proven(model, tmp_path / "x.onnx")
    assert result.passed, result.to_json()
    assert not {"Shape", "Concat", "Cast", "Slice"} & set(operations(tmp_path / "x.onnx"))
