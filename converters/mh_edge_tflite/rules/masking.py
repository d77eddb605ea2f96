"""Masking: y_t = x_t where any of x_t differs from the mask value, else 0."""

from __future__ import annotations

import keras
import tensorflow as tf

from mh_edge.rules import Case, rule
from mh_edge_tflite.context import Context, Inputs, Masks, Tensor


def _mean(value: float) -> keras.Model:
    """The mean reads the mask that Keras computes beside the layer, as most layers of a functional model do."""
    x = keras.Input((None, 4), name="x")
    y = keras.layers.Masking(value)(x)
    return keras.Model(x, [keras.layers.Dense(3)(y), keras.layers.GlobalAveragePooling1D()(y)])


def _attention(value: float) -> keras.Model:
    """A call with a keyword reads the mask that the layer puts on its output."""
    x = keras.Input((None, 4), name="x")
    y = keras.layers.Masking(value)(x)
    return keras.Model(x, keras.layers.Attention()([y, keras.layers.Dense(4)(y)], use_causal_mask=True))


def _holds(selections: int) -> dict[str, int]:
    return {"NOT_EQUAL": 1, "REDUCE_ANY": 1, "SELECT_V2": selections}


@rule(
    "tflite",
    keras.layers.Masking,
    cases=(
        Case("zero", lambda: _attention(0.0), ops=_holds(0)),
        Case("value", lambda: _attention(-1.5), ops=_holds(1)),
        # One selection is that of the mean, for rows without valid steps.
        Case("value_mean", lambda: _mean(-1.5), ops=_holds(2)),
    ),
)
def lower(ctx: Context, layer: keras.layers.Masking, inputs: Inputs, masks: Masks) -> Tensor:
    """x: (batch, time, ...) -> the same. What is dropped for the mask value 0 is 0 already, so nothing is done."""
    del ctx, masks
    (x,) = inputs
    # Most layers of a functional model read a mask that Keras computes beside this call, along a list of axes: the
    # converter makes one of two that are alike.
    valid = tf.reduce_any(tf.not_equal(x, layer.mask_value), axis=[-1])
    # Another tensor in any case, for Keras's mask is put on it.
    y = tf.identity(x) if layer.mask_value == 0 else tf.where(tf.expand_dims(valid, -1), x, 0.0)
    keras.src.backend.set_keras_mask(y, valid)
    return y
