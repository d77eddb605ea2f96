"""Heads of a MultiHead as one operation: which form, by what it costs, and the form itself.

Channel u of head n becomes channel u·N + n of a wide kernel, so that a reshape makes (..., u, N) of the result.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from mh_edge.layers import MultiHead
from mh_edge.merging import (
    BIDIRECTIONAL,
    CONVOLUTION,
    DENSE,
    RECURRENT,
    Group,
    Taps,
    channel_groups,
    common_taps,
    folded,
    interleaved,
    kernel_of,
    kind_of,
    placed,
    taps,
)
from mh_edge_tflite.context import Context, Tensor, dense, reshape, sizes
from mh_edge_tflite.recurrent import CACHE, Cell, Fit, SideBySide, numbers, recurrent_bytes
from mh_edge_tflite.rules import gru, lstm, simple_rnn

STACKING = 30
"""What it costs to stack a number of a head beside the others', in multiplications; an estimate."""

CELLS: dict[type, Cell] = {
    keras.layers.LSTM: lstm.CELL,
    keras.layers.GRU: gru.CELL,
    keras.layers.SimpleRNN: simple_rnn.CELL,
}

MERGE: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "concat": lambda forward, backward: tf.concat([forward, backward], axis=-1),
    "sum": lambda forward, backward: forward + backward,
    "ave": lambda forward, backward: (forward + backward) / 2,
    "mul": lambda forward, backward: forward * backward,
}
"""How Bidirectional makes one output of two."""


def merged(ctx: Context, layer: MultiHead, group: Group, x: Tensor, mask: Tensor | None) -> Tensor | None:
    """The heads of a group, stacked: x -> (..., u, n); None where they are better apart."""
    if len(group.numbers) == 1:
        return None
    if group.kind in (DENSE, CONVOLUTION):
        return _wide(ctx, layer, group, x) if len(group.numbers) == layer.layer_num else None
    return _side_by_side(ctx, layer, group, x, mask) if group.kind in (RECURRENT, BIDIRECTIONAL) else None


@dataclass(frozen=True)
class _Form:
    """One way to compute all heads. cost: multiplications for each place of the input. shared: the heads read the
    hidden layer, computed once; else the input itself. fit: a head's kernel and bias -> those for what they read.
    """

    name: str
    cost: int
    shared: bool
    fit: Fit


def _forms(layer: MultiHead, group: Group, width: int, taps_of_all: int, exact: bool) -> list[_Form]:
    """The forms of one wide kernel (taps..., in, N·out). width: of the input. exact: a hidden layer may be folded."""
    count = len(group.numbers)
    if layer.W is None:
        cost = sum(taps_of_all * width * _width_out(head) for head in group.heads)
        return [_Form("as they are", cost, False, lambda number, kernel, bias: (kernel, bias))]
    hidden, out = layer.hidden_dim, sum(_width_out(head) for head in group.heads)
    outer, shift = numbers(layer.W), None if layer.b is None else numbers(layer.b)

    def fold(number: int, kernel: np.ndarray, bias: np.ndarray | None) -> tuple[np.ndarray, np.ndarray | None]:
        return folded(kernel, bias, outer, shift, group.numbers[number % count])

    def spread(number: int, kernel: np.ndarray, bias: np.ndarray | None) -> tuple[np.ndarray, np.ndarray | None]:
        first = group.numbers[number % count] * hidden
        wide = np.zeros((*kernel.shape[:-2], layer.layer_num * hidden, kernel.shape[-1]), kernel.dtype)
        wide[..., first : first + hidden, :] = kernel
        return wide, bias

    total = layer.layer_num * hidden
    forms = [_Form("hidden layer apart", width * total + taps_of_all * total * out, True, spread)]
    return [*forms, _Form("hidden layer folded in", taps_of_all * width * out, False, fold)][: 1 + exact]


def _width_out(head: Any) -> int:
    """Numbers that a head's kernel makes of each place."""
    if isinstance(head, keras.layers.Bidirectional):
        return 2 * int(head.forward_layer.cell.kernel.shape[-1])
    if type(head) in CELLS:
        return int(head.cell.kernel.shape[-1])
    return int(head.units if type(head) is keras.layers.Dense else head.filters)


def _input(layer: MultiHead, form: _Form, x: Tensor) -> Tensor:
    return dense(x, layer.W, layer.b) if form.shared else x


