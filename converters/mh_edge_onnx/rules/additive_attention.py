"""keras.layers.AdditiveAttention: y = softmax(tanh(q + k) s - 1e9·[hidden]) v."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import onnx_ir as ir

from mh_edge.keras_attention import OF_SCORES, overridden
from mh_edge.rules import Case, rule
from mh_edge_onnx.attention import pair_scores, width
from mh_edge_onnx.context import Context, Inputs, Masks
from mh_edge_onnx.keras_attention import lower_scored

_Layer = keras.layers.AdditiveAttention


def _model(masked: bool = False, call: dict[str, Any] | None = None, **options: Any) -> keras.Model:
    x = keras.Input((None, 6), name="x")
    z = keras.layers.Masking()(x) if masked else x
    return keras.Model(x, _Layer(**options)([z, z], **(call or {})))


CLEAN = ("Loop", "If", "Reshape", "ReduceSum")


@rule(
    "onnx",
    _Layer,
    applies=lambda layer: overridden(layer, _Layer, OF_SCORES),
    cases=(
        Case("plain", _model, ops={"Softmax": 1, "Tanh": 1, "MatMul": 2}, absent=(*CLEAN, "Shape")),
        Case("unscaled", lambda: _model(use_scale=False), ops={"Softmax": 1, "MatMul": 2}, absent=(*CLEAN, "Shape")),
        Case("masked", lambda: _model(True), ops={"Softmax": 1, "Where": 1}, absent=(*CLEAN, "Shape")),
        Case("history", lambda: _model(True, {"use_causal_mask": True}), ops={"Softmax": 1, "Min": 1}, absent=CLEAN),
        Case("weights", lambda: _model(True, {"return_attention_scores": True}), ops={"Softmax": 1}, absent=CLEAN),
    ),
)
def lower(ctx: Context, layer: keras.layers.AdditiveAttention, inputs: Inputs, masks: Masks) -> tuple[ir.Value, ...]:
    """query: (batch, Tq, d), value: (batch, Tk, d), key: (batch, Tk, d) -> (batch, Tq, d)."""

    def scores(query: ir.Value, key: ir.Value) -> ir.Value:
        ones = ctx.constant(np.ones((width(ctx, query), 1)), "float32")
        column = ones if layer.scale is None else ctx.weight(layer.scale, lambda s: s[:, None], "column")
        return pair_scores(ctx, query, key, column)

    return lower_scored(ctx, inputs, masks, scores=scores)
