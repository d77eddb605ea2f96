"""keras.layers.Attention: y = softmax(q kᵀ · scale − 1e9·[not visible]) v, 0 where the query is masked."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from mh_edge.keras_attention import OF_SCORES, overridden
from mh_edge.rules import Case, rule
from mh_edge_tflite.attention import BOOLEAN, pairs
from mh_edge_tflite.context import Context, Inputs, Masks, Tensor
from mh_edge_tflite.keras_attention import lower_scored


def _model(masked: bool, call: dict[str, Any] | None = None, **options: Any) -> keras.Model:
    x = keras.Input((None, 6), name="x")
    z = keras.layers.Masking()(x) if masked else x
    return keras.Model(x, keras.layers.Attention(**options)([z, z], **(call or {})))


def _three(call: dict[str, Any] | None = None) -> keras.Model:
    """Query, value and key, the first two masked."""
    inputs = [keras.Input((None, width), name=name) for name, width in (("q", 5), ("v", 3), ("k", 5))]
    masked = [keras.layers.Masking()(x) for x in inputs[:2]]
    return keras.Model(inputs, keras.layers.Attention(use_scale=True)([*masked, inputs[2]], **(call or {})))


CAUSAL = {"use_causal_mask": True}


@rule(
    "tflite",
    keras.layers.Attention,
    applies=lambda layer: overridden(layer, keras.layers.Attention, (*OF_SCORES, "compute_mask")),
    cases=(
        # The two MUL are no scale: q = k is parted in two tensors.
        Case("self", lambda: _model(False), ops={"BATCH_MATMUL": 2, "SOFTMAX": 1, "MUL": 2}, absent=("SHAPE",)),
        # Untrained, the scale is 1, and the converter takes it away.
        Case("scaled", lambda: _model(False, use_scale=True), ops={"BATCH_MATMUL": 2, "MUL": 2}, absent=("SHAPE",)),
        Case(
            "masked",
            lambda: _model(True),
            ops={"BATCH_MATMUL": 2, "CAST": 1, "SUB": 1},
            absent=("SHAPE", "SELECT_V2", *BOOLEAN),
        ),
        Case("causal", lambda: _model(False, CAUSAL), ops={"SOFTMAX": 1, "CUMSUM": 0}, absent=("SELECT_V2",)),
        Case("history", lambda: _model(True, {"return_attention_scores": True, **CAUSAL}), ops={"SOFTMAX": 1}),
        Case("three", _three, ops={"SOFTMAX": 1}),
        Case("three_causal", lambda: _three(CAUSAL), ops={"SOFTMAX": 1}),
        Case("concat", lambda: _model(True, score_mode="concat", use_scale=True), ops={"TANH": 1}),
    ),
)
def lower(ctx: Context, layer: keras.layers.Attention, inputs: Inputs, masks: Masks) -> Any:
    """[query: (batch, Tq, d), value: (batch, Tk, v_in), key: (batch, Tk, d)] -> (batch, Tq, v_in), and the weights
    (batch, Tq, Tk) if asked.
    """
    return lower_scored(_scores, ctx.arguments, layer, inputs, masks)


def _scores(layer: keras.layers.Attention, query: Tensor, key: Tensor) -> Tensor:
    if layer.score_mode == "dot":
        return tf.matmul(query if layer.scale is None else query * layer.scale, key, transpose_b=True)
    hidden = pairs(query, key)
    hidden = tf.tanh(hidden if layer.scale is None else hidden * layer.scale)
    return tf.reduce_sum(hidden, axis=-1) * layer.concat_score_weight
