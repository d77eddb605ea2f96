"""RNN over Keras's own cells, one or several: y_t = cell_n(... cell_1(x_t)), as one ONNX operation for each cell.

A stack of cells steps through time once, ONNX's operations one after the other; each cell reads of the one before it
only the same step, so the numbers are the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import onnx_ir as ir

from mh_edge.recurrence import cells, zeroed_elsewhere
from mh_edge.rules import Case, rule
from mh_edge_onnx import recurrent
from mh_edge_onnx.context import Context, Inputs, Masks
from mh_edge_onnx.recurrent import LOOPS, Cell, Stage
from mh_edge_onnx.rules import gru, lstm, simple_rnn

KINDS: dict[type, Cell] = {
    keras.layers.LSTMCell: lstm.CELL,
    keras.layers.GRUCell: gru.CELL,
    keras.layers.SimpleRNNCell: simple_rnn.CELL,
}


def stages(layer: keras.layers.RNN) -> list[Stage]:
    """One stage for each cell of a layer that is `plain`."""
    return [(KINDS[type(cell)], [cell]) for cell in cells(layer)]


def plain(layer: keras.layers.RNN) -> str | None:
    """None when every cell of the layer is one of ONNX's operations, else why not."""
    if (reason := zeroed_elsewhere(layer)) is not None:
        return reason
    for cell in cells(layer):
        if type(cell) not in KINDS:
            return f"its cell {type(cell).__name__} has no recurrent operation in ONNX"
        if (reason := recurrent.plain(KINDS[type(cell)], cell)) is not None:
            return reason
    return None


def _model(masked: bool, *make: Callable[[int], Any], **options: Any) -> keras.Model:
    x = keras.Input((None, 4))
    z = keras.layers.Masking()(x) if masked else x
    made: Sequence[Any] = [cell(units) for cell, units in zip(make, (3, 5, 2), strict=False)]
    return keras.Model(x, keras.layers.RNN(made if len(made) > 1 else made[0], **options)(z))


_LSTM, _GRU, _SIMPLE = keras.layers.LSTMCell, keras.layers.GRUCell, keras.layers.SimpleRNNCell


@rule(
    "onnx",
    keras.layers.RNN,
    applies=plain,
    cases=(
        Case("lstm", lambda: _model(False, _LSTM), ops={"LSTM": 1}, absent=(*LOOPS, "TopK")),
        Case("gru", lambda: _model(True, _GRU, return_sequences=True), ops={"GRU": 1, "Concat": 1}, absent=LOOPS),
        Case("simple", lambda: _model(True, _SIMPLE, return_state=True), ops={"RNN": 1, "TopK": 1}, absent=LOOPS),
        Case("stacked", lambda: _model(False, _LSTM, _GRU, _SIMPLE), ops={"LSTM": 1, "GRU": 1, "RNN": 1}, absent=LOOPS),
        Case(
            "masked_stack",
            lambda: _model(True, _LSTM, _LSTM, return_sequences=True, return_state=True),
            ops={"LSTM": 2, "TopK": 1, "GatherND": 2},
            absent=LOOPS,
        ),
        Case(
            "masked_grus",
            lambda: _model(True, _GRU, _GRU, return_sequences=True, go_backwards=True),
            ops={"GRU": 2, "Concat": 2},
            absent=(*LOOPS, "TopK"),
        ),
        Case(
            "zero_output",
            lambda: _model(True, _GRU, _SIMPLE, return_sequences=True, zero_output_for_mask=True),
            ops={"GRU": 1, "RNN": 1},
            absent=LOOPS,
        ),
    ),
)
def lower(ctx: Context, layer: keras.layers.RNN, inputs: Inputs, masks: Masks) -> list[ir.Value]:
    """x: (batch, time, in) -> (batch, units) or (batch, time, units), then every cell's states when return_state."""
    return recurrent.lower_single(ctx, layer, stages(layer), inputs, masks)
