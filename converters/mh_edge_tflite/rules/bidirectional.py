"""Bidirectional: y = merge(forward(x), backward(x) with time turned round)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from mh_edge.rules import Case, rule
from mh_edge_tflite.context import Context, Inputs, Masks, Tensor

MERGE: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "concat": lambda forward, backward: tf.concat([forward, backward], axis=-1),
    "sum": lambda forward, backward: forward + backward,
    "ave": lambda forward, backward: (forward + backward) / 2,
    "mul": lambda forward, backward: forward * backward,
}


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
        Case("lstm", lambda: _model(True, keras.layers.LSTM(3)), ops={"WHILE": 2}),
        Case(
            "sequences",
            lambda: _model(True, keras.layers.GRU(3, return_sequences=True)),
            ops={"WHILE": 4, "REVERSE_V2": 1},
        ),
        Case("sum", lambda: _model(False, keras.layers.SimpleRNN(3), merge_mode="sum"), ops={"WHILE": 2}),
        Case("ave", lambda: _model(True, keras.layers.LSTM(3), merge_mode="ave"), ops={"WHILE": 2}),
        Case("mul", lambda: _model(True, keras.layers.LSTM(3), merge_mode="mul"), ops={"WHILE": 2}),
        Case("apart", lambda: _model(True, keras.layers.LSTM(3), merge_mode=None), ops={"WHILE": 2}),
        Case("started", _started, ops={"WHILE": 4}),
    ),
)
def lower(ctx: Context, layer: keras.layers.Bidirectional, inputs: Inputs, masks: Masks) -> Any:
    """x: (batch, time, in) -> the merged outputs, then the states of both directions when return_state."""
    x, *initial = inputs
    half = len(initial) // 2
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
