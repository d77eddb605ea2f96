"""What LSTM, GRU, SimpleRNN and Bidirectional share: Keras's masking around ONNX's recurrent operations.

Keras under a mask (mask: (batch, time), True is valid): a masked step leaves the state alone and repeats the previous
output; before the first valid step the output is 0. ONNX's operations know only `sequence_lens`, a number of leading
valid steps. So the valid steps are moved to the front (a stable permutation of time), the operation runs with
sequence_lens = number of valid steps, and the outputs are gathered back: with c_t = number of valid steps up to and
including t, step t of a forward pass shows compact output c_t - 1, step t of a backward pass shows compact output c_t
- m_t (the next valid step). No Loop, exact for any mask.

Layout: x: (batch, time, in); ONNX wants (time, batch, in) and gives Y: (time, directions, batch, units).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import onnx_ir as ir

from mh_edge_onnx import activations
from mh_edge_onnx.context import Context

LOOPS = ("Loop", "Scan", "If")
"""What no recurrent layer with a rule may become."""

RecurrentLayer = Any
"""A keras.layers.LSTM, GRU or SimpleRNN."""


class Cell(Protocol):
    """How one kind of layer is written as one kind of ONNX operation."""

    op_type: str
    states: int

    def functions(self, layer: RecurrentLayer) -> list[Callable[..., Any]]:
        """The activations of one direction, in ONNX's order."""

    def weights(self, ctx: Context, layers: Sequence[RecurrentLayer]) -> tuple[ir.Value, ir.Value, ir.Value | None]:
        """ONNX's W, R and B, one direction per layer."""

    def attributes(self, layer: RecurrentLayer) -> dict[str, Any]:
        """Attributes of the operation beyond hidden_size, direction and activations."""


@dataclass(frozen=True)
class Run:
    """The outputs of one recurrent operation over one or two directions, in the input's time order.

    sequences: one (batch, time, units) per direction, or () when they were not asked for. last: one (batch, units) per
    direction, the layer's output at its last step. states: per direction, the final states, each (batch, units).
    """

    sequences: tuple[ir.Value, ...]
    last: tuple[ir.Value, ...]
    states: tuple[tuple[ir.Value, ...], ...]


def plain(cell: Cell, layer: RecurrentLayer) -> str | None:
    """None when ONNX's operation can express the layer, else why not."""
    functions = cell.functions(layer)
    if activations.recurrent(functions) is None:
        names = ", ".join(function.__name__ for function in functions)
        return f"ONNX's {cell.op_type} has no operation for one of its activations ({names})"
    return None


def gates(order: Sequence[int]) -> Callable[[np.ndarray], np.ndarray]:
    """Keras's (in, gates * units) -> ONNX's (gates * units, in) with the gates in ONNX's order; biases likewise."""

    def change(array: np.ndarray) -> np.ndarray:
        blocks = np.split(array, len(order), axis=-1)
        return np.concatenate([blocks[index] for index in order], axis=-1).T

    return change


def run(
    ctx: Context,
    cell: Cell,
    layers: Sequence[RecurrentLayer],
    backward: Sequence[bool],
    x: ir.Value,
    mask: ir.Value | None,
    initial: Sequence[Sequence[ir.Value]],
    *,
    sequences: bool,
) -> Run:
    """One ONNX operation for one layer, or for a forward and a backward one of the same kind and size.

    backward: for each layer, whether it reads time from the end. initial: per layer its initial states, or empty lists.
    """
    order = _Order(ctx, mask) if mask is not None else None
    compact = x if order is None else order.compact(x)
    w, r, b = cell.weights(ctx, layers)
    direction = "bidirectional" if len(layers) == 2 else "reverse" if backward[0] else "forward"
    functions = [function for layer in layers for function in cell.functions(layer)]
    given = [_stack(ctx, [states[index] for states in initial]) if initial[0] else None for index in range(cell.states)]
    y, *finals = ctx.ops(
        cell.op_type,
        ctx.op("Transpose", compact, perm=[1, 0, 2]),
        w,
        r,
        b,
        None if order is None else order.lengths,
        *given,
        outputs=1 + cell.states,
        hidden_size=layers[0].units,
        direction=direction,
        **(activations.recurrent(functions) or {}),
        **cell.attributes(layers[0]),
    )
    states = [_split(ctx, final, len(layers)) for final in finals]
    if order is not None and initial[0]:
        states = [
            [order.keep_unless_empty(state, start[index]) for state, start in zip(parts, initial, strict=True)]
            for index, parts in enumerate(states)
        ]
    last = tuple(states[0])
    if order is not None:
        last = tuple(
            order.last(value, backwards, layer.zero_output_for_mask, bool(initial[0]))
            for value, backwards, layer in zip(last, backward, layers, strict=True)
        )
    parts: list[ir.Value] = []
    if sequences:
        # (time, directions, batch, units) -> (batch, time, units) per direction
        parts = [ctx.op("Transpose", part, perm=[1, 0, 2]) for part in _split(ctx, y, len(layers), axis=1)]
        if order is not None:
            parts = [
                order.restore(part, backwards, layer.zero_output_for_mask)
                for part, backwards, layer in zip(parts, backward, layers, strict=True)
            ]
    return Run(tuple(parts), last, tuple(zip(*states, strict=True)))


def in_keras_order(ctx: Context, layer: RecurrentLayer, sequence: ir.Value) -> ir.Value:
    """Keras returns the outputs of a go_backwards layer in the order in which it computed them."""
    return flip(ctx, sequence) if layer.go_backwards else sequence


def flip(ctx: Context, sequence: ir.Value) -> ir.Value:
    """(batch, time, units) with time reversed."""
    ends = ctx.constant([np.iinfo(np.int64).min])
    return ctx.op("Slice", sequence, ctx.constant([-1]), ends, ctx.constant([1]), ctx.constant([-1]))


