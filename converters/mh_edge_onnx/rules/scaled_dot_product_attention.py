"""ScaledDotProductAttention: y = softmax(Q Kᵀ / sqrt(d) - masks) V."""

from __future__ import annotations

from typing import Any

import keras
import onnx_ir as ir

from mh_edge.layers import ScaledDotProductAttention
from mh_edge.rules import Case, rule
from mh_edge_onnx.attention import attend, key_mask, three
from mh_edge_onnx.context import Context, Inputs, Masks
from mh_edge_onnx.masking import reasons


def _one(masked: bool, **options: Any) -> keras.Model:
    x = keras.Input((None, 6), name="x")
    z = keras.layers.Masking()(x) if masked else x
    return keras.Model(x, ScaledDotProductAttention(**options)(z))


def _three() -> keras.Model:
    query = keras.Input((None, 6), name="query")
    key = keras.Input((None, 6), name="key")
    value = keras.layers.Dense(4)(key)
    return keras.Model([query, key], ScaledDotProductAttention()([query, keras.layers.Masking()(key), value]))


@rule(
    "onnx",
    ScaledDotProductAttention,
    cases=(
        Case("plain", lambda: _one(False), ops={"Attention": 1}, absent=("Softmax", "Reshape", "Shape")),
        Case("masked", lambda: _one(True), ops={"Attention": 1}, absent=("Softmax", "Reshape")),
        Case("history", lambda: _one(True, history_only=True), ops={"Attention": 1}, absent=("Softmax", "Reshape")),
        Case("weights", lambda: _one(True, return_attention=True), ops={"Softmax": 1}, absent=("Attention",)),
        Case("three", _three, ops={"Attention": 1}, absent=("Softmax", "Reshape")),
    ),
)
def lower(ctx: Context, layer: ScaledDotProductAttention, inputs: Inputs, masks: Masks) -> tuple[ir.Value, ...]:
    """query: (batch, Tq, d), key: (batch, Tk, d), value: (batch, Tk, e) -> (batch, Tq, e), and the weights when asked
    for.
    """
    query, key, value = three(inputs)
    y, weights = attend(
        ctx,
        query,
        key,
        value,
        mask=reasons(ctx, query, key, key_mask(masks), layer.history_only),
        weights=layer.return_attention,
    )
    return (y,) if weights is None else (y, weights)
