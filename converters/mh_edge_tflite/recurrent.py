"""What LSTM, GRU and SimpleRNN share: Keras's masking around a loop of built-in operations.

Keras under a mask (mask: (batch, time), True is valid): a masked step leaves the state alone and repeats the previous
output, which is 0 before the first valid step; with zero_output_for_mask it shows 0.

Two forms, both without memory between calls (TFLite's fused LSTM keeps its state in variable tensors, so the second
call on an interpreter would be wrong):
- a WHILE whose body holds one matrix product: any length, small code, one packed copy of the recurrent weights;
- the steps written out, without control flow: for few steps and units, where it takes half the time.

The projection of the input is one FULLY_CONNECTED over all steps before either.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import tensorflow as tf

from mh_edge_tflite.context import Inputs, Masks, Tensor, reshape, sizes

RecurrentLayer = Any
"""A keras.layers.LSTM, GRU or SimpleRNN."""

WRITTEN_OUT_STEPS = 16
WRITTEN_OUT_UNITS = 32
"""Up to these sizes the steps are written out. At 16 steps of 16 units that takes .6 of the loop's time and 2.4 times
its bytes; at 64 units the loop is faster, because every written-out product keeps its own packed copy of the weights.
"""

BLOCK = 32
"""Steps of the inner of two loops where every output is wanted. A WHILE copies what it carries at each step, so one
loop that carries all outputs takes a time quadratic in the length: at 3200 steps of 128 units 36 times as long.
"""


class Cell(Protocol):
    """How one kind of layer computes."""

    def project(self, layer: RecurrentLayer, x: Tensor) -> Tensor:
        """x: (batch, time, in) -> the part that does not depend on the state, (batch, time, gates * units)."""

    def step(self, layer: RecurrentLayer, z: Tensor, states: Sequence[Tensor]) -> Sequence[Tensor]:
        """One step's part of it, (batch, gates * units), and the states -> the new states, the output first."""


def lower_recurrent(cell: Cell, layer: RecurrentLayer, inputs: Inputs, masks: Masks) -> Any:
    """The rule of a recurrent layer: inputs (x, initial states ...) -> output, or (output, final states ...)."""
    x, *initial = inputs
    z = cell.project(layer, x)
    states = initial or [tf.zeros((sizes(x)[0], size), x.dtype) for size in layer.state_size]
    if _is_short(layer, x, masks[0]):
        output, final = _written_out(cell, layer, z, states)
    else:
        output, final = _loop(cell, layer, z, masks[0], states, bool(initial))
    return (output, *final) if layer.return_state else output


def _is_short(layer: RecurrentLayer, x: Tensor, mask: Tensor | None) -> bool:
    steps = x.shape[1]
    return mask is None and steps is not None and steps <= WRITTEN_OUT_STEPS and layer.units <= WRITTEN_OUT_UNITS


def _written_out(
    cell: Cell, layer: RecurrentLayer, z: Tensor, states: Sequence[Tensor]
) -> tuple[Tensor, Sequence[Tensor]]:
    outputs = []
    for part in tf.unstack(z, axis=1)[:: -1 if layer.go_backwards else 1]:
        states = cell.step(layer, part, states)
        outputs.append(states[0])
    if not layer.return_sequences:
        return states[0], states
    return reshape(tf.concat(outputs, axis=-1), (*sizes(z)[:2], layer.units)), states


def _loop(
    cell: Cell, layer: RecurrentLayer, z: Tensor, mask: Tensor | None, states: Sequence[Tensor], started: bool
) -> tuple[Tensor, Sequence[Tensor]]:
    batch, steps = sizes(z)[:2]
    zeros = tf.zeros((batch, layer.units), z.dtype)
    # What a step shows is carried beside the states only where it may differ from the first of them.
    apart = mask is not None and (started or layer.zero_output_for_mask)
    loop = _Loop(cell, layer, z, None if mask is None else tf.cast(mask, tf.bool), steps, zeros, apart)
    values = [*states, *([zeros] if apart else [])]
    if not layer.return_sequences:
        values = loop.run(0, steps, values)
        return values[-1 if apart else 0], values[: len(states)]
    sequence, values = loop.listed(values)
    if batch == 1:
        return reshape(sequence, (1, steps, layer.units)), values[: len(states)]
    return tf.transpose(sequence, (1, 0, 2)), values[: len(states)]


@dataclass(frozen=True)
class _Loop:
    """The WHILE of one layer. Carried values: the states, then what the last step showed if `apart`, then a list."""

    cell: Cell
    layer: RecurrentLayer
    z: Tensor
    valid: Tensor | None
    steps: Any
    zeros: Tensor
    apart: bool

    def listed(self, values: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """All steps, every output kept -> the outputs as computed, (time, batch, units), and the carried values."""
        if isinstance(self.steps, int) and self.steps <= BLOCK:
            *values, outputs = self.run(0, self.steps, [*values, self._list()])
            return outputs.stack()[: self.steps], values

        def block(number: Tensor, *values: Any) -> tuple[Any, ...]:
            first = number * BLOCK
            *after, outputs = self.run(first, tf.minimum(BLOCK, self.steps - first), [*values[:-1], self._list()])
            return (number + 1, *after, values[-1].write(number, outputs.stack()))

        count = (self.steps + BLOCK - 1) // BLOCK
        blocks = tf.TensorArray(self.z.dtype, count, element_shape=(BLOCK, *self.zeros.shape))
        _, *values, blocks = tf.while_loop(lambda number, *_: number < count, block, (tf.constant(0), *values, blocks))
        return tf.reshape(blocks.stack(), (-1, *sizes(self.zeros)))[: self.steps], values

    def run(self, first: Any, count: Any, values: Sequence[Any]) -> list[Any]:
        """`count` steps from step `first` on -> the carried values after them."""
        states = len(self.layer.state_size)

        def body(number: Tensor, *values: Any) -> tuple[Any, ...]:
            after, shown = self._step(first + number, values[:states], values[states] if self.apart else None)
            outputs = [values[-1].write(number, shown)] if len(values) > states + self.apart else []
            return (number + 1, *after, *([shown] if self.apart else []), *outputs)

        return list(tf.while_loop(lambda number, *_: number < count, body, (tf.constant(0), *values))[1:])

    def _step(self, number: Tensor, before: Sequence[Tensor], shown: Tensor | None) -> tuple[Sequence[Tensor], Tensor]:
        """The states after one step, and its output."""
        index = self.steps - 1 - number if self.layer.go_backwards else number
        z = tf.ensure_shape(tf.gather(self.z, index, axis=1), (self.z.shape[0], self.z.shape[2]))
        after = self.cell.step(self.layer, z, before)
        if self.valid is None:
            return after, after[0]
        valid = tf.reshape(tf.gather(self.valid, index, axis=1), (-1, 1))
        kept = [tf.where(valid, new, old) for new, old in zip(after, before, strict=True)]
        if shown is None:
            return kept, kept[0]
        return kept, tf.where(valid, after[0], self.zeros if self.layer.zero_output_for_mask else shown)

    def _list(self) -> Any:
        return tf.TensorArray(self.z.dtype, BLOCK, element_shape=self.zeros.shape)
