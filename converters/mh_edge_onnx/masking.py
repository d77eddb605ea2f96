"""Additive masks: 0 where a query sees a key, minus an amount where it does not.

Every reason to hide a key (a mask, a distance) is a part; `summed` counts the reasons, `any_of` takes one for all. For
runtimes whose plug-ins know neither Where nor Trilu nor Or (`--runtime plugins`), a part is 1 where the key is hidden,
made by arithmetic, and joining multiplies by minus the amount.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from mh_edge.layers.attention import ADDITIVE_MASK
from mh_edge_onnx.context import Context


def reasons(ctx: Context, query: ir.Value, key: ir.Value, mask: ir.Value | None, history_only: bool) -> ir.Value | None:
    """-10000·[key after query] - 10000·[key masked], None without either: (Tq, Tk) or (batch, 1, Tq or 1, Tk).

    They add up, as in the layers: both reasons give -20000, and a row that sees nothing is the softmax of what is
    hidden for one reason alone.
    """
    parts = []
    if history_only:
        parts.append(distant(ctx, query, key, ADDITIVE_MASK, after=0))
    if mask is not None:
        parts.append(unseen(ctx, mask, ADDITIVE_MASK, axes=[1, 2]))
    return summed(ctx, parts, ADDITIVE_MASK)


def unseen(ctx: Context, mask: ir.Value, amount: float, axes: Sequence[int] = ()) -> ir.Value:
    """The part of a mask (true is seen), with new axes of size one."""
    if mask.dtype is not ir.DataType.BOOL:
        mask = ctx.op("Cast", mask, to=ir.DataType.BOOL)
    if arithmetic(ctx):
        part = ctx.op("Sub", ctx.constant(1, "float32"), ctx.op("Cast", mask, to=ir.DataType.FLOAT))
    else:
        part = ctx.op("Where", mask, ctx.constant(0, "float32"), ctx.constant(-amount, "float32"))
    return ctx.op("Unsqueeze", part, ctx.constant(list(axes))) if axes else part


def distant(
    ctx: Context, query: ir.Value, key: ir.Value, amount: float, *, before: int | None = None, after: int | None = None
) -> ir.Value:
    """The part (Tq, Tk) of the keys more than `before` steps before the query, or more than `after` steps after it."""
    lengths = [ctx.shape(value)[1] for value in (query, key)]
    if arithmetic(ctx):
        return _distance_part(ctx, query, key, lengths, before, after)
    sizes = (
        ctx.constant(lengths)
        if all(isinstance(length, int) for length in lengths)
        else ctx.op("Concat", *(ctx.op("Shape", value, start=1, end=2) for value in (query, key)), axis=0)
    )
    hidden = ctx.op("ConstantOfShape", sizes, value=ir.tensor(np.array([-amount], "float32")))
    parts = []
    if after is not None:
        parts.append(ctx.op("Trilu", hidden, ctx.constant(after + 1), upper=1))
    if before is not None:
        parts.append(ctx.op("Trilu", hidden, ctx.constant(-before - 1), upper=0))
    return ctx.op("Add", *parts) if len(parts) == 2 else parts[0]


def arithmetic(ctx: Context) -> bool:
    """Whether parts are made by arithmetic alone: CoreML has no Where, WebGPU no Or, neither they nor NNAPI Trilu."""
    return ctx.runtime == "plugins"


def _distance_part(
    ctx: Context,
    query: ir.Value,
    key: ir.Value,
    lengths: Sequence[int | str | None],
    before: int | None,
    after: int | None,
) -> ir.Value:
    rows, columns = lengths
    if isinstance(rows, int) and isinstance(columns, int):
        distance = np.arange(columns) - np.arange(rows)[:, None]
        hidden = np.zeros(distance.shape, bool)
        hidden |= False if after is None else distance > after
        hidden |= False if before is None else distance < -before
        return ctx.constant(hidden, "float32")
    distances = ctx.op("Sub", _steps(ctx, key), ctx.op("Unsqueeze", _steps(ctx, query), ctx.constant([1])))
    parts = []
    zero, one = ctx.constant(0, "float32"), ctx.constant(1, "float32")
    if after is not None:
        parts.append(ctx.op("Clip", ctx.op("Sub", distances, ctx.constant(after, "float32")), zero, one))
    if before is not None:
        parts.append(ctx.op("Clip", ctx.op("Sub", ctx.constant(-before, "float32"), distances), zero, one))
    return ctx.op("Add", *parts) if len(parts) == 2 else parts[0]


def _steps(ctx: Context, x: ir.Value) -> ir.Value:
    """0, 1, 2, ... for each step of x: (batch, time, ...), as floats."""
    length = ctx.op("Squeeze", ctx.op("Shape", x, start=1, end=2), ctx.constant([0]))
    length = ctx.op("Cast", length, to=ir.DataType.FLOAT)
    return ctx.op("Range", ctx.constant(0, "float32"), length, ctx.constant(1, "float32"))


def summed(ctx: Context, parts: Sequence[ir.Value], amount: float) -> ir.Value | None:
    """The mask that subtracts the amount once for each reason; None without one."""
    return _joined(ctx, "Add", parts, amount)


def any_of(ctx: Context, parts: Sequence[ir.Value], amount: float) -> ir.Value | None:
    """The mask that subtracts the amount where there is a reason, however many; None without one."""
    return _joined(ctx, "Max" if arithmetic(ctx) else "Min", parts, amount)


def all_of(ctx: Context, first: ir.Value, second: ir.Value) -> ir.Value:
    """The part of what both parts hide."""
    return ctx.op("Mul" if arithmetic(ctx) else "Max", first, second)


def _joined(ctx: Context, op_type: str, parts: Sequence[ir.Value], amount: float) -> ir.Value | None:
    if not parts:
        return None
    # The small ones first, so that what is as large as the scores is made once.
    joined, *others = sorted(parts, key=lambda part: -len(ctx.shape(part)))
    for other in others:
        joined = ctx.op(op_type, joined, other)
    return ctx.op("Mul", joined, ctx.constant(-amount, "float32")) if arithmetic(ctx) else joined
