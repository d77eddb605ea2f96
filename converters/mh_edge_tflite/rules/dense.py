"""Dense: y = f(x W + b) over the last axis of an x of any rank."""

from __future__ import annotations

from typing import Any

import keras

from mh_edge.rules import Case, rule
from mh_edge_tflite.context import Context, Inputs, Masks, Tensor, dense


def _model(*shape: int | None, **options: Any) -> keras.Model:
    x = keras.Input(shape, name="x")
    return keras.Model(x, keras.layers.Dense(3, bias_initializer="normal", **options)(x))


@rule(
    "tflite",
    keras.layers.Dense,
    applies=lambda layer: (
        "its kernel is quantized or low-rank" if layer.quantization_mode or layer.lora_enabled else None
    ),
    cases=(
        Case("vector", lambda: _model(4, activation="relu"), ops={"FULLY_CONNECTED": 1}, absent=("RELU",)),
        # Keras's own form asks for the shape, flattens, multiplies and restores: 13 operations.
        Case("sequence", lambda: _model(None, 4), ops={"FULLY_CONNECTED": 1}, absent=("SHAPE", "RESHAPE")),
        Case("images", lambda: _model(None, 5, 4, use_bias=False), ops={"FULLY_CONNECTED": 1}, absent=("SHAPE",)),
    ),
)
def lower(ctx: Context, layer: keras.layers.Dense, inputs: Inputs, masks: Masks) -> Tensor:
    """x: (batch, ..., in) -> (batch, ..., units)."""
    del ctx, masks
    return layer.activation(dense(inputs[0], layer.kernel, layer.bias))