def lower_single(
    ctx: Context, cell: Cell, layer: RecurrentLayer, inputs: Sequence[ir.Value], masks: Sequence[ir.Value | None]
) -> list[ir.Value]:
    """The rule of a recurrent layer on its own: inputs (x, initial states ...) -> [output, final states ...]."""
    x, *initial = inputs
    done = run(ctx, cell, [layer], [layer.go_backwards], x, masks[0], [initial], sequences=layer.return_sequences)
    output = in_keras_order(ctx, layer, done.sequences[0]) if layer.return_sequences else done.last[0]
    return [output, *done.states[0]] if layer.return_state else [output]


def _stack(ctx: Context, values: Sequence[ir.Value]) -> ir.Value:
    """(batch, units) per direction -> (directions, batch, units)."""
    lifted = [ctx.op("Unsqueeze", value, ctx.constant([0])) for value in values]
    return lifted[0] if len(lifted) == 1 else ctx.op("Concat", *lifted, axis=0)


def _split(ctx: Context, value: ir.Value, count: int, axis: int = 0) -> list[ir.Value]:
    """The directions apart, their axis gone."""
    if count == 1:
        return [ctx.op("Squeeze", value, ctx.constant([axis]))]
    return [ctx.op("Gather", value, ctx.constant(index), axis=axis) for index in range(count)]


class _Order:
    """The permutation of time that brings the valid steps of a mask to the front."""

    def __init__(self, ctx: Context, mask: ir.Value) -> None:
        self._ctx = ctx
        op, constant = ctx.op, ctx.constant
        self._mask = mask
        valid = op("Cast", mask, to=ir.DataType.INT64)
        self._count = op("CumSum", valid, constant(1))
        self._valid = valid
        total = op("ReduceSum", valid, constant([1]), keepdims=1)
        self._total = total
        self.lengths = op("Cast", op("Squeeze", total, constant([1])), to=ir.DataType.INT32)
        # Steps 0, 1, 2, ... in the mask's own shape, without asking for its sizes.
        steps = op(
            "Sub", op("CumSum", op("Cast", op("Equal", mask, mask), to=ir.DataType.INT64), constant(1)), constant(1)
        )
        # A valid step goes to its rank among the valid ones; a masked one behind them all, so that this is a
        # permutation.
        rank = op("Sub", self._count, constant(1))
        behind = op("Sub", op("Add", total, steps), self._count)
        target = op("Where", mask, rank, behind)
        self._steps = op("ScatterElements", steps, target, steps, axis=1)

    def compact(self, x: ir.Value) -> ir.Value:
        """(batch, time, dim) with the valid steps first."""
        return self._gather(x, self._steps)

    def restore(self, y: ir.Value, backwards: bool, zero_masked: bool) -> ir.Value:
        """Compact outputs (batch, time, units) -> what Keras shows at each original step."""
        op, constant = self._ctx.op, self._ctx.constant
        if zero_masked:
            shown, index = self._mask, op("Sub", self._count, constant(1))
        elif backwards:
            index = op("Sub", self._count, self._valid)
            shown = op("Less", index, self._total)
        else:
            index = op("Sub", self._count, constant(1))
            shown = op("Greater", self._count, constant(0))
        safe = op("Where", shown, index, constant(0))
        gathered = self._gather(y, safe)
        return op("Where", op("Unsqueeze", shown, constant([2])), gathered, constant(0.0, "float32"))

    def keep_unless_empty(self, state: ir.Value, initial: ir.Value) -> ir.Value:
        """The final state; of a row without a valid step, the initial one."""
        return self._ctx.op("Where", self._any(), state, initial)

    def last(self, output: ir.Value, backwards: bool, zero_masked: bool, started: bool) -> ir.Value:
        """The output at the last step computed: 0 in a row without a valid step, or where masked steps show 0 and it
        is masked.
        """
        if zero_masked:
            shown = self._ctx.op("Gather", self._mask, self._ctx.constant([0 if backwards else -1]), axis=1)
        elif started:
            shown = self._any()
        else:
            return output
        return self._ctx.op("Where", shown, output, self._ctx.constant(0.0, "float32"))

    def _any(self) -> ir.Value:
        return self._ctx.op("Greater", self._total, self._ctx.constant(0))

    def _gather(self, data: ir.Value, index: ir.Value) -> ir.Value:
        return self._ctx.op("GatherND", data, self._ctx.op("Unsqueeze", index, self._ctx.constant([2])), batch_dims=1)


def weights(
    ctx: Context, layers: Sequence[RecurrentLayer], order: Sequence[int], label: str, bias: Callable[[Any], np.ndarray]
) -> tuple[ir.Value, ir.Value, ir.Value | None]:
    """ONNX's W: (directions, gates * units, in), R: (directions, gates * units, units), B: (directions, 2 * gates *
    units).

    order: Keras's gates in ONNX's order. bias: Keras's bias variable as an array -> input biases, then recurrent
    biases.
    """
    change = gates(order)
    cells = [layer.cell for layer in layers]

    def stacked(*arrays: np.ndarray) -> np.ndarray:
        return np.stack([change(array) for array in arrays])

    w = ctx.weight([cell.kernel for cell in cells], stacked, f"{label}_W")
    r = ctx.weight([cell.recurrent_kernel for cell in cells], stacked, f"{label}_R")
    if all(cell.bias is not None for cell in cells):
        return (
            w,
            r,
            ctx.weight(
                [cell.bias for cell in cells], lambda *arrays: np.stack([bias(a) for a in arrays]), f"{label}_B"
            ),
        )
    # Without a bias ONNX's B is optional; an empty input stands for it.
    return w, r, None
