"""What LSTM, GRU, SimpleRNN, RNN over their cells and Bidirectional share: one ONNX operation for each cell. Masks:
recurrent_masks.

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
from mh_edge_onnx.recurrent_masks import Compacted, Held, InFront, Masking

LOOPS = ("Loop", "Scan", "If")
"""What no recurrent layer with a rule may become."""

RecurrentLayer = Any
"""A keras.layers.LSTM, GRU or SimpleRNN, or the cell of one."""

HOLD, FLOAT16_HOLD = 1e9, 2.0**15
"""What a masked step, whose input is 0, adds to the update gate: far more than a state and a bias can take away. Where
float16 is computed it must be finite there: infinity times the 0 of a valid step is no number.
"""

IMPLIED = {"LSTM": ["Sigmoid", "Tanh", "Tanh"], "GRU": ["Sigmoid", "Tanh"], "RNN": ["Tanh"]}
"""The activations that ONNX means where none are named. QNN takes no operation that names any, be it these."""


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
    direction, the layer's output at its last step. states: per direction, the final states, each (batch, units), or ()
    when they were not asked for.
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
    finals: bool,
) -> Run:
    """One ONNX operation for each stage, which reads what the one before it shows at each step.

    stages: a cell with one layer per direction, of the same kind and size; several stages have one direction. backward:
    per direction, whether it reads time from the end. initial: per direction its initial states, stage by stage, or
    empty lists. zero_masked: per direction, whether masked steps show 0. finals: whether the final states are wanted.
    """
    masking, stages = (None, stages) if mask is None else _masking(ctx, mask, stages, backward, finals)
    started = bool(initial[0])
    y = ctx.op("Transpose", x if masking is None else masking.enter(x), perm=[1, 0, 2])
    states: list[list[ir.Value]] = []
    for index, (cell, layers) in enumerate(stages):
        steps = _split(ctx, y, 1, axis=1)[0] if index else y
        starts = [given[len(states) : len(states) + cell.states] for given in initial]
        y, *computed = _operation(ctx, cell, layers, backward, steps, masking, starts)
        ends = computed if masking is None else masking.ended(y, computed)
        for final, start in zip(ends, zip(*starts, strict=True) if started else [()] * cell.states, strict=True):
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
    return Run(tuple(parts), tuple(shown), tuple(zip(*states, strict=True)) if finals else ())


def apart(ctx: Context, stages: Sequence[Stage], mask: ir.Value | None, finals: bool) -> bool:
    """Whether each direction needs an operation of its own: InFront, for plug-ins, moves its steps in its own order."""
    holds = all(cell.holding(layer) is not None for cell, layers in stages for layer in layers)
    hidden = finals and any(cell.states > 1 for cell, _ in stages)
    return mask is not None and ctx.runtime == "plugins" and not holds and not hidden


def _masking(
    ctx: Context, mask: ir.Value, stages: Sequence[Stage], backward: Sequence[bool], finals: bool
) -> tuple[Masking, Sequence[Stage]]:
    """The form of masking, and the stages as they are under it."""
    if apart(ctx, stages, mask, finals):
        ctx.chose("valid steps moved to the front and back, without lengths", "plug-ins refuse or ignore lengths")
        return InFront(ctx, mask, backward[0]), stages
    held = [
        (holding, layers)
        for cell, layers in stages
        if all(cell.holding(layer) is not None for layer in layers) and (holding := cell.holding(layers[0])) is not None
    ]
    if len(held) == len(stages):
        ctx.chose("an input feature that holds the state at masked steps", "no step has to be moved")
        return Held(ctx, mask), held
    ctx.chose("valid steps moved to the front and back", "one operation with lengths instead of a Loop")
    return Compacted(ctx, mask), stages


def _operation(
    ctx: Context,
    cell: Cell,
    layers: Sequence[RecurrentLayer],
    backward: Sequence[bool],
    steps: ir.Value,
    masking: Masking | None,
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
        direction=_direction(backward, masking),
        **named,
        **cell.attributes(layers[0]),
    )


def _direction(backward: Sequence[bool], masking: Masking | None) -> str:
    if len(backward) == 2:
        return "bidirectional"
    return "reverse" if backward[0] and not isinstance(masking, InFront) else "forward"


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
    # A call whose states become outputs of the file wants them whatever the layer was made to return.
    finals = layer.return_state or ctx.outputs > 1
    done = run(
        ctx, stages, [layer.go_backwards], x, masks[0], [initial], zero_masked, sequences=sequences, finals=finals
    )
    output = in_keras_order(ctx, layer, done.sequences[0]) if sequences else done.last[0]
    return [output, *(state for direction in done.states for state in direction)]


def _stack(ctx: Context, values: Sequence[ir.Value]) -> ir.Value:
    """(batch, units) per direction -> (directions, batch, units)."""
    lifted = [ctx.op("Unsqueeze", value, ctx.constant([0])) for value in values]
    return lifted[0] if len(lifted) == 1 else ctx.op("Concat", *lifted, axis=0)


def _split(ctx: Context, value: ir.Value, count: int, axis: int = 0) -> list[ir.Value]:
    """The directions apart, their axis gone."""
    if count == 1:
        return [ctx.op("Squeeze", value, ctx.constant([axis]))]
    return [ctx.op("Gather", value, ctx.constant(index), axis=axis) for index in range(count)]


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
    opening = np.float32(FLOAT16_HOLD if ctx.runtime == "plugins" else HOLD)

    def stacked(*arrays: np.ndarray) -> np.ndarray:
        return np.stack([change(array) for array in arrays])

    def held(*arrays: np.ndarray) -> np.ndarray:
        row = np.repeat(np.array(hold, "float32") * opening, cells[0].units)[None]
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
