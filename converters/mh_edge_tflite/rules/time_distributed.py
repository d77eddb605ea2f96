"""TimeDistributed: y[:, t] = L(x[:, t]), as one L over batch and time together."""

from __future__ import annotations

from typing import Any

import keras

from mh_edge.rules import Case, rule
from mh_edge_tflite.context import Context, Inputs, Masks, Tensor, reshape, sizes


def _model(layer: Any, *shape: int | None) -> keras.Model:
    x = keras.Input(shape, name="x")
    return keras.Model(x, keras.layers.TimeDistributed(layer)(x))


@rule(
    "tflite",
    keras.layers.TimeDistributed,
    cases=(
        # Keras's own form copies L for each step of a fixed time, and for a free one TensorFlow's converter keeps the
        # first step alone.
        Case("dense", lambda: _model(keras.layers.Dense(3), None, 4), ops={"FULLY_CONNECTED": 1}),
        Case("fixed", lambda: _model(keras.layers.Conv1D(3, 2), 5, 6, 4), ops={"CONV_2D": 1}),
        Case("recurrent", lambda: _model(keras.layers.LSTM(3, return_sequences=True), None, 5, 4), absent=("WHILE",)),
        Case("inner_length", lambda: _model(keras.layers.Conv1D(3, 2, padding="same"), 5, None, 4), ops={"CONV_2D": 1}),
    ),
)
def lower(ctx: Context, layer: keras.layers.TimeDistributed, inputs: Inputs, masks: Masks) -> Tensor:
    """x: (batch, time, ...) -> (batch, time, ...), the rest as L gives it."""
    (x,) = inputs
    mask = masks[0] if masks[0] is None else _together(masks[0])
    y = ctx.call(layer.layer, _together(x), mask)
    return reshape(y, [*sizes(x)[:2], *sizes(y)[1:]])


def _together(x: Tensor) -> Tensor:
    """(batch, time, ...) -> (batch * time, ...)."""
    batch, time, *rest = sizes(x)
    return reshape(x, [batch * time, *rest])
