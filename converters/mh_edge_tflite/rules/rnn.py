"""RNN over Keras's own cells, one or several: y_t = cell_n(... cell_1(x_t)), each cell in a loop of its own.

A cell reads of the one before it only the same step, so the loops may follow each other; a masked step leaves each of
their states alone, and what it shows to the next cell is not used there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

from mh_edge.recurrence import cells, zeroed_elsewhere
from mh_edge.rules import Case, rule
from mh_edge_tflite.context import Context, Inputs, Masks
from mh_edge_tflite.recurrent import Cell, SideBySide, Stage, batch_first
from mh_edge_tflite.rules import gru, lstm, simple_rnn

KINDS: dict[type, Cell] = {
    keras.layers.LSTMCell: lstm.CELL,
    keras.layers.GRUCell: gru.CELL,
    keras.layers.SimpleRNNCell: simple_rnn.CELL,
}


def _known(layer: keras.layers.RNN) -> str | None:
    if (reason := zeroed_elsewhere(layer)) is not None:
        return reason
    strange = [type(cell).__name__ for cell in cells(layer) if type(cell) not in KINDS]
    return f"its cell {strange[0]} is not one of Keras's LSTM, GRU and SimpleRNN cells" if strange else None


def _model(masked: bool, *make: Callable[[int], Any], started: bool = False, **options: Any) -> keras.Model:
    x = keras.Input((None, 4), name="x")
    z = keras.layers.Masking()(x) if masked else x
    made: Sequence[Any] = [cell(units) for cell, units in zip(make, (3, 5), strict=False)]
    states = [keras.Input((size,), name=f"s_{size}") for size in (3, 5)] if started else []
    layer = keras.layers.RNN(made if len(made) > 1 else made[0], **options)
    return keras.Model([x, *states], layer(z, initial_state=states or None))


_LSTM, _GRU, _SIMPLE = keras.layers.LSTMCell, keras.layers.GRUCell, keras.layers.SimpleRNNCell


@rule(
    "tflite",
    keras.layers.RNN,
    applies=_known,
    cases=(
        Case("lstm", lambda: _model(True, _LSTM), ops={"WHILE": 1, "FULLY_CONNECTED": 2}),
        Case("stacked", lambda: _model(False, _LSTM, _GRU, return_sequences=True), ops={"WHILE": 4}),
        Case("states", lambda: _model(True, _LSTM, _SIMPLE, return_state=True), ops={"WHILE": 3}),
        Case(
            "backwards",
            lambda: _model(True, _GRU, _GRU, return_sequences=True, go_backwards=True, zero_output_for_mask=True),
            ops={"WHILE": 4},
        ),
        Case("started", lambda: _model(True, _GRU, _SIMPLE, started=True), ops={"WHILE": 3}),
    ),
)
def lower(ctx: Context, layer: keras.layers.RNN, inputs: Inputs, masks: Masks) -> Any:
    """x: (batch, time, in) -> (batch, units) or (batch, time, units), then every cell's states when return_state."""
    (x, *initial), mask = inputs, masks[0]
    if layer.go_backwards:
        x, mask = tf.reverse(x, [1]), None if mask is None else tf.reverse(tf.cast(mask, tf.bool), [1])
    states: list[Any] = []
    *before, last = cells(layer)
    for cell in (*before, last):
        sequences = layer.return_sequences or cell is not last
        stage = Stage(cell, sequences, layer.return_state, layer.zero_output_for_mask and cell is last)
        own = initial[len(states) :][: len(keras.tree.flatten(cell.state_size))]
        x, after = SideBySide(ctx, KINDS[type(cell)], (stage,), 0).run(x, mask, own)
        x = batch_first(x) if sequences else x
        states += after
    return (x, *states) if layer.return_state else x
