"""What LSTM, GRU, SimpleRNN, RNN over their cells and Bidirectional share: Keras's masking around ONNX's recurrent
operations.

Keras under a mask (mask: (batch, time), True is valid): a masked step leaves the state alone and repeats the previous
output; before the first valid step the output is 0. ONNX's operations know only `sequence_lens`, a number of leading
valid steps. Two forms without a Loop, both exact for any mask:

- a GRU whose gates saturate holds its state by itself: one more input feature, 1 at masked steps, pushes the update
  gate z to exactly 1, and h' = z h + (1 - z) n = h.
- otherwise the valid steps are moved to the front, the operations run with sequence_lens = number of valid steps, and
  the outputs are gathered back: with c_t = number of valid steps up to and including t, step t of a forward pass shows
  compact output c_t - 1, step t of a backward pass shows compact output c_t - m_t (the next valid step).

Layout: x: (batch, time, in); ONNX wants (time, batch, in) and gives Y: (time, directions, batch, units).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import keras
import numpy as np
import onnx_ir as ir

from mh_edge_onnx import activations
from mh_edge_onnx.context import Context

LOOPS = ("Loop", "Scan", "If")
"""What no recurrent layer with a rule may become."""

RecurrentLayer = Any
"""A keras.layers.LSTM, GRU or SimpleRNN, or the cell of one."""

HOLD = 1e9
"""What a masked step, whose input is 0, adds to the update gate: far more than a state and a bias can take away."""

IMPLIED = {"LSTM": ["Sigmoid", "Tanh", "Tanh"], "GRU": ["Sigmoid", "Tanh"], "RNN": ["Tanh"]}
"""The activations that ONNX means where none are named. QNN takes no operation that names any, be it these."""

TRUSTED = ("cpu",)
"""Runtimes measured to fill Y with zeros beyond sequence_lens, of which ONNX says nothing, and to keep equal keys of
TopK in order, of which it does.
"""


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

    def holding(self, layer: RecurrentLayer) -> Cell | None:
        """The same with one more input feature, 1 where state and output stay exactly as they are; None without."""


Stage = tuple[Cell, Sequence[RecurrentLayer]]
"""One ONNX operation: its kind, and one layer or cell per direction."""


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
    stages: Sequence[Stage],
    backward: Sequence[bool],
    x: ir.Value,
    mask: ir.Value | None,
    initial: Sequence[Sequence[ir.Value]],
    zero_masked: Sequence[bool],
    *,
    sequences: bool,
) -> Run:
    """One ONNX operation for each stage, which reads what the one before it shows at each step.

    stages: a cell with one layer per direction, of the same kind and size; several stages have one direction. backward:
    per direction, whether it reads time from the end. initial: per direction its initial states, stage by stage, or
    empty lists. zero_masked: per direction, whether masked steps show 0.
    """
    masking, stages = (None, stages) if mask is None else _masking(ctx, mask, stages)
    started = bool(initial[0])
    y = ctx.op("Transpose", x if masking is None else masking.enter(x), perm=[1, 0, 2])
    states: list[list[ir.Value]] = []
    for index, (cell, layers) in enumerate(stages):
        steps = _split(ctx, y, 1, axis=1)[0] if index else y
        starts = [given[len(states) : len(states) + cell.states] for given in initial]
        y, *finals = _operation(ctx, cell, layers, backward, steps, masking, starts)
        for final, start in zip(finals, zip(*starts, strict=True) if started else [()] * cell.states, strict=True):
            parts = _split(ctx, final, len(layers))
            states.append(parts if masking is None or not started else masking.final(parts, start))
    shown = states[-cell.states]
    if masking is not None:
        shown = [
            masking.last(value, backwards, zero, started)
            for value, backwards, zero in zip(shown, backward, zero_masked, strict=True)
        ]
    parts = []
    if sequences:
        # (time, directions, batch, units) -> (batch, time, units) per direction
        parts = [ctx.op("Transpose", part, perm=[1, 0, 2]) for part in _split(ctx, y, len(backward), axis=1)]
        if masking is not None:
            parts = [
                masking.restore(part, backwards, zero, started)
                for part, backwards, zero in zip(parts, backward, zero_masked, strict=True)
            ]
    return Run(tuple(parts), tuple(shown), tuple(zip(*states, strict=True)))


def _masking(ctx: Context, mask: ir.Value, stages: Sequence[Stage]) -> tuple[_Held | _Compacted, Sequence[Stage]]:
    """The form of masking, and the stages as they are under it."""
    held = [
        (holding, layers)
        for cell, layers in stages
        if all(cell.holding(layer) is not None for layer in layers) and (holding := cell.holding(layers[0])) is not None
    ]
    if len(held) == len(stages):
        ctx.chose("an input feature that holds the state at masked steps", "no step has to be moved")
        return _Held(ctx, mask), held
    ctx.chose("valid steps moved to the front and back", "one operation with lengths instead of a Loop")
    return _Compacted(ctx, mask), stages


def _operation(
    ctx: Context,
    cell: Cell,
    layers: Sequence[RecurrentLayer],
    backward: Sequence[bool],
    steps: ir.Value,
    masking: _Compacted | _Held | None,
    initial: Sequence[Sequence[ir.Value]],
) -> tuple[ir.Value, ...]:
    """steps: (time, batch, in) -> ONNX's Y and final states."""
    functions = [function for layer in layers for function in cell.functions(layer)]
    named = activations.recurrent(functions) or {}
    if named.get("activations") == IMPLIED[cell.op_type] * len(layers):
        named = {}
    return ctx.ops(
        cell.op_type,
        steps if masking is None else masking.step_inputs(steps),
        *cell.weights(ctx, layers),
        None if masking is None else masking.lengths,
        *(_stack(ctx, values) for values in zip(*initial, strict=True)),
        outputs=1 + cell.states,
        hidden_size=layers[0].units,
        direction="bidirectional" if len(layers) == 2 else "reverse" if backward[0] else "forward",
        **named,
        **cell.attributes(layers[0]),
    )


