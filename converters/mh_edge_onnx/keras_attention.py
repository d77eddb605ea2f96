"""What Keras's own attention layers share: y = softmax(scores, where visible) v, visible by masks that all must agree.

A row that sees nothing differs from layer to layer: MultiHeadAttention and GroupQueryAttention replace its scores by
one number, so that its weights are equal, or make them 0 where the layer drops weights out in training or hands them
out; Attention and AdditiveAttention subtract 1e9, so it is the softmax of what float32 leaves of its scores.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import onnx_ir as ir

from mh_edge_onnx.attention import attend, linear
from mh_edge_onnx.context import Context, Inputs, Masks
from mh_edge_onnx.masking import any_of, distant, unseen

REPLACED = 0.7 * 3.38953e38
"""What hidden scores become, negated; any score vanishes beside it, so that adding is replacing.

Source: keras 3.15, backend/tensorflow/nn.py, dot_product_attention.
"""

SUBTRACTED = 1e9
"""Source: keras 3.15, layers/attention/attention.py."""


def lower_heads(ctx: Context, layer: Any) -> tuple[ir.Value, ...]:
    """y = (softmax(q kᵀ / sqrt(d), where visible) v · gate) Wo + bo for each head; q, k, v, gate = x W + b.

    query: (batch, Tq, _), value: (batch, Tk, _) -> (batch, Tq, *output_shape), and the weights (batch, heads, Tq, Tk)
    when asked for.
    """
    given, config = ctx.arguments, layer.get_config()
    query, value = given["query"], given["value"]
    key = value if given.get("key") is None else given["key"]
    weights = bool(given.get("return_attention_scores"))
    mask, may_hide_rows = _visible(ctx, query, value, config["sliding_window"])
    zero = may_hide_rows and (config["dropout"] > 0 or weights)
    heads, served = (dense.kernel.shape[1] for dense in (layer._query_dense, layer._key_dense))
    output, scores = attend(
        ctx,
        *(_project(ctx, x, dense) for x, dense in _pairs(layer, query, key, value)),
        heads=heads,
        shared=heads // served,
        mask=mask,
        uncertain=given.get("attention_mask") is not None,
        hidden_is_zero=REPLACED if zero else None,
        weights=weights,
    )
    if config["use_gate"]:
        output = ctx.op("Mul", output, ctx.op("Sigmoid", _project(ctx, query, layer._gate_dense)))
    y = _project(ctx, output, layer._output_dense, inner=2)
    if len(shape := layer._output_dense.kernel.shape[2:]) > 1:
        y = ctx.op("Reshape", y, ctx.constant([0, 0, *shape]))
    return (y,) if scores is None else (y, scores)


def _pairs(layer: Any, query: ir.Value, key: ir.Value, value: ir.Value) -> list[tuple[ir.Value, Any]]:
    return [(query, layer._query_dense), (key, layer._key_dense), (value, layer._value_dense)]


def _project(ctx: Context, x: ir.Value, dense: keras.layers.EinsumDense, inner: int = 1) -> ir.Value:
    """x W + b with the kernel's first `inner` axes and its last ones each as one: (..., in) -> (..., out)."""

    def flat(kernel: np.ndarray) -> np.ndarray:
        return kernel.reshape(int(np.prod(kernel.shape[:inner])), -1)

    kernel = ctx.weight(dense.kernel, flat, "flat")
    bias = None if dense.bias is None else ctx.weight(dense.bias, np.ravel, "flat")
    return linear(ctx, x, kernel, bias)


def _visible(ctx: Context, query: ir.Value, value: ir.Value, window: int | None) -> tuple[ir.Value | None, bool]:
    """The additive mask of one call, and whether a query may see nothing."""
    given = ctx.arguments
    user = given.get("attention_mask")
    # Keras joins its own masks, (batch, Tq, Tk), with the user's before it adds the axis of heads to them, and does not
    # add it where the user's mask has one.
    heads_axis = [] if user is not None and len(ctx.shape(user)) == 4 else [1]
    # Value and key often carry one and the same mask.
    own = dict.fromkeys([(given.get("query_mask"), -1), (given.get("value_mask"), -2), (given.get("key_mask"), -2)])
    parts = [
        unseen(ctx, mask, REPLACED, axes=[*heads_axis, len(heads_axis) + 3 + axis])
        for mask, axis in own
        if mask is not None
    ]
    if user is not None:
        parts.append(unseen(ctx, user, REPLACED, axes=[1] if len(ctx.shape(user)) == 3 else []))
    may_hide_rows = bool(parts) or window is not None
    causal = bool(given.get("use_causal_mask"))
    if causal or window is not None:
        reach = None if window is None else window - 1
        parts.append(distant(ctx, query, value, REPLACED, before=reach, after=0 if causal else reach))
    return any_of(ctx, parts, REPLACED), may_hide_rows


def lower_scored(
    ctx: Context,
    inputs: Inputs,
    masks: Masks,
    *,
    scores: Callable[[ir.Value, ir.Value], ir.Value] | None = None,
    scale: ir.Value | None = None,
) -> tuple[ir.Value, ...]:
    """y = softmax(scores(q, k) - 1e9·[hidden]) v, 0 where the query is masked, of [query, value, key = value].

    scores: (batch, Tq, d), (batch, Tk, d) -> (batch, Tq, Tk); None is scale q kᵀ. Returns y, and the weights when asked
    for.
    """
    query, value, key = (*inputs, inputs[1])[:3]
    of_query, of_value = masks[0], masks[1]
    several = bool(ctx.arguments.get("return_attention_scores"))
    parts = [] if of_value is None else [unseen(ctx, of_value, SUBTRACTED, axes=[1, 2] if scores is None else [1])]
    if ctx.arguments.get("use_causal_mask"):
        parts.append(distant(ctx, query, value, SUBTRACTED, after=0))
    mask = any_of(ctx, parts, SUBTRACTED)
    if scores is None:
        scaled = query if scale is None else ctx.op("Mul", query, scale)
        y, weights = attend(ctx, scaled, key, value, scale=1.0, mask=mask, weights=several)
    else:
        found = scores(query, key)
        weights = ctx.op("Softmax", found if mask is None else ctx.op("Add", found, mask), axis=-1)
        y = ctx.op("MatMul", weights, value)
    if of_query is not None:
        kept = ctx.op("Unsqueeze", ctx.op("Cast", of_query, to=ir.DataType.FLOAT), ctx.constant([2]))
        y = ctx.op("Mul", y, kept)
    return (y, weights) if several and weights is not None else (y,)
