"""GRU: z, r = g(x W + h R + b), n = a(x W_n + b_n + r (h R_n + b_Rn)), h' = z h + (1 - z) n, as ONNX's GRU.

With reset_after=False the reset gate acts before the product: n = a(x W_n + (r h) R_n + b_n).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import onnx_ir as ir

from mh_edge.layers.keras2_hard_sigmoid import keras2_hard_sigmoid
from mh_edge.recurrence import zeroed_elsewhere
from mh_edge.rules import Case, rule
from mh_edge_onnx import recurrent
from mh_edge_onnx.context import Context, Inputs, Masks
from mh_edge_onnx.recurrent import LOOPS

SATURATING = (keras.activations.sigmoid, keras.activations.hard_sigmoid, keras2_hard_sigmoid)
"""Gates that are exactly 1 far enough to the right."""


@dataclass(frozen=True)
class GRUCell:
    """keras.layers.GRU as ONNX's GRU; both have the gates z, r, n. linear_before_reset is Keras's reset_after.

    held: with one more input feature, which opens z.
    """

    held: bool = False

    op_type = "GRU"
    states = 1
    order = (0, 1, 2)

    def functions(self, layer: keras.layers.GRU) -> list[Callable[..., Any]]:
        return [layer.recurrent_activation, layer.activation]

    def weights(self, ctx: Context, layers: Sequence[keras.layers.GRU]) -> tuple[ir.Value, ir.Value, ir.Value | None]:
        def bias(array: np.ndarray) -> np.ndarray:
            # (2, 3 units) with reset_after: input row, recurrent row; else (3 units,) for the input alone.
            return array.reshape(-1) if array.ndim == 2 else np.concatenate([array, np.zeros_like(array)])

        return recurrent.weights(ctx, layers, self.order, "gru", bias, (1, 0, 0) if self.held else None)

    def attributes(self, layer: keras.layers.GRU) -> dict[str, Any]:
        return {"linear_before_reset": int(layer.reset_after)}

    def holding(self, layer: keras.layers.GRU) -> GRUCell | None:
        return GRUCell(held=True) if layer.recurrent_activation in SATURATING else None


CELL = GRUCell()


def _model(masked: bool, **options: Any) -> keras.Model:
    x = keras.Input((None, 4))
    z = keras.layers.Masking()(x) if masked else x
    return keras.Model(x, keras.layers.GRU(3, bias_initializer="normal", **options)(z))


@rule(
    "onnx",
    keras.layers.GRU,
    applies=lambda layer: zeroed_elsewhere(layer) or recurrent.plain(CELL, layer),
    cases=(
        Case("last", lambda: _model(False), ops={"GRU": 1}, absent=(*LOOPS, "CumSum")),
        Case("reset_before", lambda: _model(False, reset_after=False), ops={"GRU": 1}, absent=LOOPS),
        Case(
            "masked_sequences",
            lambda: _model(True, return_sequences=True),
            ops={"GRU": 1, "Concat": 1},
            absent=(*LOOPS, "TopK", "CumSum"),
        ),
        Case("masked_reset_before", lambda: _model(True, reset_after=False), ops={"GRU": 1}, absent=LOOPS),
        Case("backwards", lambda: _model(True, go_backwards=True, return_sequences=True), ops={"GRU": 1}, absent=LOOPS),
        Case(
            "unsaturated_gate",
            lambda: _model(True, recurrent_activation="softsign"),
            ops={"GRU": 1, "TopK": 1},
            absent=LOOPS,
        ),
        Case("state", lambda: _model(True, return_state=True, use_bias=False), ops={"GRU": 1}, absent=LOOPS),
    ),
)
def lower(ctx: Context, layer: keras.layers.GRU, inputs: Inputs, masks: Masks) -> list[ir.Value]:
    """x: (batch, time, in) -> (batch, units) or (batch, time, units), then the state when return_state."""
    return recurrent.lower_single(ctx, layer, [(CELL, [layer])], inputs, masks)