def in_keras_order(ctx: Context, layer: RecurrentLayer, sequence: ir.Value) -> ir.Value:
    """Keras returns the outputs of a go_backwards layer in the order in which it computed them."""
    return flip(ctx, sequence) if layer.go_backwards else sequence


def flip(ctx: Context, sequence: ir.Value) -> ir.Value:
    """(batch, time, units) with time reversed."""
    ends = ctx.constant([np.iinfo(np.int64).min])
    return ctx.op("Slice", sequence, ctx.constant([-1]), ends, ctx.constant([1]), ctx.constant([-1]))


def lower_single(
    ctx: Context,
    layer: keras.layers.RNN,
    stages: Sequence[Stage],
    inputs: Sequence[ir.Value],
    masks: Sequence[ir.Value | None],
) -> list[ir.Value]:
    """The rule of a recurrent layer on its own: inputs (x, initial states ...) -> [output, final states ...]."""
    x, *initial = inputs
    sequences, zero_masked = layer.return_sequences, [layer.zero_output_for_mask]
    done = run(ctx, stages, [layer.go_backwards], x, masks[0], [initial], zero_masked, sequences=sequences)
    output = in_keras_order(ctx, layer, done.sequences[0]) if sequences else done.last[0]
    # A call whose states become outputs of the file wants them whatever the layer was made to return.
    return [output, *done.states[0]] if layer.return_state or ctx.outputs > 1 else [output]


def _stack(ctx: Context, values: Sequence[ir.Value]) -> ir.Value:
    """(batch, units) per direction -> (directions, batch, units)."""
    lifted = [ctx.op("Unsqueeze", value, ctx.constant([0])) for value in values]
    return lifted[0] if len(lifted) == 1 else ctx.op("Concat", *lifted, axis=0)


def _split(ctx: Context, value: ir.Value, count: int, axis: int = 0) -> list[ir.Value]:
    """The directions apart, their axis gone."""
    if count == 1:
        return [ctx.op("Squeeze", value, ctx.constant([axis]))]
    return [ctx.op("Gather", value, ctx.constant(index), axis=axis) for index in range(count)]


class _Masking:
    """What both forms know of a mask."""

    def __init__(self, ctx: Context, mask: ir.Value) -> None:
        self.ctx = ctx
        self.mask = ctx.op("Unsqueeze", mask, ctx.constant([2]))

    def valid(self) -> ir.Value:
        """(batch, time, 1): 1 at valid steps, else 0."""
        return self.ctx.op("Cast", self.mask, to=ir.DataType.INT32)

    def final(self, states: Sequence[ir.Value], initial: Sequence[ir.Value]) -> list[ir.Value]:
        """The final states of a layer that was given initial ones."""
        del initial
        return list(states)

    def last(self, output: ir.Value, backwards: bool, zero_masked: bool, started: bool) -> ir.Value:
        """The output at the last step computed: 0 in a row without a valid step, or where masked steps show 0 and it
        is masked.
        """
        if zero_masked:
            end = self.ctx.op("Gather", self.mask, self.ctx.constant(0 if backwards else -1), axis=1)
            return self._zero_unless(end, output)
        return self._zero_unless(self._any(), output) if started else output

    def _any(self) -> ir.Value:
        """(batch, 1): whether a row has a valid step."""
        count = self.ctx.op("ReduceSum", self.valid(), self.ctx.constant([1]), keepdims=0)
        return self.ctx.op("Greater", count, self.ctx.constant(0, "int32"))

    def _reached(self, backwards: bool) -> ir.Value:
        """(batch, time, 1): whether the pass has met a valid step."""
        count = self.ctx.op("CumSum", self.valid(), self.ctx.constant(1), reverse=int(backwards))
        return self.ctx.op("Greater", count, self.ctx.constant(0, "int32"))

    def _zero_unless(self, shown: ir.Value, output: ir.Value) -> ir.Value:
        return self.ctx.op("Where", shown, output, self.ctx.constant(0.0, "float32"))


