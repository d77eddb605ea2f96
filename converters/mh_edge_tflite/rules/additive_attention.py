"""AdditiveAttention: y = softmax(Σ scale · tanh(q + k) − 1e9·[not visible]) v, 0 where the query is masked."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from mh_edge.keras_attention import OF_SCORES, overridden
from mh_edge.rules import Case, rule
from mh_edge_tflite.attention import BOOLEAN, pairs
from mh_edge_tflite.context import Context, Inputs, Masks, Tensor, dense
from mh_edge_tflite.keras_attention import lower_scored


def _model(masked: bool, call: dict[str, Any] | None = None, **options: Any) -> keras.Model:
    x = keras.Input((None, 6), name="x")
    z = keras.layers.Masking()(x) if masked else x
    return keras.Model(x, keras.layers.AdditiveAttention(**options)([z, z], **(call or {})))


@rule(
    "tflite",
    keras.layers.AdditiveAttention,
    applies=lambda layer: overridden(
        layer,
        keras.layers.AdditiveAttention,
        (*OF_SCORES, "compute_mask"),
    ),
    cases=(
        Case("self", lambda: _model(False), ops={"TANH": 1, "FULLY_CONNECTED": 1, "SOFTMAX": 1}, absent=("SHAPE",)),
        Case("masked", lambda: _model(True), ops={"CAST": 1, "BATCH_MATMUL": 1}, absent=("SHAPE", *BOOLEAN)),
        Case("history", lambda: _model(True, {"use_causal_mask": True}), ops={"SOFTMAX": 1}, absent=("CUMSUM",)),
        Case("no_scale", lambda: _model(True, use_scale=False), ops={"SUM": 1}),
    ),
)
def lower(ctx: Context, layer: keras.layers.AdditiveAttention, inputs: Inputs, masks: Masks) -> Any:
    """[query: (batch, Tq, d), value: (batch, Tk, v_in), key: (batch, Tk, d)] -> (batch, Tq, v_in), and the weights
    (batch, Tq, Tk) if asked.
    """
    return lower_scored(_scores, ctx.arguments, layer, inputs, masks)


def _scores(layer: keras.layers.AdditiveAttention, query: Tensor, key: Tensor) -> Tensor:
    hidden = tf.tanh(pairs(query, key))
    if layer.scale is None:
        return tf.reduce_sum(hidden, axis=-1)
    # Weighting and adding up in one product.
    return tf.squeeze(dense(hidden, tf.expand_dims(layer.scale, 1)), -1)
