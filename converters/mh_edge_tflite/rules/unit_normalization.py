"""UnitNormalization: y = x / max(|x|, 1e-12), the length over the axes."""

from __future__ import annotations

import keras
import tensorflow as tf

from mh_edge.rules import Case, rule
from mh_edge_tflite.context import Context, Inputs, Masks, Tensor

SHORTEST = 1e-12
"""Keras divides by no less."""


def _model(axis: int | tuple[int, ...]) -> keras.Model:
    return keras.Sequential([keras.Input((None, 6)), keras.layers.UnitNormalization(axis), keras.layers.Dense(3)])


@rule(
    "tflite",
    keras.layers.UnitNormalization,
    cases=(
        # Keras's own form is 0 * (1 / 0) for an x of zeros.
        Case("last", lambda: _model(-1), ops={"SUM": 1, "MAXIMUM": 1, "DIV": 1}, absent=("RSQRT",)),
        Case("two_axes", lambda: _model((1, 2)), ops={"SUM": 1, "MAXIMUM": 1, "DIV": 1}, absent=("RSQRT",)),
    ),
)
def lower(ctx: Context, layer: keras.layers.UnitNormalization, inputs: Inputs, masks: Masks) -> Tensor:
    """x: any shape -> the same shape."""
    del ctx, masks
    (x,) = inputs
    length = tf.sqrt(tf.reduce_sum(x * x, layer.axis, keepdims=True))
    return x / tf.maximum(length, SHORTEST)
