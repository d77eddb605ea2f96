"""SeqSelfAttention: y_t = sum over t' of softmax(g(e[t, t']) - masks) x_t', with additive or multiplicative scores
e.
"""

from __future__ import annotations

from typing import Any

import keras
import onnx_ir as ir

from mh_edge.layers import SeqSelfAttention
from mh_edge.layers.attention import ADDITIVE_MASK
from mh_edge.layers.seq_self_attention import ADDITIVE, UNBOUNDED_WIDTH
from mh_edge.rules import Case, rule
from mh_edge_onnx.attention import pair_scores
from mh_edge_onnx.context import Context, Inputs, Masks
from mh_edge_onnx.masking import all_of, distant, summed, unseen


def _model(masked: bool, **options: Any) -> keras.Model:
    x = keras.Input((None, 6), name="x")
    z = keras.layers.Masking()(x) if masked else x
    return keras.Model(x, SeqSelfAttention(units=4, bias_initializer="normal", **options)(z))


@rule(
    "onnx",
    SeqSelfAttention,
    cases=(
        Case(
            "additive", lambda: _model(False), ops={"Softmax": 1, "Tanh": 1, "MatMul": 4}, absent=("Shape", "Reshape")
        ),
        Case("masked", lambda: _model(True), ops={"Softmax": 1, "Tanh": 1}, absent=("Shape", "Reshape")),
        Case(
            "multiplicative",
            lambda: _model(True, attention_type="multiplicative", attention_activation="sigmoid"),
            ops={"Softmax": 1, "MatMul": 3, "Sigmoid": 1},
            absent=("Shape", "Reshape"),
        ),
        Case("width", lambda: _model(True, attention_width=3), ops={"Softmax": 1, "Trilu": 2}),
        Case("history", lambda: _model(True, history_only=True), ops={"Softmax": 1, "Trilu": 1}),
        Case("history_width", lambda: _model(False, history_only=True, attention_width=4), ops={"Trilu": 2}),
        Case("no_bias", lambda: _model(True, use_additive_bias=False, use_attention_bias=False), ops={"Softmax": 1}),
        Case("weights", lambda: _model(True, return_attention=True), ops={"Softmax": 1}),
    ),
)
def lower(ctx: Context, layer: SeqSelfAttention, inputs: Inputs, masks: Masks) -> tuple[ir.Value, ...]:
    """x: (batch, time, dim) -> (batch, time, dim), and the weights (batch, time, time) when asked for."""
    x, mask = inputs[0], masks[0]
    scores = _additive(ctx, layer, x) if layer.attention_type == ADDITIVE else _multiplicative(ctx, layer, x)
    if layer.ba is not None:
        scores = ctx.op("Add", scores, ctx.weight(layer.ba))
    scores = ctx.activation(layer.attention_activation, scores)
    hidden = _hidden(ctx, layer, x, mask)
    if hidden is not None:
        scores = ctx.op("Add", scores, hidden)
    weights = ctx.op("Softmax", scores, axis=-1)
    y = ctx.op("MatMul", weights, x)
    return (y, weights) if layer.return_attention else (y,)


def _additive(ctx: Context, layer: SeqSelfAttention, x: ir.Value) -> ir.Value:
    """e[t, t'] = tanh(x_t Wt + x_t' Wx + bh) Wa"""
    # The bias goes in before the sum over pairs, where it costs time and not time²; addition order is the layer's
    # noise.
    of_key = ctx.op("MatMul", x, ctx.weight(layer.Wx))
    if layer.bh is not None:
        of_key = ctx.op("Add", of_key, ctx.weight(layer.bh))
    of_query = ctx.op("MatMul", x, ctx.weight(layer.Wt))
    return pair_scores(ctx, of_query, of_key, ctx.weight(layer.Wa))


def _multiplicative(ctx: Context, layer: SeqSelfAttention, x: ir.Value) -> ir.Value:
    """e[t, t'] = x_t Wa x_t'ᵀ"""
    return ctx.op("MatMul", ctx.op("MatMul", x, ctx.weight(layer.Wa)), ctx.op("Transpose", x, perm=[0, 2, 1]))


def _hidden(ctx: Context, layer: SeqSelfAttention, x: ir.Value, mask: ir.Value | None) -> ir.Value | None:
    """-10000·[t' outside the window] - 10000·[t and t' both masked].

    The window of t: lower <= t' < lower + width, lower = t - width // 2, or t - (width - 1) with history_only.
    """
    parts = []
    if (width := layer.attention_width) is not None:
        before = width - 1 if layer.history_only else width // 2
        unbounded = layer.history_only and width >= UNBOUNDED_WIDTH
        parts.append(distant(ctx, x, x, ADDITIVE_MASK, before=None if unbounded else before, after=width - 1 - before))
    if mask is not None:
        rows, columns = (unseen(ctx, mask, ADDITIVE_MASK, axes=[axis]) for axis in (2, 1))
        parts.append(all_of(ctx, rows, columns))
    return summed(ctx, parts, ADDITIVE_MASK)
