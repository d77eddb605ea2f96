"""CategoryEncoding: y_c = any(ids = c), or how many of the ids are c, each with its weight."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from mh_edge.rules import Case, rule
from mh_edge_tflite.context import Context, Inputs, Masks, Tensor


def _model(mode: str, dtype: str = "int32") -> keras.Model:
    ids = keras.Input((None,), dtype=dtype, name="ids")
    return keras.Model(ids, keras.layers.CategoryEncoding(3, mode)(ids))


def _weighted() -> keras.Model:
    ids, weights = keras.Input((4,), dtype="int32", name="ids"), keras.Input((4,), name="weights")
    return keras.Model([ids, weights], keras.layers.CategoryEncoding(3, "count")(ids, count_weights=weights))


def _adds_up(layer: keras.layers.CategoryEncoding) -> str | None:
    if layer.sparse:
        return "its result is sparse"
    return None if layer.output_mode in ("multi_hot", "count") else f"output_mode={layer.output_mode!r} adds nothing up"


@rule(
    "tflite",
    keras.layers.CategoryEncoding,
    applies=_adds_up,
    cases=(
        Case("multi_hot", lambda: _model("multi_hot"), ops={"ONE_HOT": 1, "REDUCE_MAX": 1}),
        Case("count", lambda: _model("count", "float32"), ops={"ONE_HOT": 1, "SUM": 1}),
        Case("weighted", _weighted, ops={"ONE_HOT": 1, "MUL": 1, "SUM": 1}),
    ),
)
def lower(ctx: Context, layer: keras.layers.CategoryEncoding, inputs: Inputs, masks: Masks) -> Tensor:
    """ids: (batch, n) -> (batch, num_tokens); count_weights: (batch, n)."""
    del masks
    ids = inputs[0]
    found = tf.one_hot(tf.cast(ids, tf.int32), layer.num_tokens, dtype=tf.float32)
    weights: Any = ctx.arguments.get("count_weights")
    if weights is not None:
        found = found * tf.expand_dims(weights, -1)
    reduce = tf.reduce_max if layer.output_mode == "multi_hot" else tf.reduce_sum
    return reduce(found, axis=min(1, ids.shape.rank - 1))
