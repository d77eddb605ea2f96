"""Masking: y_t = x_t where any of x_t differs from the mask value, else 0."""

from __future__ import annotations

import keras
import tensorflow as tf

from mh_edge.rules import Case, rule
from mh_edge_tflite.context import Context, Inputs, Masks, Tensor


def _model(value: float) -> keras.Model:
    x = keras.Input((None, 4), name="x")
    y = keras.layers.Masking(value)(x)
    # The mean of the steps that are there is what the mask is for.
    return keras.Model(x, [keras.layers.Dense(3)(y), keras.layers.GlobalAveragePooling1D()(y)])


@rule(
    "tflite",
    keras.layers.Masking,
    cases=(
        # One selection is that of the mean, for rows without valid steps.
        Case("zero", lambda: _model(0.0), ops={"NOT_EQUAL": 1, "REDUCE_ANY": 1, "SELECT_V2": 1}),
        Case("value", lambda: _model(-1.5), ops={"NOT_EQUAL": 1, "REDUCE_ANY": 1, "SELECT_V2": 2}),
    ),
)
def lower(ctx: Context, layer: keras.layers.Masking, inputs: Inputs, masks: Masks) -> Tensor:
    """x: (batch, time, ...) -> the same. What is dropped for the mask value 0 is 0 already, so nothing is done."""
    del ctx, masks
    (x,) = inputs
    valid = tf.reduce_any(tf.not_equal(x, layer.mask_value), axis=-1)
    # Another tensor in any case, for Keras's mask is put on it.
    y = tf.identity(x) if layer.mask_value == 0 else tf.where(tf.expand_dims(valid, -1), x, 0.0)
    keras.src.backend.set_keras_mask(y, valid)
    return y
