"""keras.layers.Attention: y = softmax(s q kᵀ - 1e9·[hidden]) v, or with scores c · sum(tanh(s (q + k)))."""

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

_Layer = keras.layers.Attention


def _own(masked: bool = False, call: dict[str, Any] | None = None, **options: Any) -> keras.Model:
    x = keras.Input((None, 6), name="x")
    z = keras.layers.Masking()(x) if masked else x
    return keras.Model(x, _Layer(**options)([z, z], **(call or {})))


def _cross(call: dict[str, Any] | None = None) -> keras.Model:
    query, value = keras.Input((None, 6), name="query"), keras.Input((None, 4), name="value")
    masked = [keras.layers.Masking()(x) for x in (query, value)]
    return keras.Model([query, value], _Layer()([*masked, keras.layers.Dense(6)(masked[1])], **(call or {})))


CLEAN = ("Loop", "If", "Softmax", "Reshape", "Einsum")
CAUSAL = {"use_causal_mask": True}
SCORES = {"return_attention_scores": True}


@rule(
    "onnx",
    _Layer,
    applies=lambda layer: overridden(layer, _Layer, OF_SCORES),
    cases=(
        Case("plain", _own, ops={"Attention": 1}, absent=(*CLEAN, "Shape", "MatMul")),
        Case("scale", lambda: _own(use_scale=True), ops={"Attention": 1, "Mul": 1}, absent=CLEAN),
        Case("masked", lambda: _own(True), ops={"Attention": 1, "Mul": 1}, absent=CLEAN),
        Case("history", lambda: _own(True, CAUSAL), ops={"Attention": 1, "Min": 1}, absent=CLEAN),
        Case("weights", lambda: _own(True, SCORES), ops={"Softmax": 1}, absent=("Attention", "Shape")),
        Case("cross", _cross, ops={"Attention": 1}, absent=CLEAN),
        Case("cross_history", lambda: _cross(CAUSAL), ops={"Attention": 1}, absent=CLEAN),
        Case("concat", lambda: _own(True, score_mode="concat"), ops={"Softmax": 1, "Tanh": 1, "MatMul": 2}),
        Case("concat_scale", lambda: _own(use_scale=True, score_mode="concat", call=CAUSAL), ops={"Tanh": 1}),
    ),
)
def lower(ctx: Context, layer: keras.layers.Attention, inputs: Inputs, masks: Masks) -> tuple[ir.Value, ...]:
    """query: (batch, Tq, d), value: (batch, Tk, e), key: (batch, Tk, d) -> (batch, Tq, e)."""
    scale = None if layer.scale is None else ctx.weight(layer.scale)
    if layer.score_mode == "dot":
        return lower_scored(ctx, inputs, masks, scale=scale)

    def scores(query: ir.Value, key: ir.Value) -> ir.Value:
        size = width(ctx, query)
        if scale is not None:
            query, key = (ctx.op("Mul", x, scale) for x in (query, key))
        factor = ctx.weight(layer.concat_score_weight, lambda c: np.broadcast_to(c, (size, 1)), f"column{size}")
        return pair_scores(ctx, query, key, factor)

    return lower_scored(ctx, inputs, masks, scores=scores)
