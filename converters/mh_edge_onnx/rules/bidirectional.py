"""Bidirectional: y = merge(forward(x), backward(x)), both in the input's time order."""

from __future__ import annotations

from typing import Any

import keras
import onnx_ir as ir

from mh_edge.rules import Case, rule
from mh_edge_onnx import recurrent
from mh_edge_onnx.context import Context, Inputs, Masks
from mh_edge_onnx.recurrent import LOOPS
from mh_edge_onnx.rules import rnn


def _plain(layer: keras.layers.Bidirectional) -> str | None:
    for part in (layer.forward_layer, layer.backward_layer):
        if not isinstance(part, keras.layers.RNN):
            return f"it wraps {type(part).__name__}, which has no recurrent operation in ONNX"
        if (reason := rnn.plain(part)) is not None:
            return reason
    return None


def _one_operation(layer: keras.layers.Bidirectional) -> bool:
    """Whether both directions fit one bidirectional operation: same kind, size and attributes, biases on both or on
    neither.
    """
    first, second = layer.forward_layer, layer.backward_layer
    kinds = [rnn.stages(part) for part in (first, second)]
    if first.go_backwards or len(kinds[0]) > 1 or len(kinds[1]) > 1:
        return False
    ((kind, (one,)),), ((other, (two,)),) = kinds
    same = kind == other and one.units == two.units and one.use_bias == two.use_bias
    return bool(same and kind.attributes(one) == kind.attributes(two))


def _model(kind: str, masked: bool, mode: str | None, **options: Any) -> keras.Model:
    x = keras.Input((None, 4))
    z = keras.layers.Masking()(x) if masked else x
    wrapped = getattr(keras.layers, kind)(3, bias_initializer="normal", **options)
    return keras.Model(x, keras.layers.Bidirectional(wrapped, merge_mode=mode)(z))


def _of_cells() -> keras.Model:
    x = keras.Input((None, 4))
    layer = keras.layers.Bidirectional(keras.layers.RNN(keras.layers.LSTMCell(3), return_sequences=True))
    return keras.Model(x, layer(keras.layers.Masking()(x)))


def _of_stacked_cells() -> keras.Model:
    x = keras.Input((None, 4))
    cells = [keras.layers.LSTMCell(3), keras.layers.GRUCell(2)]
    layer = keras.layers.Bidirectional(keras.layers.RNN(cells, return_state=True, return_sequences=True))
    return keras.Model(x, layer(keras.layers.Masking()(x)))


def _two_kinds() -> keras.Model:
    x = keras.Input((None, 4))
    backward = keras.layers.GRU(3, return_sequences=True, go_backwards=True)
    layer = keras.layers.Bidirectional(keras.layers.LSTM(3, return_sequences=True), backward_layer=backward)
    return keras.Model(x, layer(keras.layers.Masking()(x)))


@rule(
    "onnx",
    keras.layers.Bidirectional,
    applies=_plain,
    cases=(
        Case("concat", lambda: _model("LSTM", False, "concat", return_sequences=True), ops={"LSTM": 1}, absent=LOOPS),
        Case("masked", lambda: _model("LSTM", True, "concat", return_sequences=True), ops={"LSTM": 1}, absent=LOOPS),
        Case("masked_last", lambda: _model("LSTM", True, "concat"), ops={"LSTM": 1}, absent=LOOPS),
        Case("sum", lambda: _model("GRU", True, "sum", return_sequences=True), ops={"GRU": 1}, absent=LOOPS),
        Case("mul", lambda: _model("SimpleRNN", True, "mul"), ops={"RNN": 1}, absent=LOOPS),
        Case("ave", lambda: _model("GRU", False, "ave", reset_after=False), ops={"GRU": 1}, absent=LOOPS),
        Case("apart", lambda: _model("GRU", True, None, return_sequences=True), ops={"GRU": 1}, absent=LOOPS),
        Case("state", lambda: _model("LSTM", True, "concat", return_state=True), ops={"LSTM": 1}, absent=LOOPS),
        Case("cells", _of_cells, ops={"LSTM": 1, "TopK": 1}, absent=LOOPS),
        Case("stacked", _of_stacked_cells, ops={"LSTM": 2, "GRU": 2}, absent=LOOPS),
        Case("two_kinds", _two_kinds, ops={"LSTM": 1, "GRU": 1}, absent=LOOPS),
    ),
)
def lower(ctx: Context, layer: keras.layers.Bidirectional, inputs: Inputs, masks: Masks) -> list[ir.Value]:
    """x: (batch, time, in) -> merged outputs, then the forward and the backward states when return_state."""
    x, *initial = inputs
    half = len(initial) // 2
    parts = [layer.forward_layer, layer.backward_layer]
    starts = [initial[:half], initial[half:]]
    backward = [part.go_backwards for part in parts]
    single = [stage for part in parts for stage in rnn.stages(part)]
    together = _one_operation(layer) and not recurrent.apart(ctx, single, masks[0], layer.return_state)
    groups = [[0, 1]] if together else [[0], [1]]
    outputs: list[ir.Value] = []
    states: list[ir.Value] = []
    for group in groups:
        chosen = [parts[index] for index in group]
        stages = [
            (stage[0][0], [cell for _, (cell,) in stage])
            for stage in zip(*(rnn.stages(part) for part in chosen), strict=True)
        ]
        done = recurrent.run(
            ctx,
            stages,
            [backward[index] for index in group],
            x,
            masks[0],
            [starts[index] for index in group],
            [part.zero_output_for_mask for part in chosen],
            sequences=layer.return_sequences,
            finals=layer.return_state,
        )
        outputs.extend(done.sequences if layer.return_sequences else done.last)
        states.extend(state for direction in done.states for state in direction)
    if layer.return_sequences and layer.forward_layer.go_backwards:
        # Keras leaves the forward part in the order it was computed, and turns the other one round.
        outputs = [recurrent.flip(ctx, value) for value in outputs]
    merged = _merge(ctx, layer.merge_mode, outputs)
    return [*merged, *states]


def _merge(ctx: Context, mode: str | None, outputs: list[ir.Value]) -> list[ir.Value]:
    if mode is None:
        return outputs
    if mode == "concat":
        return [ctx.op("Concat", *outputs, axis=-1)]
    if mode == "mul":
        return [ctx.op("Mul", *outputs)]
    total = ctx.op("Add", *outputs)
    return [ctx.op("Div", total, ctx.constant(2.0, "float32")) if mode == "ave" else total]
