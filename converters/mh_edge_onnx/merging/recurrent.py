"""LSTM, GRU, SimpleRNN and Bidirectional heads as one wider layer whose recurrent kernel is block-diagonal."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from typing import Any

import keras
import numpy as np
import onnx_ir as ir

from mh_edge.layers import MultiHead
from mh_edge.merging import Group, block_diagonal, folded, interleaved
from mh_edge_onnx.context import Context
from mh_edge_onnx.merging import costs


def merge(ctx: Context, layer: MultiHead, group: Group, x: ir.Value, mask: ir.Value | None) -> ir.Value | str:
    """x: (batch, time, in) -> (batch, units, heads of the group) or (batch, time, units, heads), or why they stay
    apart.
    """
    head = group.heads[0]
    single = getattr(head, "forward_layer", head)
    kind, units = type(single).__name__, single.units
    if units > (most := costs.RECURRENT_UNITS[kind]):
        return (
            f"{units} units: from {most + 1} on, the zeros of a block-diagonal kernel cost more than one {kind} saves"
        )
    z, fold = _input(ctx, layer, x)
    count = ceil(len(group.numbers) * units / costs.RECURRENT_WIDTH[kind])
    blocks = [block for block in np.array_split(group.numbers, count) if len(block)]
    told = f"{type(head).__name__} layers of {', '.join(str(len(block) * units) for block in blocks)} units"
    ctx.chose(
        f"{len(group.numbers)} heads as {told}", f"{units} units a head are few enough for block-diagonal kernels"
    )
    parts = []
    for block in blocks:
        y, *_ = ctx.call(_wide_layer(layer, block.tolist(), fold), (z,), (mask,))
        leading = len(ctx.shape(y)) - 1
        parts.append(ctx.op("Reshape", y, ctx.constant([*[0] * leading, -1, len(block)])))
    return parts[0] if len(parts) == 1 else ctx.op("Concat", *parts, axis=-1)


def _input(ctx: Context, layer: MultiHead, x: ir.Value) -> tuple[ir.Value, bool]:
    """What the wide layers read, and whether MultiHead's hidden layer is folded into them: where it makes the input
    narrower, it is a product of its own.
    """
    if layer.W is None:
        return x, False
    width, hidden = layer.W.shape
    if width <= hidden:
        return x, True
    z = ctx.op("MatMul", x, ctx.weight(layer.W))
    return (z if layer.b is None else ctx.op("Add", z, ctx.weight(layer.b))), False


def _wide_layer(layer: MultiHead, numbers: Sequence[int], fold: bool) -> Any:
    """A Keras layer, LSTM, GRU, SimpleRNN or Bidirectional, that computes those heads of one group: (batch, u·N) or
    (batch, time, u·N), channel u·N + n being channel u of the n-th. Its recurrent kernel is block-diagonal.

    fold: MultiHead's hidden layer is folded into its kernel; otherwise the layer reads x W + b of all heads, if there
    is a W. It holds copies of the weights, so it is for small heads.
    """
    heads = [layer.layers[number] for number in numbers]
    if type(heads[0]) is not keras.layers.Bidirectional:
        return _wide(layer, numbers, heads, fold)
    forward = _wide(layer, numbers, [head.forward_layer for head in heads], fold)
    backward = _wide(layer, numbers, [head.backward_layer for head in heads], fold)
    made = keras.layers.Bidirectional(
        forward, backward_layer=backward, merge_mode=heads[0].merge_mode, name=f"{heads[0].name}_wide"
    )
    made.build((None, None, forward.cell.kernel.shape[0]))
    made.set_weights([*forward.get_weights(), *backward.get_weights()])
    return made


def _own_rows(kernels: Sequence[np.ndarray], numbers: Sequence[int], total: int) -> np.ndarray:
    """N of (h, u) -> (total·h, u·N): what head n makes of its own part of an input for all heads."""
    rows, columns = kernels[0].shape
    wide = np.zeros((total, rows, columns, len(kernels)), kernels[0].dtype)
    for place, (number, kernel) in enumerate(zip(numbers, kernels, strict=True)):
        wide[number, :, :, place] = kernel
    return wide.reshape(total * rows, -1)


def _wide(layer: MultiHead, numbers: Sequence[int], heads: Sequence[Any], fold: bool) -> Any:
    read = keras.ops.convert_to_numpy
    kernels: list[np.ndarray] = []
    recurrent: list[np.ndarray] = []
    biases: list[Any] = []
    for number, head in zip(numbers, heads, strict=True):
        kernel, bias = read(head.cell.kernel), read(head.cell.bias) if head.use_bias else None
        if fold:
            kernel, bias = folded(kernel, bias, read(layer.W), None if layer.b is None else read(layer.b), number)
        kernels.append(kernel)
        recurrent.append(read(head.cell.recurrent_kernel))
        biases.append(bias)
    first = heads[0]
    config = {**first.get_config(), "name": f"{first.name}_wide", "units": first.units * len(heads)}
    config |= {name: "zeros" for name in config if name.endswith("_initializer")}
    made = type(first).from_config(config | {"use_bias": biases[0] is not None})
    kernel = interleaved(*kernels) if fold or layer.W is None else _own_rows(kernels, numbers, layer.layer_num)
    made.build((None, None, kernel.shape[0]))
    made.cell.kernel.assign(kernel)
    made.cell.recurrent_kernel.assign(block_diagonal(*recurrent))
    if biases[0] is not None:
        joined = interleaved(*biases)
        # A bias that came from hidden_dim alone is one row; a GRU may want a second.
        made.cell.bias.assign(joined if joined.shape == made.cell.bias.shape else np.stack([joined, 0 * joined]))
    return made
