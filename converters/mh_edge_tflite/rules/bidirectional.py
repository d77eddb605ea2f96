"""Bidirectional: y = merge(forward(x), backward(x) with time turned round)."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from mh_edge.rules import Case, rule
from mh_edge_tflite.context import Context, Inputs, Masks, Tensor
from mh_edge_tflite.merging import MERGE, both_directions, like


def _model(masked: bool, layer: Any, **options: Any) -> keras.Model:
    x = keras.Input((None, 4), name="x")
    z = keras.layers.Masking()(x) if masked else x
    return keras.Model(x, keras.layers.Bidirectional(layer, **options)(z))


def _started() -> keras.Model:
    """Both directions with their initial states given."""
    x = keras.Input((None, 4), name="x")
    states = [keras.Input((3,), name=name) for name in ("h", "c", "h_back", "c_back")]
    layer = keras.layers.Bidirectional(keras.layers.LSTM(3, return_sequences=True, return_state=True))
    return keras.Model([x, *states], layer(keras.layers.Masking()(x), initial_state=states))


@rule(
    "tflite",
    keras.layers.Bidirectional,
    cases=(
        Case("lstm", lambda: _model(True, keras.layers.LSTM(3)), ops={"WHILE": 1, "BATCH_MATMUL": 1}),
        Case(
            "sequences",
            lambda: _model(True, keras.layers.GRU(3, return_sequences=True)),
            ops={"WHILE": 2, "BATCH_MATMUL": 4},
        ),
        Case("sum", lambda: _model(False, keras.layers.SimpleRNN(3), merge_mode="sum"), ops={"WHILE": 1}),
        Case("ave", lambda: _model(True, keras.layers.LSTM(3), merge_mode="ave"), ops={"WHILE": 1}),
        Case("mul", lambda: _model(True, keras.layers.LSTM(3), merge_mode="mul"), ops={"WHILE": 1}),
        Case("apart", lambda: _model(True, keras.layers.LSTM(3), merge_mode=None), ops={"WHILE": 1}),
        Case("started", _started, ops={"WHILE": 2}),
    ),
)
def lower(ctx: Context, layer: keras.layers.Bidirectional, inputs: Inputs, masks: Masks) -> Any:
    """x: (batch, time, in) -> the merged outputs, then the states of both directions when return_state."""
    x, *initial = inputs
    half = len(initial) // 2
    if ctx.merge and like(layer):
        ctx.chose("both directions in one loop", "one product a step for both")
        started = [tf.stack(pair) for pair in zip(initial[:half], initial[half:], strict=True)]
        outputs, after = both_directions(ctx, [layer], x, masks[0], started)
        outputs = [_ordered(layer, output) for output in (outputs if layer.merge_mode is None else [outputs])]
        states = [state for direction in zip(*map(tf.unstack, after), strict=True) for state in direction]
        states = states if layer.return_state else []
    else:
        parts = [
            ctx.call(direction, x, masks[0], initial_state=states or None)
            for direction, states in ((layer.forward_layer, initial[:half]), (layer.backward_layer, initial[half:]))
        ]
        states = [state for part in parts for state in part[1:]] if layer.return_state else []
        forward, backward = (part[0] if layer.return_state else part for part in parts)
        if layer.return_sequences:
            backward = tf.reverse(backward, [1])
        outputs = [forward, backward] if layer.merge_mode is None else [MERGE[layer.merge_mode](forward, backward)]
    return outputs[0] if len(outputs) + len(states) == 1 else (*outputs, *states)


def _ordered(layer: keras.layers.Bidirectional, output: Tensor) -> Tensor:
    """([time,] 1, batch, units) -> (batch, [time,] units)."""
    output = tf.squeeze(output, -3)
    return tf.transpose(output, (1, 0, 2)) if layer.return_sequences else output
