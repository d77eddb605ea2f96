"""LSTM: i, f, o = g(x W + h R + b), c' = f c + i a(x W_c + h R_c + b_c), h' = o a(c'), as ONNX's LSTM."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import onnx_ir as ir

from mh_edge.recurrence import zeroed_elsewhere
from mh_edge.rules import Case, rule
from mh_edge_onnx import recurrent
from mh_edge_onnx.context import Context, Inputs, Masks
from mh_edge_onnx.recurrent import LOOPS


class LSTMCell:
    """keras.layers.LSTM (gates i, f, c, o; one bias) as ONNX's LSTM (gates i, o, f, c; an input and a recurrent
    bias).
    """

    op_type = "LSTM"
    states = 2
    order = (0, 3, 1, 2)

    def functions(self, layer: keras.layers.LSTM) -> list[Callable[..., Any]]:
        return [layer.recurrent_activation, layer.activation, layer.activation]

    def weights(self, ctx: Context, layers: Sequence[keras.layers.LSTM]) -> tuple[ir.Value, ir.Value, ir.Value | None]:
        change = recurrent.gates(self.order)
        return recurrent.weights(
            ctx, layers, self.order, "lstm", lambda bias: np.concatenate([change(bias), np.zeros_like(bias)])
        )

    def attributes(self, layer: keras.layers.LSTM) -> dict[str, Any]:
        del layer
        return {}

    def holding(self, layer: keras.layers.LSTM) -> None:
        """An LSTM's output gate is computed anew at every step, so it never holds its output."""
        del layer


CELL = LSTMCell()


def _model(masked: bool, **options: Any) -> keras.Model:
    x = keras.Input((None, 4))
    z = keras.layers.Masking()(x) if masked else x
    return keras.Model(x, keras.layers.LSTM(3, bias_initializer="normal", **options)(z))


@rule(
    "onnx",
    keras.layers.LSTM,
    applies=lambda layer: zeroed_elsewhere(layer) or recurrent.plain(CELL, layer),
    cases=(
        Case("last", lambda: _model(False), ops={"LSTM": 1}, absent=(*LOOPS, "CumSum", "TopK")),
        Case("sequences", lambda: _model(False, return_sequences=True), ops={"LSTM": 1}, absent=LOOPS),
        Case("masked", lambda: _model(True), ops={"LSTM": 1, "TopK": 1, "GatherND": 1}, absent=(*LOOPS, "CumSum")),
        Case(
            "masked_sequences",
            lambda: _model(True, return_sequences=True),
            ops={"LSTM": 1, "TopK": 1, "GatherND": 2, "CumSum": 1},
            absent=LOOPS,
        ),
        Case(
            "backwards", lambda: _model(True, return_sequences=True, go_backwards=True), ops={"LSTM": 1}, absent=LOOPS
        ),
        Case("zero_output", lambda: _model(True, zero_output_for_mask=True), ops={"LSTM": 1}, absent=LOOPS),
        Case("state", lambda: _model(True, return_state=True, use_bias=False), ops={"LSTM": 1}, absent=LOOPS),
        Case(
            "activations", lambda: _model(True, activation="elu", recurrent_activation="hard_sigmoid"), ops={"LSTM": 1}
        ),
    ),
)
def lower(ctx: Context, layer: keras.layers.LSTM, inputs: Inputs, masks: Masks) -> list[ir.Value]:
    """x: (batch, time, in) -> (batch, units) or (batch, time, units), then h and c when return_state."""
    return recurrent.lower_single(ctx, layer, [(CELL, [layer])], inputs, masks)
