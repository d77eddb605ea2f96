"""SeqWeightedAttention: s = x W + b - masks, a = exp(s - max s) / (sum + 1e-7), y = sum over time of a x."""

from __future__ import annotations

from typing import Any

import keras
import onnx_ir as ir

from mh_edge.layers import SeqWeightedAttention
from mh_edge.layers.attention import ADDITIVE_MASK
from mh_edge.layers.seq_weighted_attention import EPSILON
from mh_edge.rules import Case, rule
from mh_edge_onnx.context import Context, Inputs, Masks
from mh_edge_onnx.masking import summed, unseen
from mh_edge_onnx.reducing import reduced


def _model(masked: bool, **options: Any) -> keras.Model:
    x = keras.Input((None, 6), name="x")
    z = keras.layers.Masking()(x) if masked else x
    return keras.Model(x, SeqWeightedAttention(**options)(z))


@rule(
    "onnx",
    SeqWeightedAttention,
    cases=(
        Case("plain", lambda: _model(False), ops={"Exp": 1, "MatMul": 2}, absent=("Shape", "Reshape", "Softmax")),
        Case("masked", lambda: _model(True), ops={"Exp": 1, "MatMul": 2}, absent=("Shape", "Reshape", "Softmax")),
        Case("no_bias", lambda: _model(True, use_bias=False), ops={"Exp": 1}),
        Case("weights", lambda: _model(True, return_attention=True), ops={"Exp": 1}),
    ),
)
def lower(ctx: Context, layer: SeqWeightedAttention, inputs: Inputs, masks: Masks) -> tuple[ir.Value, ...]:
    """x: (batch, time, dim) -> (batch, dim), and the weights (batch, time) when asked for."""
    x, mask = inputs[0], masks[0]
    scores = ctx.op("MatMul", x, ctx.weight(layer.W))
    if layer.b is not None:
        scores = ctx.op("Add", scores, ctx.weight(layer.b))
    hidden = summed(ctx, [] if mask is None else [unseen(ctx, mask, ADDITIVE_MASK, axes=[2])], ADDITIVE_MASK)
    if hidden is not None:
        scores = ctx.op("Add", scores, hidden)
    # (batch, time, 1) throughout, so that the weighted sum is one product: (batch, 1, time) x (batch, time, dim).
    highest = reduced(ctx, "ReduceMax", scores, [1], keepdims=True)
    exponentials = ctx.op("Exp", ctx.op("Sub", scores, highest))
    total = ctx.op("ReduceSum", exponentials, ctx.constant([1]), keepdims=1)
    weights = ctx.op("Div", exponentials, ctx.op("Add", total, ctx.constant(EPSILON, "float32")))
    sums = ctx.op("MatMul", ctx.op("Transpose", weights, perm=[0, 2, 1]), x)
    y = ctx.op("Squeeze", sums, ctx.constant([1]))
    return (y, ctx.op("Squeeze", weights, ctx.constant([2]))) if layer.return_attention else (y,)
