"""MultiHeadAttention: y = f(o Wo + bo), o = softmax(q kᵀ / sqrt(d) - masks) v per head, q = f(Q Wq + bq), k and v
likewise.
"""

from __future__ import annotations

from typing import Any

import keras
import onnx_ir as ir

from mh_edge.layers import MultiHeadAttention
from mh_edge.rules import Case, rule
from mh_edge_onnx.attention import attend, key_mask, linear, three
from mh_edge_onnx.context import Context, Inputs, Masks
from mh_edge_onnx.masking import reasons


def _self_attention(masked: bool = False, **options: Any) -> keras.Model:
    x = keras.Input((None, 8), name="x")
    z = keras.layers.Masking()(x) if masked else x
    return keras.Model(x, MultiHeadAttention(2, bias_initializer="normal", **options)(z))


def _cross_attention(**options: Any) -> keras.Model:
    query = keras.Input((None, 5), name="query")
    key = keras.Input((None, 7), name="key")
    value = keras.layers.Dense(6)(keras.layers.Masking()(key))
    layer = MultiHeadAttention(3, bias_initializer="normal", **options)
    return keras.Model([query, key], layer([query, keras.layers.Masking()(key), value]))


CLEAN = ("Loop", "If", "Softmax", "Reshape", "Gather")


@rule(
    "onnx",
    MultiHeadAttention,
    cases=(
        Case("plain", _self_attention, ops={"Attention": 1, "MatMul": 4}, absent=(*CLEAN, "Shape")),
        Case("masked", lambda: _self_attention(True), ops={"Attention": 1, "MatMul": 4}, absent=CLEAN),
        Case("history", lambda: _self_attention(history_only=True), ops={"Attention": 1}, absent=CLEAN),
        Case("both", lambda: _self_attention(True, history_only=True), ops={"Attention": 1}, absent=CLEAN),
        Case("gelu", lambda: _self_attention(True, activation="gelu", use_bias=False), ops={"Attention": 1, "Gelu": 4}),
        Case(
            "weights", lambda: _self_attention(True, return_attention=True), ops={"Softmax": 1}, absent=("Attention",)
        ),
        Case("cross", _cross_attention, ops={"Attention": 1}, absent=CLEAN),
        Case("cross_history", lambda: _cross_attention(history_only=True), ops={"Attention": 1}, absent=CLEAN),
    ),
)
def lower(ctx: Context, layer: MultiHeadAttention, inputs: Inputs, masks: Masks) -> tuple[ir.Value, ...]:
    """query: (batch, Tq, _), key: (batch, Tk, _), value: (batch, Tk, width) -> (batch, Tq, width)."""
    query, key, value = three(inputs)
    q = _project(ctx, layer, query, layer.Wq, layer.bq)
    k = _project(ctx, layer, key, layer.Wk, layer.bk)
    v = _project(ctx, layer, value, layer.Wv, layer.bv)
    o, weights = attend(
        ctx,
        q,
        k,
        v,
        heads=layer.head_num,
        mask=reasons(ctx, query, key, key_mask(masks), layer.history_only),
        weights=layer.return_attention,
    )
    y = _project(ctx, layer, o, layer.Wo, layer.bo)
    return (y,) if weights is None else (y, ctx.op("Transpose", weights, perm=[0, 2, 1, 3]))


def _project(ctx: Context, layer: MultiHeadAttention, x: ir.Value, kernel: Any, bias: Any) -> ir.Value:
    """f(x W + b)"""
    product = linear(ctx, x, ctx.weight(kernel), None if bias is None else ctx.weight(bias))
    return ctx.activation(layer.activation, product)
