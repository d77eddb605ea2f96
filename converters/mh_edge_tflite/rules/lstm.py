"""LSTM: i, f, o = g(x W + h R + b), c' = f c + i a(x W_c + h R_c + b_c), h' = o a(c')."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from mh_edge.recurrence import zeroed_elsewhere
from mh_edge.rules import Case, rule
from mh_edge_tflite.context import Context, Inputs, Masks, Tensor
from mh_edge_tflite.recurrent import Array, Weights, lower_recurrent


class LSTMCell:
    """keras.layers.LSTM: gates i, f, c, o; states h, c."""

    def biases(self, of: keras.layers.LSTMCell, bias: Array) -> tuple[Array, None]:
        del of
        return bias, None

    def step(
        self, of: keras.layers.LSTMCell, weights: Weights, z: Tensor, states: Sequence[Tensor]
    ) -> Sequence[Tensor]:
        h, c = states
        i, f, candidate, o = tf.split(z + tf.matmul(h, weights.recurrent), 4, axis=-1)
        g, a = of.recurrent_activation, of.activation
        c = g(f) * c + g(i) * a(candidate)
        return g(o) * a(c), c


CELL = LSTMCell()


def _model(masked: bool, *, steps: int | None = None, **options: Any) -> keras.Model:
    x = keras.Input((steps, 4), name="x")
    z = keras.layers.Masking()(x) if masked else x
    return keras.Model(x, keras.layers.LSTM(3, bias_initializer="normal", **options)(z))


@rule(
    "tflite",
    keras.layers.LSTM,
    applies=zeroed_elsewhere,
    cases=(
        Case("last", lambda: _model(False), ops={"WHILE": 1}),
        Case("sequences", lambda: _model(False, return_sequences=True), ops={"WHILE": 2}),
        Case("masked", lambda: _model(True), ops={"WHILE": 1}),
        Case(
            "short",
            lambda: _model(False, steps=6, return_sequences=True),
            ops={"FULLY_CONNECTED": 6},
            absent=("WHILE",),
        ),
        Case("masked_state", lambda: _model(True, return_state=True, use_bias=False), ops={"WHILE": 1}),
        Case("backwards", lambda: _model(True, return_sequences=True, go_backwards=True), ops={"WHILE": 2}),
        Case("fixed", lambda: _model(True, steps=9, return_sequences=True), ops={"WHILE": 1}, absent=("SHAPE",)),
        Case("fixed_long", lambda: _model(False, steps=40, return_sequences=True), ops={"WHILE": 2}, absent=("SHAPE",)),
        Case(
            "zero_sequences",
            lambda: _model(True, return_sequences=True, zero_output_for_mask=True, go_backwards=True),
            ops={"WHILE": 2},
        ),
        Case("zero_output", lambda: _model(True, zero_output_for_mask=True), ops={"WHILE": 1}),
        Case(
            "activations", lambda: _model(True, activation="elu", recurrent_activation="hard_sigmoid"), ops={"WHILE": 1}
        ),
    ),
)
def lower(ctx: Context, layer: keras.layers.LSTM, inputs: Inputs, masks: Masks) -> Any:
    """x: (batch, time, in) -> (batch, units) or (batch, time, units), then h and c when return_state."""
    return lower_recurrent(ctx, CELL, layer, inputs, masks)
