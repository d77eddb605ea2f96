"""MultiHead: y = stack([L_n(z_n)], axis=-1), z_n = x or the n-th slice of x W + b."""

from __future__ import annotations

from typing import Any

import keras
import onnx_ir as ir

from mh_edge.layers import MultiHead, SeqSelfAttention
from mh_edge.rules import Case, rule
from mh_edge_onnx.context import Context, Inputs, Masks
from mh_edge_onnx.recurrent import LOOPS


def _model(masked: bool, layer: Any, *args: Any, **options: Any) -> keras.Model:
    x = keras.Input((None, 6), name="x")
    z = keras.layers.Masking()(x) if masked else x
    return keras.Model(x, MultiHead(layer, *args, **options)(z))


def _convolutions() -> keras.Model:
    kernels = [keras.layers.Conv1D(4, size, padding="same", activation="relu") for size in (3, 5, 7)]
    return _model(False, kernels)


def _bidirectional() -> keras.Model:
    return _model(True, keras.layers.Bidirectional(keras.layers.LSTM(3)), layer_num=2)


@rule(
    "onnx",
    MultiHead,
    cases=(
        Case(
            "dense", lambda: _model(False, keras.layers.Dense(3), 4), ops={"MatMul": 4, "Concat": 1}, absent=("Shape",)
        ),
        Case("lstm", lambda: _model(False, keras.layers.LSTM(3), 5), ops={"LSTM": 5, "Concat": 1}, absent=LOOPS),
        Case(
            "masked_lstm", lambda: _model(True, keras.layers.LSTM(3), 5), ops={"LSTM": 5, "GatherND": 1}, absent=LOOPS
        ),
        Case(
            "masked_gru",
            lambda: _model(True, keras.layers.GRU(3, return_sequences=True), 2),
            ops={"GRU": 2},
            absent=LOOPS,
        ),
        Case("bidirectional", _bidirectional, ops={"LSTM": 2}, absent=LOOPS),
        Case("convolutions", _convolutions, ops={"Conv": 3}, absent=("Shape",)),
        Case("hidden", lambda: _model(False, keras.layers.Dense(3), 4, hidden_dim=2), ops={"MatMul": 5, "Split": 1}),
        Case(
            "hidden_no_bias",
            lambda: _model(True, keras.layers.LSTM(3), 2, hidden_dim=2, use_bias=False),
            ops={"LSTM": 2},
        ),
        Case("attention", lambda: _model(True, SeqSelfAttention(4), 2), ops={"Softmax": 2}, absent=("Shape",)),
    ),
)
def lower(ctx: Context, layer: MultiHead, inputs: Inputs, masks: Masks) -> ir.Value:
    """x: (batch, ..., in) -> the output shape of one head followed by the number of heads."""
    parts = [inputs] * layer.layer_num
    if layer.W is not None:
        hidden = ctx.op("MatMul", inputs[0], ctx.weight(layer.W))
        if layer.b is not None:
            hidden = ctx.op("Add", hidden, ctx.weight(layer.b))
        if layer.layer_num > 1:
            sizes = ctx.constant([layer.hidden_dim] * layer.layer_num)
            parts = [(part,) for part in ctx.ops("Split", hidden, sizes, outputs=layer.layer_num, axis=-1)]
        else:
            parts = [(hidden,)]
    heads = [ctx.call(head, part, masks)[0] for head, part in zip(layer.layers, parts, strict=True)]
    return ctx.op("Concat", *(ctx.op("Unsqueeze", head, ctx.constant([-1])) for head in heads), axis=-1)