class _Held(_Masking):
    """A further feature of the input, 1 at masked steps, on which the cells hold their state."""

    lengths = None

    def __init__(self, ctx: Context, mask: ir.Value) -> None:
        super().__init__(ctx, mask)
        flag = ctx.op("Where", self.mask, ctx.constant(0.0, "float32"), ctx.constant(1.0, "float32"))
        self._flag = ctx.op("Transpose", flag, perm=[1, 0, 2])

    def enter(self, x: ir.Value) -> ir.Value:
        """(batch, time, in), 0 at masked steps: what stands there may be larger than what holds the state."""
        return self.ctx.op("Where", self.mask, x, self.ctx.constant(0.0, "float32"))

    def step_inputs(self, steps: ir.Value) -> ir.Value:
        """(time, batch, in) -> (time, batch, in + 1)."""
        return self.ctx.op("Concat", steps, self._flag, axis=-1)

    def restore(self, y: ir.Value, backwards: bool, zero_masked: bool, started: bool) -> ir.Value:
        """Outputs (batch, time, units) -> what Keras shows at each step."""
        if zero_masked:
            return self._zero_unless(self.mask, y)
        return self._zero_unless(self._reached(backwards), y) if started else y


class _Compacted(_Masking):
    """The permutation of time that brings the valid steps to the front."""

    def __init__(self, ctx: Context, mask: ir.Value) -> None:
        super().__init__(ctx, mask)
        valid = self.valid()
        self._trusted = ctx.runtime in TRUSTED
        self.lengths = ctx.op("ReduceSum", valid, ctx.constant([1, 2]), keepdims=0)
        time = ctx.shape(mask)[1]
        count = ctx.constant([time]) if isinstance(time, int) else ctx.op("Shape", mask, start=1, end=2)
        # Where the order of equal keys is not to be trusted, those of valid steps are made different; the order of the
        # masked ones does not matter.
        keys = valid if self._trusted else ctx.op("Mul", valid, ctx.op("CumSum", valid, ctx.constant(1), reverse=1))
        self._order = ctx.ops("TopK", keys, count, outputs=2, axis=1)[1]

    def enter(self, x: ir.Value) -> ir.Value:
        """(batch, time, in) with the valid steps first."""
        return self.ctx.op("GatherND", x, self._order, batch_dims=1)

    def step_inputs(self, steps: ir.Value) -> ir.Value:
        """(time, batch, in) as it is."""
        return steps

    def restore(self, y: ir.Value, backwards: bool, zero_masked: bool, started: bool) -> ir.Value:
        """Compact outputs (batch, time, units) -> what Keras shows at each original step.

        A step before the first valid one has the index -1, which is the last step; the one after the last valid one,
        backwards, the number of valid steps. Both lie beyond that number, where Y is 0.
        """
        del started
        op, constant = self.ctx.op, self.ctx.constant
        if backwards:
            index = op("CumSum", self.valid(), constant(1), exclusive=1)
        else:
            index = op("Sub", op("CumSum", self.valid(), constant(1)), constant(1, "int32"))
        shown = op("GatherND", y, op("Cast", index, to=ir.DataType.INT64), batch_dims=1)
        if zero_masked:
            return self._zero_unless(self.mask, shown)
        return shown if self._trusted else self._zero_unless(self._reached(backwards), shown)

    def final(self, states: Sequence[ir.Value], initial: Sequence[ir.Value]) -> list[ir.Value]:
        """The final states; of a row without a valid step, the initial ones."""
        some = self._any()
        return [self.ctx.op("Where", some, state, start) for state, start in zip(states, initial, strict=True)]


def weights(
    ctx: Context,
    layers: Sequence[RecurrentLayer],
    order: Sequence[int],
    label: str,
    bias: Callable[[Any], np.ndarray],
    hold: Sequence[int] | None = None,
) -> tuple[ir.Value, ir.Value, ir.Value | None]:
    """ONNX's W: (directions, gates * units, in), R: (directions, gates * units, units), B: (directions, 2 * gates *
    units).

    order: Keras's gates in ONNX's order. bias: Keras's bias variable as an array -> input biases, then recurrent
    biases. hold: per gate, 1 where the feature that holds the state opens it (Keras's order); W gets its column.
    """
    change = gates(order)
    cells = [layer.cell if isinstance(layer, keras.layers.RNN) else layer for layer in layers]

    def stacked(*arrays: np.ndarray) -> np.ndarray:
        return np.stack([change(array) for array in arrays])

    def held(*arrays: np.ndarray) -> np.ndarray:
        row = np.repeat(np.array(hold, "float32") * np.float32(HOLD), cells[0].units)[None]
        return stacked(*(np.concatenate([array, row]) for array in arrays))

    kernels = [cell.kernel for cell in cells]
    w = ctx.weight(kernels, stacked, f"{label}_W") if hold is None else ctx.weight(kernels, held, f"{label}_held_W")
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
