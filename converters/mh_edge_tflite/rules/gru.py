"""GRU: z, r = g(x W + h R + b), h~ = a(x W_h + r (h R_h + b_h)) or a(x W_h + (r h) R_h), h' = z h + (1 − z) h~."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from mh_edge.rules import Case, rule
from mh_edge_tflite.context import Context, Inputs, Masks, Tensor, dense
from mh_edge_tflite.recurrent import lower_recurrent


class GRUCell:
    """keras.layers.GRU: gates z, r, h; with reset_after bias is (2, 3 * units), of the input and of the state."""

    def project(self, layer: keras.layers.GRU, x: Tensor) -> Tensor:
        bias = layer.cell.bias
        return dense(x, layer.cell.kernel, bias[0] if bias is not None and layer.reset_after else bias)

    def step(self, layer: keras.layers.GRU, z: Tensor, states: Sequence[Tensor]) -> Sequence[Tensor]:
        (h,) = states
        g, a, units = layer.recurrent_activation, layer.activation, layer.units
        kernel, bias = tf.convert_to_tensor(layer.cell.recurrent_kernel), layer.cell.bias
        of_update, of_reset, of_new = tf.split(z, 3, axis=1)
        if layer.reset_after:
            update, reset, new = tf.split(dense(h, kernel, None if bias is None else bias[1]), 3, axis=1)
            r = g(of_reset + reset)
            candidate = a(of_new + r * new)
        else:
            update, reset = tf.split(tf.matmul(h, kernel[:, : 2 * units]), 2, axis=1)
            r = g(of_reset + reset)
            candidate = a(of_new + tf.matmul(r * h, kernel[:, 2 * units :]))
        u = g(of_update + update)
        return (u * h + (1.0 - u) * candidate,)


CELL = GRUCell()


def _model(masked: bool, *, steps: int | None = None, **options: Any) -> keras.Model:
    x = keras.Input((steps, 4), name="x")
    z = keras.layers.Masking()(x) if masked else x
    return keras.Model(x, keras.layers.GRU(3, bias_initializer="normal", **options)(z))


@rule(
    "tflite",
    keras.layers.GRU,
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
    del ctx
    return lower_recurrent(CELL, layer, inputs, masks)
