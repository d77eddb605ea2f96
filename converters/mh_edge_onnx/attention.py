"""What the attention rules share: y = softmax(scale q kᵀ + mask) v for several heads, in the form that suits the
runtime.

cpu, cuda: the Attention operation of opset 23, one kernel on both (plug-ins take it off the device, older runtimes do
not know it). On the CPU a layer takes 1.3, 1.1 and 1.03 times as long as its matrix products alone at width 64, 256 and
768. Three MatMuls before it are no slower than one three times as wide and a Split; Gemm is none faster. Elsewhere, and
where the weights are an output: MatMul, Softmax, MatMul. Without a mask, from `FLASH_TIME` steps on: ONNX Runtime's own
operation.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import onnx_ir as ir

from mh_edge_onnx.context import Context
from mh_edge_onnx.reducing import reduced

ATTENTION_OPSET = 23
"""First opset with the Attention operation."""

FUSED = ("cpu", "cuda")
"""Runtimes on which that operation is one kernel that stays on the device."""

FLASH_TIME = 384
"""Fixed steps of query and key from which com.microsoft.MultiHeadAttention, computed in tiles on the CPU while there is
no mask, takes less time than Attention: at width 64 .99 and .61 of it at 384 steps (batch 1 and 8), .76 and .63 at 512,
but 1.20 and .68 at 256, 1.24 and .79 at 192; at width 256 .84 and .85 at 384, .98 and .96 at 256; at width 768 .93 and
.95 at 512. One thread. The batch is often free, so the limit is where batch 1 loses nothing.
"""

DENORMALS = ("session.set_denormal_as_zero", "1")
"""The softmax of a masked score underflows, which a processor computes many times slower than it computes zero: a
layer with both masks takes 2.3 and 1.5 times as long as without at width 64 and 256, with this option 1.20 and 1.10.
Hiding by 40 where a bound of the scores allows it needs no option (1.31 and 1.14 either way), but exp(-40) of a large
hidden value is not nothing, as exp(-10000) is.
"""


def three(inputs: Sequence[ir.Value]) -> tuple[ir.Value, ir.Value, ir.Value]:
    """(query, key, value); one tensor serves as all three."""
    query, key, value = inputs if len(inputs) == 3 else (inputs[0],) * 3
    return query, key, value


def key_mask(masks: Sequence[ir.Value | None]) -> ir.Value | None:
    """The only mask that acts: the key's."""
    return masks[1] if len(masks) == 3 else masks[0]


def linear(ctx: Context, x: ir.Value, kernel: ir.Value, bias: ir.Value | None) -> ir.Value:
    """x W + b"""
    product = ctx.op("MatMul", x, kernel)
    return product if bias is None else ctx.op("Add", product, bias)


def pair_scores(ctx: Context, query: ir.Value, key: ir.Value, kernel: ir.Value) -> ir.Value:
    """tanh(q_t + k_t') w for every pair: (batch, Tq, d), (batch, Tk, d), w: (d, 1) -> (batch, Tq, Tk)."""
    pairs = ctx.op("Add", ctx.op("Unsqueeze", query, ctx.constant([2])), ctx.op("Unsqueeze", key, ctx.constant([1])))
    return ctx.op("Squeeze", ctx.op("MatMul", ctx.op("Tanh", pairs), kernel), ctx.constant([3]))


