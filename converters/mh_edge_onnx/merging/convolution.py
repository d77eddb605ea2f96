"""Convolution heads as one: channel u·N + n of the wide kernel is channel u of head n, on taps that hold those of all,
zero where a head has none. It runs over two axes, which ONNX Runtime does faster than over one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import numpy as np
import onnx_ir as ir

from mh_edge.layers import MultiHead
from mh_edge.merging import (
    CONVOLUTION,
    Group,
    Taps,
    by_channel,
    channel_groups,
    channels,
    common_taps,
    interleaved,
    kernel_of,
    placed,
    taps,
)
from mh_edge_onnx.context import Context
from mh_edge_onnx.merging import costs
from mh_edge_onnx.merging.affine import Affine


def merge(ctx: Context, layer: MultiHead, group: Group, x: ir.Value, mask: ir.Value | None) -> ir.Value | str:
    """x: (batch, steps..., in) -> (batch, steps..., filters, heads of the group), or why the heads stay apart."""
    del mask
    heads, common = group.heads, common_taps(group.heads)
    name = f"{len(heads)} {type(heads[0]).__name__} heads"
    (width, filters), cut = channels(heads[0]), channel_groups(heads[0])
    places = [prod(axis.count for axis in taps(head)) for head in heads]
    filled = (prod(axis.count for axis in common) * len(heads) - sum(places)) * width // cut * filters
    if filled > costs.FILLED:
        return f"one convolution for kernels of several sizes would multiply {filled} zeros for each output step"
    if by_channel(heads[0]) and width >= costs.CHANNELS:
        return f"ONNX Runtime is at its best with {width} channels that are convolved each for itself"
    affine = Affine(layer, group, layer.W is not None, kernel_of)
    if affine.fold:
        if cut > 1:
            return "its channel groups have a part of hidden_dim each"
        if layer.b is not None and any(axis.first < 0 or axis.last > axis.lost for axis in common):
            return "the bias of hidden_dim does not reach the zeros that a convolution is padded with"
        fold = costs.Fold.of(CONVOLUTION, layer, filters, max(places))
        if not fold.pays:
            return fold.reason
        ctx.chose(f"hidden_dim and {name} as one convolution", fold.reason)
    else:
        ctx.chose(f"{name} as one convolution", "the input is read once and nothing is stacked")
    return _wide(ctx, affine, common, x)


def _wide(ctx: Context, affine: Affine, common: Sequence[Taps], x: ir.Value) -> ir.Value:
    heads = affine.group.heads

    def join(*kernels: np.ndarray) -> np.ndarray:
        return interleaved(*(placed(one, taps(head), common) for one, head in zip(kernels, heads, strict=True)))

    y = _convolve(ctx, heads[0], common, _channels_first(ctx, x), affine, join)
    y = ctx.op("Transpose", y, perm=[0, 2, 3, 1] if len(common) == 2 else [0, 3, 1, 2])
    count = len(heads)
    return ctx.op("Reshape", y, ctx.constant([*[0] * (len(common) + 1), channels(heads[0])[1], count]))


def _channels_first(ctx: Context, x: ir.Value) -> ir.Value:
    """(batch, steps..., in) -> (batch, in, two axes of steps)."""
    if len(ctx.shape(x)) == 4:
        return ctx.op("Transpose", x, perm=[0, 3, 1, 2])
    return ctx.op("Unsqueeze", ctx.op("Transpose", x, perm=[0, 2, 1]), ctx.constant([2]))


def _convolve(
    ctx: Context, head: Any, axes: Sequence[Taps], x: ir.Value, affine: Affine, join: Callable[..., np.ndarray]
) -> ir.Value:
    """x: (batch, in, steps) -> (batch, out, steps), activated."""
    lead = [Taps(0, 1, 1, 0)] * (2 - len(axes))
    both = [*lead, *axes]
    strides = [*[1] * len(lead), *head.strides]

    def kernels(*arrays: np.ndarray) -> np.ndarray:
        """(steps..., in, out) -> (out, in, two axes of steps)."""
        wide = join(*arrays)
        wide = wide.reshape([*(axis.count for axis in both), *wide.shape[-2:]])
        return wide.transpose(3, 2, 0, 1)

    moving = head.padding == "same" and max(strides) > 1
    pads = [*(-axis.first for axis in both), *(axis.last - axis.lost for axis in both)]
    y = ctx.op(
        "Conv",
        x,
        affine.kernel(ctx, kernels, "convolution"),
        affine.bias(ctx, interleaved, "convolution"),
        strides=strides,
        dilations=[axis.step for axis in both],
        group=channel_groups(head),
        **({"auto_pad": "SAME_UPPER"} if moving else {"pads": pads}),
    )
    return ctx.activation(head.activation, y)
