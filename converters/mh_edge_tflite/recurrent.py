"""What LSTM, GRU and SimpleRNN share: Keras's masking around steps of built-in operations, for one layer or for N like
layers side by side.

Keras under a mask (mask: (batch, time), True is valid): a masked step leaves the state alone and repeats the previous
output, which is 0 before the first valid step; with zero_output_for_mask it shows 0.

Two forms, both without memory between calls (TFLite's fused LSTM keeps its state in variable tensors, so the second
call on an interpreter would be wrong):
- a WHILE whose body holds one matrix product, or four steps of it: any length, small code;
- the steps written out, without control flow: for few steps of few units.

The projection of the input is one FULLY_CONNECTED over all steps and layers before either. N layers take each step
together: states (N, batch, units), recurrent weights (N, units, gates * units), one BATCH_MATMUL.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import keras
import numpy as np
import tensorflow as tf

from mh_edge_tflite.context import Context, Inputs, Masks, Tensor, dense, reshape, sizes

RecurrentLayer = Any
"""A keras.layers.LSTM, GRU or SimpleRNN, or a Stage of an RNN; its `cell` is Keras's and holds the weights."""
Array = Any
"""A tf.Tensor, or an np.ndarray that becomes a constant of the graph."""

CACHE = 1 << 20
"""Bytes of recurrent weights that one turn of a loop may read. Up to here N layers in one loop take .3 to .86 of the
time of N loops; at twice as much 2, because a loop of its own finds its weights near at every turn, and N do not.
"""

COPIES = 1 << 19
"""Bytes of the copies of the recurrent weights where a product is written several times, each of which packs its own.
Up to here that is .5 to .9 of the time of one product in a loop, from twice as much on it is longer.
"""

WRITTEN_OUT_STEPS = 16
"""Up to here all steps are written out. Beyond, a loop of four written steps is as fast and its code does not grow."""

AT_ONCE = 4
"""Steps in one turn of a loop that keeps every output: .7 to .9 of the time, the list being touched less often."""

BLOCK = 32
"""Steps of the inner of two loops where every output is wanted. A WHILE copies what it carries at each step, so one
loop that carries all outputs takes a time quadratic in the length: at 3200 steps of 128 units 36 times as long.
"""


@dataclass(frozen=True)
class Weights:
    """kernel: (in, gates * units) of each layer beside the other; bias likewise, or None. recurrent: (units,
    gates * units) of one layer, (N, units, gates * units) of several; recurrent_bias: added to its product, or None.
    """

    kernel: Array
    bias: Array | None
    recurrent: Array
    recurrent_bias: Array | None


class Cell(Protocol):
    """How one kind of layer computes."""

    def biases(self, of: Any, bias: Array) -> tuple[Array, Array | None]:
        """What of the bias of a Keras cell is added to x W, and what to h R (or None)."""

    def step(self, of: Any, weights: Weights, z: Tensor, states: Sequence[Tensor]) -> Sequence[Tensor]:
        """x W + b of one step, (..., batch, gates * units), and the states -> the new states, the output first."""


@dataclass(frozen=True)
class Stage:
    """One cell of a keras.layers.RNN, with what is asked of it."""

    cell: Any
    return_sequences: bool
    return_state: bool
    zero_output_for_mask: bool


def lower_recurrent(ctx: Context, cell: Cell, layer: RecurrentLayer, inputs: Inputs, masks: Masks) -> Any:
    """The rule of a recurrent layer: inputs (x, initial states ...) -> output, or (output, final states ...)."""
    x, *initial = inputs
    output, states = SideBySide(ctx, cell, (layer,), int(layer.go_backwards)).run(x, masks[0], initial)
    output = batch_first(output) if layer.return_sequences else output
    return (output, *states) if layer.return_state else output


def batch_first(x: Tensor) -> Tensor:
    """(time, batch, units) -> (batch, time, units)."""
    return reshape(x, (1, *sizes(x)[::2])) if x.shape[1] == 1 else tf.transpose(x, (1, 0, 2))


def numbers(variable: keras.Variable) -> np.ndarray:
    """A weight's numbers, also while it is a graph input."""
    with tf.init_scope(), keras.StatelessScope():
        return np.asarray(keras.ops.convert_to_numpy(variable))


def state_sizes(layer: RecurrentLayer) -> list[int]:
    """Of each state of one layer."""
    return [int(size) for size in keras.tree.flatten(layer.cell.state_size)]


def recurrent_bytes(layer: RecurrentLayer) -> int:
    """What the recurrent weights of a layer take."""
    return 4 * int(np.prod(layer.cell.recurrent_kernel.shape))


Fit = Callable[[int, np.ndarray, np.ndarray | None], tuple[np.ndarray, np.ndarray | None]]
"""(number of the layer, its kernel, its bias) -> those for the input that all layers share."""