def attend(
    ctx: Context,
    query: ir.Value,
    key: ir.Value,
    value: ir.Value,
    *,
    heads: int | None = None,
    shared: int = 1,
    scale: float | None = None,
    mask: ir.Value | None = None,
    uncertain: bool = False,
    hidden_is_zero: float | None = None,
    weights: bool = False,
) -> tuple[ir.Value, ir.Value | None]:
    """query: (batch, Tq, heads·d), key: (batch, Tk, heads·d / shared), value: (batch, Tk, heads·e / shared) ->
    (batch, Tq, heads·e), and with `weights` the softmax: (batch, heads, Tq, Tk), without `heads` (batch, Tq, Tk).

    shared: how many neighbouring heads of the query one head of key and value serves. scale: 1 / sqrt(d) unless told.
    mask: added to the scores, (Tq, Tk) or (batch or 1, heads or 1, Tq or 1, Tk or 1); uncertain: whether a size that is
    not known may be 1 too. hidden_is_zero: what the mask subtracts, where a row that sees nothing shall be 0.
    """
    if mask is not None and ctx.runtime == "cpu":
        ctx.session_option(*DENORMALS)
    scale = 1.0 / math.sqrt(width(ctx, query) // (heads or 1)) if scale is None else scale
    seen = None if mask is None or hidden_is_zero is None else _seen(ctx, mask, hidden_is_zero)
    if (
        ctx.opset >= ATTENTION_OPSET
        and ctx.runtime in FUSED
        and not weights
        and len(ctx.shape(query)) == 3
        and (shared == 1 or ctx.runtime == "cpu")
        and (seen is None or len(ctx.shape(seen)) == 2 or ctx.shape(seen)[1] == 1)
    ):
        if mask is not None and (uncertain or 1 in ctx.shape(mask)[-2:]):
            mask = _whole(ctx, mask, query, key)
        count = heads or 1
        if mask is None and shared == 1 and _flashes(ctx, query, key):
            return _flash(ctx, query, key, value, count, scale), None
        joined = ctx.op(
            "Attention", query, key, value, mask, q_num_heads=count, kv_num_heads=count // shared, scale=scale
        )
        if seen is not None:
            joined = ctx.op("Mul", joined, _headless(ctx, reduced(ctx, "ReduceMax", seen, [-1], keepdims=True)))
        return joined, None
    if scale != 1.0:
        query = ctx.op("Mul", query, ctx.constant(scale, "float32"))
    if heads is None:
        mask, seen = (None if one is None else _headless(ctx, one) for one in (mask, seen))
        q, k, v = query, key, value
    else:
        q, k, v = (_split(ctx, x, heads, count) for x, count in ((query, 1), (key, shared), (value, shared)))
    rank = len(ctx.shape(k))
    scores = ctx.op("MatMul", q, ctx.op("Transpose", k, perm=[*range(rank - 2), rank - 1, rank - 2]))
    softmax = ctx.op("Softmax", scores if mask is None else ctx.op("Add", scores, mask), axis=-1)
    if seen is not None:
        softmax = ctx.op("Mul", softmax, seen)
    joined = ctx.op("MatMul", softmax, v)
    if heads is not None:
        size = width(ctx, value) * shared
        joined = ctx.op("Reshape", ctx.op("Transpose", joined, perm=[0, 2, 1, 3]), ctx.constant([0, 0, size]))
    return joined, softmax if weights else None


def _flashes(ctx: Context, query: ir.Value, key: ir.Value) -> bool:
    lengths = [ctx.shape(value)[1] for value in (query, key)]
    return ctx.runtime == "cpu" and all(isinstance(length, int) and length >= FLASH_TIME for length in lengths)


def _flash(ctx: Context, query: ir.Value, key: ir.Value, value: ir.Value, heads: int, scale: float) -> ir.Value:
    ctx.chose("ONNX Runtime's own attention", f"at least {FLASH_TIME} steps and no mask: it computes them in tiles")
    shape = [*ctx.shape(query)[:2], width(ctx, value)]
    return ctx.own_op("MultiHeadAttention", query, key, value, shape=shape, num_heads=heads, scale=scale)


def _seen(ctx: Context, mask: ir.Value, amount: float) -> ir.Value:
    """1 where the mask adds nothing, 0 where it subtracts the amount."""
    return ctx.op("Add", ctx.op("Div", mask, ctx.constant(amount, "float32")), ctx.constant(1, "float32"))


def _headless(ctx: Context, mask: ir.Value) -> ir.Value:
    """Without the axis of heads, where there is one."""
    return ctx.op("Squeeze", mask, ctx.constant([1])) if len(ctx.shape(mask)) == 4 else mask


def _whole(ctx: Context, mask: ir.Value, query: ir.Value, key: ir.Value) -> ir.Value:
    """The mask as large as the scores: the Attention operation broadcasts over batch and heads alone."""
    one, sizes = ctx.constant([1]), [ctx.shape(value)[1] for value in (query, key)]
    if all(isinstance(size, int) for size in sizes):
        return ctx.op("Expand", mask, ctx.constant([1, 1, *sizes]))
    lengths = [ctx.op("Shape", value, start=1, end=2) for value in (query, key)]
    return ctx.op("Expand", mask, ctx.op("Concat", one, one, *lengths, axis=0))


def _split(ctx: Context, x: ir.Value, heads: int, shared: int) -> ir.Value:
    """(batch, time, heads / shared · d) -> (batch, heads, time, d), each head `shared` times."""
    own = heads // shared
    cut = ctx.op("Reshape", x, ctx.constant([0, 0, own, width(ctx, x) // own]))
    cut = ctx.op("Transpose", cut, perm=[0, 2, 1, 3])
    if shared == 1:
        return cut
    return ctx.op("Gather", cut, ctx.constant([head // shared for head in range(heads)]), axis=1)


def width(ctx: Context, x: ir.Value) -> int:
    """The size of the last axis, which every attention layer knows."""
    size = ctx.shape(x)[-1]
    if not isinstance(size, int):
        raise TypeError(f"the width of an attention input is {size}, it has to be known.")
    return size
