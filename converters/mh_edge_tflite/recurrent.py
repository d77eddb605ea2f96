"""What LSTM, GRU and SimpleRNN share: Keras's masking around a loop of built-in operations.

Keras under a mask (mask: (batch, time), True is valid): a masked step leaves the state alone and repeats the previous
output, which is 0 before the first valid step; with zero_output_for_mask it shows 0. The last output is that of the
last step computed.

Two forms, both without memory between calls (TFLite's fused LSTM keeps its state in variable tensors, so the second
call on an interpreter would be wrong):
- one WHILE whose body holds one matrix product: any length, small code, one packed copy of the recurrent weights;
- the steps written out, without control flow: for few steps and units, where it takes half the time.

The projection of the input is one FULLY_CONNECTED over all steps before either.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import tensorflow as tf

from mh_edge_tflite.context import Context, Inputs, Masks, Tensor

RecurrentLayer = Any
"""A keras.layers.LSTM, GRU or SimpleRNN."""

WRITTEN_OUT_STEPS = 16
WRITTEN_OUT_UNITS = 32
"""Up to these sizes the steps are written out. At 16 steps of 16 units that takes .6 of the loop's time and 2.4 times
its bytes; at 64 units the loop is faster, because every written-out product keeps its own packed copy of the
weights."""

Step = Callable[[Tensor, Sequence[Tensor]], Sequence[Tensor]]
"""(projected input of one step: (batch, gates * units), states) -> the new states, the output first."""


class Cell(Protocol):
    """How one kind of layer computes."""

    def project(self, layer: RecurrentLayer, x: Tensor) -> Tensor:
        """x: (batch, time, in) -> the part that does not depend on the state, (batch, time, gates * units)."""

    def step(self, layer: RecurrentLayer, z: Tensor, states: Sequence[Tensor]) -> Sequence[Tensor]:
        """One step's part of it, (batch, gates * units), and the states -> the new states, the output first."""


def lower_recurrent(ctx: Context, cell: Cell, layer: RecurrentLayer, inputs: Inputs, masks: Masks) -> Any:
    """The rule of a recurrent layer: inputs (x, initial states ...) -> output, or (output, final states ...)."""
    del ctx
    x, *initial = inputs
    z = cell.project(layer, x)
    states = initial or [tf.zeros((x.shape[0], size), x.dtype) for size in layer.state_size]
    run = _written_out if _is_short(layer, x, masks[0]) else _loop
    output, final = run(layer, cell, z, masks[0], states, bool(initial))
    return (output, *final) if layer.return_state else output


def _is_short(layer: RecurrentLayer, x: Tensor, mask: Tensor | None) -> bool:
    steps = x.shape[1]
    return mask is None and steps is not None and steps <= WRITTEN_OUT_STEPS and layer.units <= WRITTEN_OUT_UNITS


def _written_out(
    layer: RecurrentLayer, cell: Cell, z: Tensor, mask: None, states: Sequence[Tensor], started: bool
) -> tuple[Tensor, Sequence[Tensor]]:
    del mask, started
    batch, steps = z.shape[:2]
    outputs = []
    for part in tf.unstack(z, axis=1)[:: -1 if layer.go_backwards else 1]:
        states = cell.step(layer, part, states)
        outputs.append(states[0])
    if not layer.return_sequences:
        return states[0], states
    return tf.reshape(tf.concat(outputs, axis=-1), (batch, steps, layer.units)), states


def _loop(
    layer: RecurrentLayer, cell: Cell, z: Tensor, mask: Tensor | None, states: Sequence[Tensor], started: bool
) -> tuple[Tensor, Sequence[Tensor]]:
    batch, steps = z.shape[0], tf.shape(z)[1]
    valid = None if mask is None else tf.cast(mask, tf.bool)
    zeros = tf.zeros((batch, layer.units), z.dtype)
    # From zero states, what a masked step repeats is the state itself; only given initial states need the output
    # carried too.
    carried = [zeros] if valid is not None and started and not layer.zero_output_for_mask else []
    written = [tf.TensorArray(z.dtype, steps, element_shape=zeros.shape)] if layer.return_sequences else []
    last = [zeros] if valid is not None and layer.zero_output_for_mask else carried
    count = len(states)

    def body(number: Tensor, *values: Any) -> tuple[Any, ...]:
        before, rest = values[:count], values[count:]
        index = steps - 1 - number if layer.go_backwards else number
        after = cell.step(layer, tf.ensure_shape(tf.gather(z, index, axis=1), (batch, z.shape[2])), before)
        shown = after[0]
        shows = []
        if valid is not None:
            now = tf.reshape(tf.gather(valid, index, axis=1), (batch, 1))
            after = [tf.where(now, new, old) for new, old in zip(after, before, strict=True)]
            shown = tf.where(now, shown, rest[0] if carried else zeros) if last else after[0]
            shows = [shown] if last else []
        arrays = [rest[-1].write(number, shown)] if written else []
        return (number + 1, *after, *shows, *arrays)

    _, *values = tf.while_loop(lambda number, *_: number < steps, body, (tf.constant(0), *states, *last, *written))
    final = values[:count]
    if not layer.return_sequences:
        return (values[count] if last else final[0]), final
    stacked = values[-1].stack()
    if batch == 1:
        return tf.reshape(stacked, (1, -1 if z.shape[1] is None else z.shape[1], layer.units)), final
    return tf.transpose(stacked, (1, 0, 2)), final
