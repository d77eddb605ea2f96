"""keras.layers.MultiHeadAttention: y = (softmax(q kᵀ / sqrt(d), where visible) v · gate) Wo + bo, q = Q Wq + bq, k, v
likewise.
"""

from __future__ import annotations

from typing import Any

import keras
import onnx_ir as ir

from mh_edge.keras_attention import declined
from mh_edge.rules import Case, rule
from mh_edge_onnx.context import Context, Inputs, Masks
from mh_edge_onnx.keras_attention import lower_heads

_Layer = keras.layers.MultiHeadAttention


def _applies(layer: Any) -> str | None:
    if own := declined(layer, _Layer):
        return own
    given = [node.arguments.kwargs.get("query_mask") for node in layer._inbound_nodes]
    return "Keras takes its query_mask from the query alone" if any(mask is not None for mask in given) else None


def _own(masked: bool = False, call: dict[str, Any] | None = None, **options: Any) -> keras.Model:
    x = keras.Input((None, 6), name="x")
    z = keras.layers.Masking()(x) if masked else x
    layer = _Layer(2, 4, bias_initializer="normal", **options)
    return keras.Model(x, layer(z, z, **(call or {})))


def _cross(call: dict[str, Any] | None = None) -> keras.Model:
    query, value = keras.Input((None, 5), name="query"), keras.Input((None, 7), name="value")
    return keras.Model([query, value], _between(query, value, **(call or {})))


def _given(*heads: int, **call: Any) -> keras.Model:
    """With a mask by the caller, whose lengths belong to those of the inputs."""
    query, value = keras.Input((4, 5), name="query"), keras.Input((6, 7), name="value")
    mask = keras.Input((*heads, 4, 6), name="attention_mask", dtype="bool")
    return keras.Model([query, value, mask], _between(query, value, attention_mask=mask, **call))


def _between(query: Any, value: Any, **call: Any) -> Any:
    query, value = (keras.layers.Masking()(x) for x in (query, value))
    layer = _Layer(3, 4, value_dim=2, bias_initializer="normal")
    return layer(query, value, key=keras.layers.Dense(3)(value), **call)


CLEAN = ("Loop", "If", "Softmax", "Reshape", "Einsum", "Gather")
CAUSAL = {"use_causal_mask": True}
SCORES = {"return_attention_scores": True}


@rule(
    "onnx",
    _Layer,
    applies=_applies,
    cases=(
        Case("plain", _own, ops={"Attention": 1, "MatMul": 4, "Add": 4}, absent=(*CLEAN, "Shape", "Where")),
        Case("masked", lambda: _own(True), ops={"Attention": 1, "MatMul": 4, "Min": 1}, absent=(*CLEAN, "Expand")),
        Case("causal", lambda: _own(call=CAUSAL), ops={"Attention": 1, "Trilu": 1}, absent=CLEAN),
        Case("both", lambda: _own(True, CAUSAL), ops={"Attention": 1, "Min": 2}, absent=CLEAN),
        Case("window", lambda: _own(True, CAUSAL, sliding_window=3), ops={"Attention": 1, "Trilu": 2}, absent=CLEAN),
        Case("dropout", lambda: _own(True, dropout=0.1), ops={"Attention": 1, "ReduceMax": 1}, absent=CLEAN),
        Case("dropout_causal", lambda: _own(call=CAUSAL, dropout=0.1), ops={"Attention": 1}, absent=("ReduceMax",)),
        Case("dropout_window", lambda: _own(dropout=0.1, sliding_window=2), ops={"Attention": 1}, absent=CLEAN),
        Case("gate", lambda: _own(use_gate=True, use_bias=False), ops={"Attention": 1, "MatMul": 5}, absent=CLEAN),
        Case("shape", lambda: _own(output_shape=(2, 3)), ops={"Attention": 1, "Reshape": 1}),
        Case("weights", lambda: _own(True, SCORES), ops={"Softmax": 1}, absent=("Attention", "Einsum")),
        Case("cross", _cross, ops={"Attention": 1, "MatMul": 5}, absent=CLEAN),
        Case("cross_history", lambda: _cross(CAUSAL), ops={"Attention": 1}, absent=CLEAN),
        Case("given", _given, ops={"Attention": 1}, absent=(*CLEAN, "Shape")),
        Case("given_weights", lambda: _given(return_attention_scores=True), ops={"Softmax": 1}),
    ),
)
def lower(ctx: Context, layer: keras.layers.MultiHeadAttention, inputs: Inputs, masks: Masks) -> tuple[ir.Value, ...]:
    """query: (batch, Tq, _), value: (batch, Tk, _), key: (batch, Tk, _) -> (batch, Tq, *output_shape)."""
    del inputs, masks
    return lower_heads(ctx, layer)
