"""Dense heads as one product: Y = f(x K + c), K[:, u·N + n] = K_n[:, u], so that (..., u·N) is (..., u, N) as it lies.

With hidden_dim, W is folded into K where that costs little; else one product gives all z_n, one batched product all
heads.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from mh_edge.layers import MultiHead
from mh_edge.merging import DENSE, Group
from mh_edge_onnx.context import Context
from mh_edge_onnx.merging import costs
from mh_edge_onnx.merging.affine import Affine


def merge(ctx: Context, layer: MultiHead, group: Group, x: ir.Value, mask: ir.Value | None) -> ir.Value | str:
    """x: (..., in) -> (..., units, heads of the group), or why the heads stay apart."""
    del mask
    count, units = len(group.heads), group.heads[0].units
    if layer.W is None:
        ctx.chose(f"{count} Dense heads as one product", "the input is read once and nothing is stacked")
        return _interleaved(ctx, Affine(layer, group), x)
    fold = costs.Fold.of(DENSE, layer, units)
    if fold.pays:
        ctx.chose(f"hidden_dim and {count} Dense heads as one product", fold.reason)
        return _interleaved(ctx, Affine(layer, group, fold=True), x)
    if count < max(costs.BATCHED_HEADS, layer.layer_num) or units > costs.BATCHED_UNITS:
        return fold.reason
    ctx.chose(f"{count} Dense heads as one batched product", fold.reason)
    return _batched(ctx, Affine(layer, group), x)


def _interleaved(ctx: Context, heads: Affine, x: ir.Value) -> ir.Value:
    head, count = heads.group.heads[0], len(heads.group.heads)
    *sizes, width = ctx.shape(x)
    free = sum(not isinstance(size, int) for size in sizes)
    kernel, bias = heads.kernel(ctx), heads.bias(ctx)
    if free > 1 and ctx.runtime != "cpu":
        # Asking for sizes is what some delegates cannot do.
        y = ctx.op("MatMul", x, kernel)
        y = y if bias is None else ctx.op("Add", y, bias)
        return ctx.op(
            "Reshape", ctx.activation(head.activation, y), ctx.constant([0] * len(sizes) + [head.units, count])
        )
    # Gemm adds the bias and applies the activation in its own pass, but takes rows only.
    y = ctx.op("Gemm", x if len(sizes) == 1 else ctx.op("Reshape", x, ctx.constant([-1, width])), kernel, bias)
    return ctx.op("Reshape", ctx.activation(head.activation, y), _target(ctx, x, [head.units, count]))


def _batched(ctx: Context, heads: Affine, x: ir.Value) -> ir.Value:
    """(..., in) -> (rows, N·h) -> (N, rows, h) -> (N, rows, u) -> (rows, u, N)."""
    layer, head, count = heads.layer, heads.group.heads[0], len(heads.group.heads)
    z = ctx.op("MatMul", x, ctx.weight(layer.W))
    z = z if layer.b is None else ctx.op("Add", z, ctx.weight(layer.b))
    z = ctx.op("Reshape", z, ctx.constant([-1, count, layer.hidden_dim]))
    y = ctx.op(
        "MatMul", ctx.op("Transpose", z, perm=[1, 0, 2]), heads.kernel(ctx, lambda *all_: np.stack(all_), "batched")
    )
    bias = heads.bias(ctx, lambda *all_: np.stack(all_)[:, None, :], "batched")
    y = ctx.activation(head.activation, y if bias is None else ctx.op("Add", y, bias))
    y = ctx.op("Transpose", y, perm=[1, 2, 0])
    return y if len(ctx.shape(x)) == 2 else ctx.op("Reshape", y, _target(ctx, x, [head.units, count]))


def _target(ctx: Context, x: ir.Value, rest: list[int]) -> ir.Value:
    """The leading sizes of x followed by `rest`, for Reshape."""
    *sizes, _ = ctx.shape(x)
    if sum(not isinstance(size, int) for size in sizes) > 1:
        return ctx.op("Concat", ctx.op("Shape", x, start=0, end=len(sizes)), ctx.constant(rest), axis=0)
    return ctx.constant([*(size if isinstance(size, int) else -1 for size in sizes), *rest])
