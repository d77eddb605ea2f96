"""GRU: z, r = g(x W + h R + b), h~ = a(x W_h + r (h R_h + b_h)) or a(x W_h + (r h) R_h), h' = z h + (1 − z) h~."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from mh_edge.recurrence import zeroed_elsewhere
from mh_edge.rules import Case, rule
from mh_edge_tflite.context import Context, Inputs, Masks, Tensor, dense
from mh_edge_tflite.recurrent import Array, Weights, lower_recurrent


class GRUCell:
    """keras.layers.GRU: gates z, r, h; with reset_after bias is (2, 3 * units), of the input and of the state."""

    def biases(self, of: keras.layers.GRUCell, bias: Array) -> tuple[Array, Array | None]:
        return (bias[0], bias[1]) if of.reset_after else (bias, None)

    def step(self, of: keras.layers.GRUCell, weights: Weights, z: Tensor, states: Sequence[Tensor]) -> Sequence[Tensor]:
        (h,) = states
        g, a, gates = of.recurrent_activation, of.activation, 2 * of.units
        of_gates, of_new = z[..., :gates], z[..., gates:]
        if of.reset_after:
            product = dense(h, weights.recurrent, weights.recurrent_bias)
            update, reset = tf.split(of_gates + product[..., :gates], 2, axis=-1)
            candidate = a(of_new + g(reset) * product[..., gates:])
        else:
            product = tf.matmul(h, weights.recurrent[..., :gates])
            update, reset = tf.split(of_gates + product, 2, axis=-1)
            candidate = a(of_new + tf.matmul(g(reset) * h, weights.recurrent[..., gates:]))
        u = g(update)
        return (u * h + (1.0 - u) * candidate,)


CELL = GRUCell()


def _model(masked: bool, *, steps: int | None = None, **options: Any) -> keras.Model:
    x = keras.Input((steps, 4), name="x")
    z = keras.layers.Masking()(x) if masked else x
    return keras.Model(x, keras.layers.GRU(3, bias_initializer="normal", **options)(z))


@rule(
    "tflite",
    keras.layers.GRU,
    applies=zeroed_elsewhere,
    cases=(
        Case("last", lambda: _model(False), ops={"WHILE": 1}),
        Case("masked_sequences", lambda: _model(True, return_sequences=True), ops={"WHILE": 2}),
        Case("reset_before", lambda: _model(True, reset_after=False), ops={"WHILE": 1}),
        Case("no_bias", lambda: _model(True, use_bias=False, return_state=True), ops={"WHILE": 1}),
        Case("backwards", lambda: _model(True, return_sequences=True, go_backwards=True), ops={"WHILE": 2}),
        Case("short", lambda: _model(False, steps=6, reset_after=False, return_sequences=True), absent=("WHILE",)),
    ),
)
def lower(ctx: Context, layer: keras.layers.GRU, inputs: Inputs, masks: Masks) -> Any:
    """x: (batch, time, in) -> (batch, units) or (batch, time, units), then h when return_state."""
    return lower_recurrent(ctx, CELL, layer, inputs, masks)
