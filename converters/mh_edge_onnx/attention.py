"""What the attention rules share: additive masks and softmax(q kᵀ / sqrt(d) + mask) v in the form that suits the
runtime.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from mh_edge.layers.attention import ADDITIVE_MASK
from mh_edge_onnx.context import Context

ATTENTION_OPSET = 23
"""First opset with the Attention operation, one fused kernel in ONNX Runtime on the CPU."""


def three(inputs: Sequence[ir.Value]) -> tuple[ir.Value, ir.Value, ir.Value]:
    """(query, key, value); one tensor serves as all three."""
    query, key, value = inputs if len(inputs) == 3 else (inputs[0],) * 3
    return query, key, value


def key_mask(masks: Sequence[ir.Value | None]) -> ir.Value | None:
    """The only mask that acts: the key's."""
    return masks[1] if len(masks) == 3 else masks[0]


def additive(ctx: Context, mask: ir.Value) -> ir.Value:
    """0 where the boolean mask holds, -10000 elsewhere, of the same shape."""
    return ctx.op("Where", mask, ctx.constant(0.0, "float32"), ctx.constant(-ADDITIVE_MASK, "float32"))


def square(ctx: Context, query: ir.Value, key: ir.Value) -> ir.Value:
    """(Tq, Tk) filled with -10000, from query: (batch, Tq, _) and key: (batch, Tk, _)."""
    if all(isinstance(ctx.shape(value)[1], int) for value in (query, key)):
        sizes = ctx.constant([ctx.shape(query)[1], ctx.shape(key)[1]])
    else:
        sizes = ctx.op("Concat", *(ctx.op("Shape", value, start=1, end=2) for value in (query, key)), axis=0)
    fill = ir.tensor(np.array([-ADDITIVE_MASK], "float32"))
    return ctx.op("ConstantOfShape", sizes, value=fill)


def _rows(ctx: Context, query: ir.Value) -> ir.Value:
    """The shape (1, 1, Tq, 1)."""
    one, length = ctx.constant([1]), ctx.shape(query)[1]
    if isinstance(length, int):
        return ctx.constant([1, 1, length, 1])
    return ctx.op("Concat", one, one, ctx.op("Shape", query, start=1, end=2), one, axis=0)


def later(ctx: Context, query: ir.Value, key: ir.Value) -> ir.Value:
    """(Tq, Tk): -10000 where the key comes after the query, else 0."""
    return ctx.op("Trilu", square(ctx, query, key), ctx.constant(1), upper=1)


def band(ctx: Context, x: ir.Value, before: int, after: int) -> ir.Value:
    """(T, T): -10000 where step t' lies outside t - before <= t' <= t + after, else 0."""
    full = square(ctx, x, x)
    right = ctx.op("Trilu", full, ctx.constant(after + 1), upper=1)
    left = ctx.op("Trilu", full, ctx.constant(-before - 1), upper=0)
    return ctx.op("Add", right, left)


def attend(
    ctx: Context,
    query: ir.Value,
    key: ir.Value,
    value: ir.Value,
    *,
    heads: int,
    mask: ir.Value | None,
    history_only: bool,
    weights: bool = False,
) -> tuple[ir.Value, ir.Value | None]:
    """query: (batch, Tq, heads·d), key: (batch, Tk, heads·d), value: (batch, Tk, heads·e), mask: (batch, Tk) or None
    -> (batch, Tq, heads·e), and with `weights` the softmax: (batch, heads, Tq, Tk).

    The masks add up, as in the layers: both reasons give -20000, and a fully masked row is the softmax of its raw
    scores.
    """
    fused = ctx.opset >= ATTENTION_OPSET and ctx.runtime == "cpu" and not weights
    bias = later(ctx, query, key) if history_only else None
    if mask is not None:
        hidden = ctx.op("Unsqueeze", additive(ctx, mask), ctx.constant([1, 2]))
        if bias is None and fused:
            # The operation does not broadcast over queries.
            hidden = ctx.op("Expand", hidden, _rows(ctx, query))
        bias = hidden if bias is None else ctx.op("Add", bias, hidden)
    if fused:
        return ctx.op("Attention", query, key, value, bias, q_num_heads=heads, kv_num_heads=heads), None
    split = [_split(ctx, part, heads) for part in (query, key, value)]
    scores = ctx.op("MatMul", split[0], ctx.op("Transpose", split[1], perm=[0, 1, 3, 2]))
    width = ctx.shape(query)[2]
    scores = ctx.op("Mul", scores, ctx.constant(1.0 / math.sqrt(_known(width) // heads), "float32"))
    if bias is not None:
        scores = ctx.op("Add", scores, bias)
    softmax = ctx.op("Softmax", scores, axis=-1)
    joined = ctx.op("Transpose", ctx.op("MatMul", softmax, split[2]), perm=[0, 2, 1, 3])
    size = _known(ctx.shape(value)[2])
    return ctx.op("Reshape", joined, ctx.constant([0, 0, size])), softmax if weights else None


def _split(ctx: Context, x: ir.Value, heads: int) -> ir.Value:
    """(batch, time, heads·d) -> (batch, heads, time, d)."""
    cut = ctx.op("Reshape", x, ctx.constant([0, 0, heads, _known(ctx.shape(x)[2]) // heads]))
    return ctx.op("Transpose", cut, perm=[0, 2, 1, 3])


def _known(size: int | str | None) -> int:
    if not isinstance(size, int):
        raise TypeError(f"the width of an attention input is {size}, it has to be known.")
    return size
