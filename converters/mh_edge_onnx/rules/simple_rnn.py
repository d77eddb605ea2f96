"""SimpleRNN: h' = a(x W + h R + b), as ONNX's RNN."""

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


class SimpleRNNCell:
    """keras.layers.SimpleRNN as ONNX's RNN."""

    op_type = "RNN"
    states = 1

    def functions(self, layer: keras.layers.SimpleRNN) -> list[Callable[..., Any]]:
        return [layer.activation]

    def weights(
        self, ctx: Context, layers: Sequence[keras.layers.SimpleRNN]
    ) -> tuple[ir.Value, ir.Value, ir.Value | None]:
        return recurrent.weights(ctx, layers, (0,), "rnn", lambda bias: np.concatenate([bias, np.zeros_like(bias)]))

    def attributes(self, layer: keras.layers.SimpleRNN) -> dict[str, Any]:
        del layer
        return {}

    def holding(self, layer: keras.layers.SimpleRNN) -> None:
        """Nothing in it holds the state."""
        del layer


CELL = SimpleRNNCell()


def _model(masked: bool, **options: Any) -> keras.Model:
    x = keras.Input((None, 4))
    z = keras.layers.Masking()(x) if masked else x
    return keras.Model(x, keras.layers.SimpleRNN(3, bias_initializer="normal", **options)(z))


@rule(
    "onnx",
    keras.layers.SimpleRNN,
    applies=lambda layer: zeroed_elsewhere(layer) or recurrent.plain(CELL, layer),
    cases=(
        Case("last", lambda: _model(False), ops={"RNN": 1}, absent=(*LOOPS, "CumSum")),
        Case(
            "masked_sequences",
            lambda: _model(True, return_sequences=True),
            ops={"RNN": 1, "TopK": 1, "GatherND": 2},
            absent=LOOPS,
        ),
        Case("backwards", lambda: _model(True, go_backwards=True, return_sequences=True), ops={"RNN": 1}, absent=LOOPS),
        Case("relu_state", lambda: _model(True, return_state=True, activation="relu"), ops={"RNN": 1}, absent=LOOPS),
    ),
)
def lower(ctx: Context, layer: keras.layers.SimpleRNN, inputs: Inputs, masks: Masks) -> list[ir.Value]:
    """x: (batch, time, in) -> (batch, units) or (batch, time, units), then the state when return_state."""
    return recurrent.lower_single(ctx, layer, [(CELL, [layer])], inputs, masks)
