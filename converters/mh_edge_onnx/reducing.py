"""Reductions, whose axes moved from an attribute to an input, and normalisation over the last axes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx_ir as ir

    from mh_edge_onnx.context import Context

AXES_ARE_AN_INPUT = 18
"""First opset in which every reduction takes its axes as an input (ReduceSum: from 13)."""


def reduced(ctx: Context, op_type: str, x: ir.Value, axes: Sequence[int], *, keepdims: bool) -> ir.Value:
    """`op_type` ("ReduceMean", ...) of x over the axes; not for ReduceSum."""
    if ctx.opset < AXES_ARE_AN_INPUT:
        return ctx.op(op_type, x, axes=list(axes), keepdims=int(keepdims))
    return ctx.op(op_type, x, ctx.constant(list(axes)), keepdims=int(keepdims))


def trailing(
    ctx: Context, x: ir.Value, axes: Sequence[int], normalise: Callable[[ir.Value, int], ir.Value]
) -> ir.Value:
    """`normalise(x, first axis)` over the last axes: where `axes` (ascending) are others, they are moved there and
    back.
    """
    rank = len(ctx.shape(x))
    chosen = [axis % rank for axis in axes]
    order = [axis for axis in range(rank) if axis not in chosen] + chosen
    first = rank - len(chosen)
    if order == list(range(rank)):
        return normalise(x, first)
    inverse = sorted(range(rank), key=order.__getitem__)
    return ctx.op("Transpose", normalise(ctx.op("Transpose", x, perm=order), first), perm=inverse)
