"""SimpleRNN: h' = a(x W + b + h R)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from mh_edge.recurrence import zeroed_elsewhere
from mh_edge.rules import Case, rule
from mh_edge_tflite.context import Context, Inputs, Masks, Tensor
from mh_edge_tflite.recurrent import Array, Weights, lower_recurrent


class SimpleRNNCell:
    """keras.layers.SimpleRNN: one state, which is the output."""

    def biases(self, of: keras.layers.SimpleRNNCell, bias: Array) -> tuple[Array, None]:
        del of
        return bias, None

    def step(
        self, of: keras.layers.SimpleRNNCell, weights: Weights, z: Tensor, states: Sequence[Tensor]
    ) -> Sequence[Tensor]:
        return (of.activation(z + tf.matmul(states[0], weights.recurrent)),)


CELL = SimpleRNNCell()


def _model(masked: bool, *, steps: int | None = None, **options: Any) -> keras.Model:
    x = keras.Input((steps, 4), name="x")
    z = keras.layers.Masking()(x) if masked else x
    return keras.Model(x, keras.layers.SimpleRNN(3, bias_initializer="normal", **options)(z))


@rule(
    "tflite",
    keras.layers.SimpleRNN,
    applies=zeroed_elsewhere,
    cases=(
        Case("last", lambda: _model(False), ops={"WHILE": 1}),
        Case("masked_sequences", lambda: _model(True, return_sequences=True, return_state=True), ops={"WHILE": 2}),
        Case("activation", lambda: _model(True, activation="softmax", use_bias=False), ops={"WHILE": 1}),
        Case("short", lambda: _model(False, steps=6, go_backwards=True), ops={"TANH": 6}, absent=("WHILE",)),
    ),
)
def lower(ctx: Context, layer: keras.layers.SimpleRNN, inputs: Inputs, masks: Masks) -> Any:
    """x: (batch, time, in) -> (batch, units) or (batch, time, units), then h when return_state."""
    return lower_recurrent(ctx, CELL, layer, inputs, masks)
