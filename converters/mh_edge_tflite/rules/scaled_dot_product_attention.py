"""ScaledDotProductAttention: y = softmax(Q Kᵀ / sqrt(d) − masks) V."""

from __future__ import annotations

from typing import Any

import keras

from mh_edge.layers import ScaledDotProductAttention
from mh_edge.rules import Case, rule
from mh_edge_tflite.attention import BOOLEAN, attend, each_role, key_and_order_mask
from mh_edge_tflite.context import Context, Inputs, Masks


def _model(masked: bool, **options: Any) -> keras.Model:
    x = keras.Input((None, 6), name="x")
    z = keras.layers.Masking()(x) if masked else x
    return keras.Model(x, ScaledDotProductAttention(**options)(z))


def _three() -> keras.Model:
    """Query and key of one width, value of another, the key masked."""
    query, key, value = (keras.Input((None, width), name=name) for name, width in (("q", 5), ("k", 5), ("v", 3)))
    return keras.Model([query, key, value], ScaledDotProductAttention()([query, keras.layers.Masking()(key), value]))


@rule(
    "tflite",
    ScaledDotProductAttention,
    cases=(
        Case("self", lambda: _model(False), ops={"BATCH_MATMUL": 2, "SOFTMAX": 1}, absent=("SHAPE",)),
        Case(
            "masked",
            lambda: _model(True, return_attention=True),
            ops={"BATCH_MATMUL": 2, "CAST": 1},
            absent=("SHAPE", *BOOLEAN),
        ),
        Case("history", lambda: _model(True, history_only=True), ops={"SOFTMAX": 1}),
        Case("three", _three, ops={"SOFTMAX": 1}, absent=("SHAPE",)),
    ),
)
def lower(ctx: Context, layer: ScaledDotProductAttention, inputs: Inputs, masks: Masks) -> Any:
    """x, or Q: (batch, Tq, d), K: (batch, Tk, d), V: (batch, Tk, v_in) -> (batch, Tq, v_in), and the weights if
    asked.
    """
    del ctx
    query, key, value = each_role(inputs)
    mask = key_and_order_mask(query, key, each_role(masks)[1], layer.history_only)
    output, weights = attend(query, key, value, mask)
    return [output, weights] if layer.return_attention else output
