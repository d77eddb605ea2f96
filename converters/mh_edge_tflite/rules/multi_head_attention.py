"""MultiHeadAttention: y = f(softmax(q kᵀ / sqrt(d) − masks) v Wo + bo), q, k, v = f(x W + b) cut into heads."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from mh_edge.layers import MultiHeadAttention
from mh_edge.rules import Case, rule
from mh_edge_tflite.attention import BOOLEAN, attend, each_role, join_heads, key_and_order_mask, split_heads
from mh_edge_tflite.context import Context, Inputs, Masks, dense


def _model(masked: bool, *, steps: int | None = None, **options: Any) -> keras.Model:
    x = keras.Input((steps, 6), name="x")
    z = keras.layers.Masking()(x) if masked else x
    return keras.Model(x, MultiHeadAttention(3, bias_initializer="normal", **options)(z))


def _three(**options: Any) -> keras.Model:
    """Query, key and value of different lengths and widths, the key masked."""
    query, key, value = (keras.Input((None, width), name=name) for name, width in (("q", 5), ("k", 7), ("v", 6)))
    return keras.Model(
        [query, key, value], MultiHeadAttention(2, **options)([query, keras.layers.Masking()(key), value])
    )


STATIC = ("SHAPE", "GATHER", "PACK", "STRIDED_SLICE")


@rule(
    "tflite",
    MultiHeadAttention,
    cases=(
        Case("self", lambda: _model(False), ops={"FULLY_CONNECTED": 4, "BATCH_MATMUL": 2, "SOFTMAX": 1}, absent=STATIC),
        Case("masked", lambda: _model(True), ops={"SUB": 1, "CAST": 1, "BATCH_MATMUL": 2}, absent=(*STATIC, *BOOLEAN)),
        Case("history", lambda: _model(True, history_only=True, activation="gelu"), ops={"SOFTMAX": 1}),
        Case("fixed", lambda: _model(False, steps=5, history_only=True), ops={"SOFTMAX": 1}, absent=("RANGE", *STATIC)),
        Case("weights", lambda: _model(True, return_attention=True, activation=None), ops={"SOFTMAX": 1}),
        Case("no_bias", lambda: _model(True, use_bias=False), ops={"FULLY_CONNECTED": 4}),
        Case("three", lambda: _three(), ops={"SOFTMAX": 1}, absent=STATIC),
        Case("three_history", lambda: _three(history_only=True), ops={"SOFTMAX": 1}),
    ),
)
def lower(ctx: Context, layer: MultiHeadAttention, inputs: Inputs, masks: Masks) -> Any:
    """x, or Q: (batch, Tq, q_in), K: (batch, Tk, k_in), V: (batch, Tk, v_in) -> (batch, Tq, v_in), and the weights if
    asked.
    """
    del ctx
    query, key, value = each_role(inputs)
    mask = key_and_order_mask(query, key, each_role(masks)[1], layer.history_only, rank=4)
    q = split_heads(layer.activation(dense(query, layer.Wq, layer.bq)), layer.head_num)
    k = split_heads(layer.activation(dense(key, layer.Wk, layer.bk)), layer.head_num)
    v = split_heads(layer.activation(dense(value, layer.Wv, layer.bv)), layer.head_num)
    joined, weights = attend(q, k, v, mask)
    output = layer.activation(dense(join_heads(joined), layer.Wo, layer.bo))
    return [output, tf.transpose(weights, (0, 2, 1, 3))] if layer.return_attention else output
