"""MultiHead: y = stack([L_n(z_n)], axis=-1), z_n = x or the n-th slice of x W + b."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import onnx_ir as ir

from mh_edge.layers import MultiHead, SeqSelfAttention
from mh_edge.merging import Group, groups
from mh_edge.rules import Case, rule
from mh_edge_onnx.context import Context, Inputs, Masks
from mh_edge_onnx.merging import MERGES
from mh_edge_onnx.recurrent import LOOPS


def _model(masked: bool, layer: Any, *args: Any, **options: Any) -> keras.Model:
    x = keras.Input((None, 6), name="x")
    z = keras.layers.Masking()(x) if masked else x
    return keras.Model(x, MultiHead(layer, *args, **options)(z))


def _mixed(*layers: Any, **options: Any) -> keras.Model:
    return _model(False, list(layers), **options)


def _kernels(*sizes: int, filters: int = 4, **options: Any) -> list[keras.layers.Layer]:
    return [keras.layers.Conv1D(filters, size, padding="same", activation="relu", **options) for size in sizes]


def _image(layer: Any, *args: Any) -> keras.Model:
    x = keras.Input((None, None, 6), name="x")
    return keras.Model(x, MultiHead(layer, *args)(x))


_layers = keras.layers


@rule(
    "onnx",
    MultiHead,
    cases=(
        Case(
            "dense",
            lambda: _model(False, _layers.Dense(3, activation="relu"), 4),
            ops={"Gemm": 1},
            absent=("MatMul", "Unsqueeze"),
        ),
        Case("lstm", lambda: _model(False, _layers.LSTM(3), 5), ops={"LSTM": 1}, absent=("Concat", *LOOPS)),
        Case("masked_lstm", lambda: _model(True, _layers.LSTM(3), 5), ops={"LSTM": 1, "GatherND": 1}, absent=LOOPS),
        Case("wide_lstm", lambda: _model(True, _layers.LSTM(32), 2), ops={"LSTM": 2, "GatherND": 1}, absent=LOOPS),
        Case(
            "masked_gru",
            lambda: _model(True, _layers.GRU(3, return_sequences=True), 2),
            ops={"GRU": 1},
            absent=LOOPS,
        ),
        Case("blocks", lambda: _model(True, _layers.GRU(16), 3), ops={"GRU": 2}, absent=LOOPS),
        Case(
            "bidirectional",
            lambda: _model(True, _layers.Bidirectional(_layers.LSTM(3)), 2),
            ops={"LSTM": 1},
            absent=LOOPS,
        ),
        Case("convolutions", lambda: _mixed(*_kernels(3, 5, 7)), ops={"Conv": 1}, absent=("Shape", "Concat")),
        Case("large_kernels", lambda: _mixed(*_kernels(1, 3, 9, filters=64)), ops={"Conv": 3}, absent=("Shape",)),
        Case("image", lambda: _image(_layers.Conv2D(4, 3, strides=2, padding="same"), 3), ops={"Conv": 1}),
        Case(
            "different",
            lambda: _mixed(
                _layers.Dense(4), *_kernels(3), _layers.Dense(4), *_kernels(5), _layers.LSTM(4, return_sequences=True)
            ),
            ops={"Gemm": 1, "Conv": 1, "LSTM": 1},
        ),
        Case(
            "hidden",
            lambda: _model(False, _layers.Dense(3), 4, hidden_dim=2),
            ops={"Gemm": 1},
            absent=("Split", "MatMul"),
        ),
        Case(
            "hidden_batched",
            lambda: _model(False, _layers.Dense(32), 4, hidden_dim=1),
            ops={"MatMul": 2},
            absent=("Split", "Gemm"),
        ),
        Case(
            "hidden_no_bias",
            lambda: _model(True, _layers.LSTM(3), 2, hidden_dim=4, use_bias=False),
            ops={"LSTM": 1},
            absent=("Split", "MatMul"),
        ),
        Case(
            "hidden_narrow",
            lambda: _model(True, _layers.GRU(16), 3, hidden_dim=1),
            ops={"GRU": 2, "MatMul": 1},
            absent=("Split",),
        ),
        Case("attention", lambda: _model(True, SeqSelfAttention(4), 2), ops={"Softmax": 2}, absent=("Shape",)),
    ),
)
def lower(ctx: Context, layer: MultiHead, inputs: Inputs, masks: Masks) -> ir.Value:
    """x: (batch, ..., in) -> the output shape of one head followed by the number of heads.

    Heads that agree in everything but their weights are one operation where that is faster (mh_edge_onnx.merging).
    """
    found = [(group, _merged(ctx, layer, group, inputs[0], masks[0])) for group in groups(layer)]
    apart = [number for group, merged in found if merged is None for number in group.numbers]
    heads = dict(zip(apart, _apart(ctx, layer, apart, inputs[0], masks), strict=True))
    parts: list[ir.Value] = []
    order: list[int] = []
    for group, merged in found:
        parts += [ctx.op("Unsqueeze", heads[number], ctx.constant([-1])) for number in group.numbers if merged is None]
        parts += [] if merged is None else [merged]
        order += group.numbers
    stacked = parts[0] if len(parts) == 1 else ctx.op("Concat", *parts, axis=-1)
    if order == sorted(order):
        return stacked
    return ctx.op("Gather", stacked, ctx.constant(np.argsort(order)), axis=-1)


def _merged(ctx: Context, layer: MultiHead, group: Group, x: ir.Value, mask: ir.Value | None) -> ir.Value | None:
    """The outputs (..., heads of the group) of one operation; None where the heads stay apart."""
    merge = MERGES.get(group.kind or "")
    if len(group.heads) == 1 or merge is None or not ctx.merge:
        why = group.reason if ctx.merge else "merging is switched off"
    else:
        made = merge(ctx, layer, group, x, mask)
        if isinstance(made, ir.Value):
            return made
        why = made
    if layer.layer_num > 1:
        names = ", ".join(str(number) for number in group.numbers)
        ctx.chose(f"{type(group.heads[0]).__name__} apart: head {names}", why or "no merged form is known")
    return None


def _apart(ctx: Context, layer: MultiHead, numbers: Sequence[int], x: ir.Value, masks: Masks) -> list[ir.Value]:
    """The outputs of these heads, each for itself."""
    parts = [x] * layer.layer_num
    if layer.W is not None and numbers:
        hidden = ctx.op("MatMul", x, ctx.weight(layer.W))
        if layer.b is not None:
            hidden = ctx.op("Add", hidden, ctx.weight(layer.b))
        parts = [hidden]
        if layer.layer_num > 1:
            sizes = ctx.constant([layer.hidden_dim] * layer.layer_num)
            parts = list(ctx.ops("Split", hidden, sizes, outputs=layer.layer_num, axis=-1))
    return [ctx.call(layer.layers[number], (parts[number],), masks)[0] for number in numbers]