@dataclass(frozen=True)
class SideBySide:
    """Layers that agree in everything but their weights, the last `turned` of which read time backwards.

    fit: what to do to the kernels of N layers, if anything.
    """

    ctx: Context
    cell: Cell
    layers: tuple[RecurrentLayer, ...]
    turned: int
    fit: Fit | None = None

    def run(self, x: Tensor, mask: Tensor | None, initial: Sequence[Tensor] = ()) -> tuple[Tensor, Sequence[Tensor]]:
        """x: (batch, time, in) -> (output, final states); of one layer (time, batch, units) in the order of computing
        or (batch, units), and states (batch, units); of N layers (time, N, batch, units) or (N, batch, units), and
        states (N, batch, units). The states are right if return_state.
        """
        first, count = self.layers[0], len(self.layers)
        weights = self._weights()
        z = tf.concat([self._projected(x, weights, part, back) for part, back in self._parts()], axis=-3 + (count == 1))
        valid = None if mask is None else tf.cast(mask, tf.bool)
        if valid is not None:
            valid = tf.transpose(valid)
            turned = tf.reverse(valid, [0]) if self.turned else valid
            heads = [valid] * (count - self.turned) + [turned] * self.turned
            valid = tf.expand_dims(heads[0] if count == 1 else tf.stack(heads, axis=1), -1)
        rows = sizes(z)[1:-1]
        states = initial or [tf.zeros((*rows, size), x.dtype) for size in state_sizes(first)]
        size = count * recurrent_bytes(first)
        steps = z.shape[0]
        if valid is None and steps is not None and steps <= WRITTEN_OUT_STEPS and steps * size <= COPIES:
            self.ctx.chose(f"{steps} steps written out", f"{steps * size} bytes of packed recurrent weights")
            return self._written_out(weights, z, states)
        settled = valid is not None or not first.return_state
        at_once = AT_ONCE if first.return_sequences and settled and AT_ONCE * size <= COPIES else 1
        steps = sizes(z)[0]
        if at_once > 1 and not (isinstance(steps, int) and steps % at_once == 0):
            z, valid = _longer(z, at_once - 1), valid if valid is None else _longer(valid, at_once - 1)
        # What a step shows is carried beside the states only where it may differ from the first of them.
        apart = valid is not None and (bool(initial) or first.zero_output_for_mask)
        loop = _Loop(self.cell, first, weights, z, valid, steps, tf.zeros((*rows, first.cell.units)), at_once, apart)
        return loop.all(states)

    def _weights(self) -> Weights:
        if len(self.layers) == 1:
            cell = self.layers[0].cell
            bias, recurrent = (None, None) if cell.bias is None else self.cell.biases(cell, cell.bias)
            kernels = [tf.convert_to_tensor(kernel) for kernel in (cell.kernel, cell.recurrent_kernel)]
            return Weights(kernels[0], bias, kernels[1], recurrent)
        inputs: list[tuple[Any, Any]] = []
        products: list[Any] = []
        for number, layer in enumerate(self.layers):
            bias = None if layer.cell.bias is None else numbers(layer.cell.bias)
            of_input, of_product = (None, None) if bias is None else self.cell.biases(layer.cell, bias)
            products.append(of_product)
            kernel = numbers(layer.cell.kernel)
            inputs.append((kernel, of_input) if self.fit is None else self.fit(number, kernel, of_input))
        wide, biases = zip(*inputs, strict=True)
        return Weights(
            np.concatenate(wide, axis=-1),
            None if biases[0] is None else np.concatenate(biases),
            np.stack([numbers(layer.cell.recurrent_kernel) for layer in self.layers]),
            None if products[0] is None else np.stack(products)[:, None],
        )

    def _parts(self) -> list[tuple[slice, bool]]:
        """The layers that read forwards and those that read backwards, where there are any."""
        ahead = len(self.layers) - self.turned
        parts = [(slice(0, ahead), False), (slice(ahead, len(self.layers)), True)]
        return [(part, back) for part, back in parts if part.start < part.stop]

    def _projected(self, x: Tensor, weights: Weights, part: slice, back: bool) -> Tensor:
        """x W + b in the order of computing, (time, batch, gates * units) or (time, N, batch, gates * units)."""
        width = weights.recurrent.shape[-1]
        columns = slice(part.start * width, part.stop * width)
        kernel, bias = weights.kernel, weights.bias
        if part.stop - part.start < len(self.layers):
            kernel, bias = kernel[:, columns], None if bias is None else bias[columns]
        z = dense(tf.reverse(x, [1]) if back else x, kernel, bias)
        batch, steps = sizes(z)[:2]
        if len(self.layers) == 1:
            return reshape(z, (steps, 1, width)) if x.shape[0] == 1 else tf.transpose(z, (1, 0, 2))
        count = part.stop - part.start
        if x.shape[0] == 1:
            return reshape(z, (steps, count, 1, width))
        return tf.transpose(reshape(z, (batch, steps, count, width)), (1, 2, 0, 3))

    def _written_out(self, weights: Weights, z: Tensor, states: Sequence[Tensor]) -> tuple[Tensor, Sequence[Tensor]]:
        outputs = []
        for part in tf.unstack(z, axis=0):
            states = self.cell.step(self.layers[0].cell, weights, part, states)
            outputs.append(states[0])
        return tf.stack(outputs) if self.layers[0].return_sequences else states[0], states