def _wide(ctx: Context, layer: MultiHead, group: Group, x: Tensor) -> Tensor | None:
    """Dense heads as one FULLY_CONNECTED, convolutions as one CONV_2D."""
    first, count = group.heads[0], len(group.heads)
    convolved = group.kind == CONVOLUTION
    if convolved and channel_groups(first) != 1:
        return None
    common = common_taps(group.heads) if convolved else ()
    within = all(axis.lost == axis.last - axis.first for axis in common)
    places = math.prod(axis.count for axis in common)
    form = min(_forms(layer, group, x.shape[-1], places, within or layer.b is None), key=lambda form: form.cost)
    out = _width_out(first) * count
    apart = sum(math.prod(variable.shape) for head in group.heads for variable in _kernel(head)[0]) + STACKING * out
    apart += 0 if layer.W is None else x.shape[-1] * layer.W.shape[-1]
    what = f"{count} {type(first).__name__} heads"
    why = f"{form.cost} multiplications at each place, apart {apart}, their stack included"
    if form.cost > apart:
        ctx.chose(f"{what} apart", why)
        return None
    ctx.chose(f"{what} as one {'CONV_2D' if convolved else 'FULLY_CONNECTED'}, {form.name}", why)
    pairs = []
    for number, head in enumerate(group.heads):
        variables, made = _kernel(head)
        kernel = made(*map(numbers, variables))
        if convolved:
            kernel = placed(kernel, taps(head), common)
        pairs.append(form.fit(number, kernel, numbers(head.bias) if head.use_bias else None))
    kernels, biases = zip(*pairs, strict=True)
    kernel, bias = interleaved(*kernels), None if biases[0] is None else interleaved(*biases)
    z = _input(layer, form, x)
    y = first.activation(_convolution(first, common, z, kernel, bias) if convolved else dense(z, kernel, bias))
    return reshape(y, [*sizes(y)[:-1], out // count, count])


def _kernel(head: Any) -> tuple[list[keras.Variable], Callable[..., np.ndarray]]:
    return ([head.kernel], lambda kernel: kernel) if type(head) is keras.layers.Dense else kernel_of(head)


def _convolution(head: Any, axes: Sequence[Taps], x: Tensor, kernel: np.ndarray, bias: np.ndarray | None) -> Tensor:
    """One CONV_2D with these taps, whatever the padding of the heads; over time it is one over images of height 1."""
    before = [-axis.first for axis in axes]
    after = [axis.last - axis.lost for axis in axes]
    strides, steps = list(head.strides), [axis.step for axis in axes]
    shifting = head.padding == "same" and max(strides) > 1
    even = [axis.lost == 0 and left == (axis.last - axis.first) // 2 for axis, left in zip(axes, before, strict=True)]
    padding = "SAME" if shifting or all(even) else "VALID"
    if padding == "VALID" and any(before + after):
        x = tf.pad(x, [(0, 0), *zip(before, after, strict=True), (0, 0)])
    flat = len(axes) == 1
    if flat:
        x, kernel, strides, steps = tf.expand_dims(x, 1), kernel[None], [1, *strides], [1, *steps]
    y = tf.nn.conv2d(x, kernel, strides, padding, dilations=steps)
    y = y if bias is None else y + bias
    return tf.squeeze(y, 1) if flat else y


def _side_by_side(ctx: Context, layer: MultiHead, group: Group, x: Tensor, mask: Tensor | None) -> Tensor | None:
    """LSTM, GRU or SimpleRNN heads in one loop, or in as many as the cache wants.

    Four of 8, 16, 32 or 64 units over 64 steps of 32 numbers take apart 1.5 to 3.1 times as long, masked or not.
    """
    both = group.kind == BIDIRECTIONAL
    first = group.heads[0].forward_layer if both else group.heads[0]
    size = recurrent_bytes(first) * (1 + both)
    most = CACHE // size
    what = f"{len(group.heads)} {type(first).__name__} heads"
    why = f"{size} bytes of recurrent weights each, {CACHE} stay near from step to step"
    if most < 2 or first.stateful:
        ctx.chose(f"{what} apart", why)
        return None
    loops = -(-len(group.heads) // most)
    form = min(_forms(layer, group, x.shape[-1], 1, True), key=lambda form: form.cost)
    ctx.chose(f"{what} in {loops} loop{'s' * (loops > 1)}, {form.name}", why)
    z = _input(layer, form, x)
    parts = []
    for part in np.array_split(np.arange(len(group.heads)), loops):
        heads = [group.heads[number] for number in part]

        def fit(number: int, kernel: np.ndarray, bias: Any, part: Any = part) -> Any:
            return form.fit(int(part[number % len(part)]), kernel, bias)

        if both:
            output, _ = both_directions(ctx, heads, z, mask, (), fit)
        else:
            turned = len(heads) * first.go_backwards
            output, _ = SideBySide(ctx, CELLS[type(first)], tuple(heads), turned, fit).run(z, mask)
        parts.append(tf.transpose(output, (2, 0, 3, 1) if first.return_sequences else (1, 2, 0)))
    return parts[0] if loops == 1 else tf.concat(parts, axis=-1)


def like(layer: keras.layers.Bidirectional) -> bool:
    """Whether both directions are of one kind and size, small enough for one loop."""
    small = kind_of(layer) == BIDIRECTIONAL and 2 * recurrent_bytes(layer.forward_layer) <= CACHE
    return small and not layer.stateful


def both_directions(
    ctx: Context, layers: Any, x: Tensor, mask: Tensor | None, initial: Any, fit: Fit | None = None
) -> tuple[Any, Any]:
    """N like Bidirectional layers in one loop, the backward ones on time turned round -> (outputs, states).

    Outputs: (time, N, batch, units) or (N, batch, units), merged; or the two of them where nothing merges. States and
    initial states: (2 N, batch, units).
    """
    first = layers[0].forward_layer
    directions = [layer.forward_layer for layer in layers] + [layer.backward_layer for layer in layers]
    run = SideBySide(ctx, CELLS[type(first)], tuple(directions), len(layers), fit).run(x, mask, initial)
    forward, backward = tf.split(run[0], 2, axis=int(first.return_sequences))
    if first.return_sequences:
        backward = tf.reverse(backward, [0])
    mode = layers[0].merge_mode
    return (forward, backward) if mode is None else MERGE[mode](forward, backward), run[1]
