"""keras.layers.GroupQueryAttention: MultiHeadAttention in which one head of key and value serves several of query."""

from __future__ import annotations

from typing import Any

import keras
import onnx_ir as ir

from mh_edge.keras_attention import declined
from mh_edge.rules import Case, rule
from mh_edge_onnx.context import Context, Inputs, Masks
from mh_edge_onnx.keras_attention import lower_heads

_Layer = keras.layers.GroupQueryAttention


def _model(masked: bool = False, call: dict[str, Any] | None = None, groups: int = 2, **options: Any) -> keras.Model:
    x = keras.Input((None, 6), name="x")
    z = keras.layers.Masking()(x) if masked else x
    layer = _Layer(4, 4, groups, bias_initializer="normal", **options)
    return keras.Model(x, layer(z, z, **(call or {})))


CLEAN = ("Loop", "If", "Softmax", "Reshape", "Einsum", "Gather")


@rule(
    "onnx",
    _Layer,
    applies=lambda layer: declined(layer, _Layer),
    cases=(
        Case("plain", _model, ops={"Attention": 1, "MatMul": 4}, absent=(*CLEAN, "Shape")),
        Case("one", lambda: _model(groups=1), ops={"Attention": 1, "MatMul": 4}, absent=(*CLEAN, "Shape")),
        Case("masked", lambda: _model(True), ops={"Attention": 1, "Min": 1}, absent=CLEAN),
        Case("history", lambda: _model(True, {"use_causal_mask": True}), ops={"Attention": 1, "Min": 2}, absent=CLEAN),
        Case("gate", lambda: _model(use_gate=True, dropout=0.1), ops={"Attention": 1, "MatMul": 5}, absent=CLEAN),
        Case("weights", lambda: _model(True, {"return_attention_scores": True}), ops={"Softmax": 1, "Gather": 2}),
    ),
)
def lower(ctx: Context, layer: keras.layers.GroupQueryAttention, inputs: Inputs, masks: Masks) -> tuple[ir.Value, ...]:
    """query: (batch, Tq, dim), value: (batch, Tk, dim), key: (batch, Tk, dim) -> (batch, Tq, dim)."""
    del inputs, masks
    return lower_heads(ctx, layer)