def _longer(x: Tensor, steps: int) -> Tensor:
    """x and some steps of zeros."""
    return tf.concat([x, tf.zeros((steps, *sizes(x)[1:]), x.dtype)], axis=0)


@dataclass(frozen=True)
class _Loop:
    """The WHILE. Carried values: the states, then what the last step showed if `apart`, then a list.

    z, valid: as projected, time first. zeros: an output of zeros. at_once: steps of one turn; beyond 1 the last turn
    may step past the end, with masked steps where there is a mask.
    """

    cell: Cell
    layer: RecurrentLayer
    weights: Weights
    z: Tensor
    valid: Tensor | None
    steps: Any
    zeros: Tensor
    at_once: int
    apart: bool

    def all(self, states: Sequence[Tensor]) -> tuple[Tensor, Sequence[Tensor]]:
        """-> (output, states), as SideBySide.run does."""
        values = [*states, *([self.zeros] if self.apart else [])]
        if self.layer.return_sequences:
            output, values = self._listed(values)
            return output, values[: len(states)]
        values = self._run(0, self.steps, values)
        return values[-1 if self.apart else 0], values[: len(states)]

    def _listed(self, values: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """All steps, every output kept."""
        if isinstance(self.steps, int) and self.steps <= BLOCK:
            *values, outputs = self._run(0, self.steps, [*values, self._list()])
            return self._joined(outputs)[: self.steps], values

        def block(number: Tensor, *values: Any) -> tuple[Any, ...]:
            first = number * BLOCK
            *after, outputs = self._run(first, tf.minimum(BLOCK, self.steps - first), [*values[:-1], self._list()])
            return (number + 1, *after, values[-1].write(number, self._joined(outputs)))

        count = (self.steps + BLOCK - 1) // BLOCK
        blocks = tf.TensorArray(self.z.dtype, count, element_shape=(BLOCK, *self.zeros.shape))
        _, *values, blocks = tf.while_loop(lambda number, *_: number < count, block, (tf.constant(0), *values, blocks))
        return self._joined(blocks)[: self.steps], values

    def _list(self) -> Any:
        return tf.TensorArray(self.z.dtype, BLOCK // self.at_once, element_shape=(self.at_once, *self.zeros.shape))

    def _joined(self, outputs: Any) -> Tensor:
        return tf.reshape(outputs.stack(), (-1, *sizes(self.zeros)))

    def _run(self, first: Any, count: Any, values: Sequence[Any]) -> list[Any]:
        """`count` steps from step `first` on -> the carried values after them."""
        turns = count if self.at_once == 1 else (count + self.at_once - 1) // self.at_once
        states = len(state_sizes(self.layer))

        def body(number: Tensor, *values: Any) -> tuple[Any, ...]:
            after: Sequence[Tensor] = values[:states]
            shown, outputs = values[states] if self.apart else None, []
            at = first + number * self.at_once
            valid = [None] * self.at_once if self.valid is None else self._read(self.valid, at)
            for z, kept in zip(self._read(self.z, at), valid, strict=True):
                after, shown = self._step(z, kept, after, shown)
                outputs.append(shown)
            kept_list = [values[-1].write(number, tf.stack(outputs))] if len(values) > states + self.apart else []
            return (number + 1, *after, *([shown] if self.apart else []), *kept_list)

        return list(tf.while_loop(lambda number, *_: number < turns, body, (tf.constant(0), *values))[1:])

    def _read(self, x: Tensor, at: Tensor) -> list[Tensor]:
        """The rows of one turn."""
        if self.at_once == 1:
            return [tf.gather(x, at)]
        rest = x.shape.rank - 1
        return list(tf.unstack(tf.slice(x, [at] + [0] * rest, [self.at_once] + [-1] * rest), self.at_once))

    def _step(
        self, z: Tensor, valid: Tensor | None, before: Sequence[Tensor], shown: Tensor | None
    ) -> tuple[Sequence[Tensor], Tensor]:
        """The states after one step, and its output."""
        after = self.cell.step(self.layer.cell, self.weights, z, before)
        if valid is None:
            return after, after[0]
        kept = [tf.where(valid, new, old) for new, old in zip(after, before, strict=True)]
        if not self.apart:
            return kept, kept[0]
        return kept, tf.where(valid, after[0], self.zeros if self.layer.zero_output_for_mask else shown)
