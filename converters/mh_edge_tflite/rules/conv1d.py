"""Conv1D: y_t = f(Σ_k x_{t·stride + k·dilation} W_k + b), as a convolution over an image of height 1."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from mh_edge.rules import Case, rule
from mh_edge_tflite.context import Context, Inputs, Masks, Tensor


def _model(**options: Any) -> keras.Model:
    x = keras.Input((None, 6), name="x")
    given = {"padding": "same", "bias_initializer": "normal", **options}
    return keras.Model(x, keras.layers.Conv1D(4, 3, **given)(x))


# Keras's own form of a dilation over a free length asks for the length and moves steps into the batch and back.
OPS = {"CONV_2D": 1}
LITTER = ("SHAPE", "SPACE_TO_BATCH_ND", "ADD", "RELU")


@rule(
    "tflite",
    keras.layers.Conv1D,
    applies=lambda layer: (
        None if layer.data_format == "channels_last" else "its data_format is channels_first, which TensorFlow turns"
    ),
    cases=(
        Case("same", lambda: _model(activation="relu"), ops=OPS | {"PAD": 0}, absent=LITTER),
        Case("causal", lambda: _model(padding="causal", dilation_rate=2), ops=OPS | {"PAD": 1}, absent=LITTER),
        Case("dilated", lambda: _model(dilation_rate=3, use_bias=False), ops=OPS, absent=LITTER),
        Case("strided", lambda: _model(strides=2), ops=OPS, absent=LITTER),
        Case("grouped", lambda: _model(groups=2), ops=OPS, absent=LITTER),
    ),
)
def lower(ctx: Context, layer: keras.layers.Conv1D, inputs: Inputs, masks: Masks) -> Tensor:
    """x: (batch, time, channels) -> (batch, steps, filters)."""
    del ctx, masks
    (x,) = inputs
    (size,), (stride,), (dilation,) = layer.kernel_size, layer.strides, layer.dilation_rate
    padding = layer.padding.upper()
    if padding == "CAUSAL":
        x, padding = tf.pad(x, ((0, 0), ((size - 1) * dilation, 0), (0, 0))), "VALID"
    kernel = tf.expand_dims(tf.convert_to_tensor(layer.kernel), 0)
    y = tf.nn.conv2d(tf.expand_dims(x, 1), kernel, (1, stride), padding, dilations=(1, dilation))
    y = y if layer.bias is None else y + tf.convert_to_tensor(layer.bias)
    return layer.activation(tf.squeeze(y, 1))
