"""SeqWeightedAttention: y = Σ over time of a·x, a = exp(s − max s) / (Σ exp(s − max s) + 1e-7), s = x W + b − masks."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from mh_edge.layers import SeqWeightedAttention
from mh_edge.layers.seq_weighted_attention import EPSILON
from mh_edge.rules import Case, rule
from mh_edge_tflite.attention import BOOLEAN, additive, hidden
from mh_edge_tflite.context import Context, Inputs, Masks, dense, reshape, sizes


def _model(masked: bool, **options: Any) -> keras.Model:
    x = keras.Input((None, 6), name="x")
    z = keras.layers.Masking()(x) if masked else x
    return keras.Model(x, SeqWeightedAttention(**options)(z))


@rule(
    "tflite",
    SeqWeightedAttention,
    cases=(
        Case("plain", lambda: _model(False), ops={"EXP": 1, "BATCH_MATMUL": 1}, absent=("SHAPE",)),
        Case(
            "masked", lambda: _model(True, return_attention=True), ops={"EXP": 1, "CAST": 1}, absent=("SHAPE", *BOOLEAN)
        ),
        Case("no_bias", lambda: _model(True, use_bias=False), ops={"EXP": 1}),
    ),
)
def lower(ctx: Context, layer: SeqWeightedAttention, inputs: Inputs, masks: Masks) -> Any:
    """x: (batch, time, dim) -> (batch, dim), and the weights (batch, time) if asked."""
    del ctx
    (x,) = inputs
    scores = tf.squeeze(dense(x, layer.W, layer.b), -1)
    if masks[0] is not None:
        scores = scores + additive(hidden(masks[0]))
    exponentials = tf.exp(scores - tf.reduce_max(scores, axis=-1, keepdims=True))
    weights = exponentials / (tf.reduce_sum(exponentials, axis=-1, keepdims=True) + EPSILON)
    # The weighted sum as a product of (1, time) and (time, dim): one kernel, no (time, dim) in between.
    batch, steps, width = sizes(x)
    output = reshape(tf.matmul(reshape(weights, [batch, 1, steps]), x), [batch, width])
    return [output, weights] if layer.return_attention else output
