"""MultiHead: y = stack([L_n(z_n)], axis=-1), z_n = x or the n-th slice of x W + b."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from mh_edge.layers import MultiHead, SeqSelfAttention
from mh_edge.rules import Case, rule
from mh_edge_tflite.context import Context, Inputs, Masks, Tensor, dense, reshape, sizes


def _model(masked: bool, layer: Any, *args: Any, steps: int | None = None, **options: Any) -> keras.Model:
    x = keras.Input((steps, 6), name="x")
    z = keras.layers.Masking()(x) if masked else x
    return keras.Model(x, MultiHead(layer, *args, **options)(z))


def _convolutions() -> keras.Model:
    kernels = [keras.layers.Conv1D(4, size, padding="same", activation="relu") for size in (3, 5, 7)]
    return _model(False, kernels)


def _bidirectional() -> keras.Model:
    return _model(True, keras.layers.Bidirectional(keras.layers.LSTM(3)), layer_num=2)


@rule(
    "tflite",
    MultiHead,
    cases=(
        Case(
            "dense",
            lambda: _model(False, keras.layers.Dense(3), 4),
            ops={"FULLY_CONNECTED": 4, "CONCATENATION": 1, "TRANSPOSE": 1},
            absent=("SHAPE", "PACK"),
        ),
        Case("lstm", lambda: _model(False, keras.layers.LSTM(3), 5), ops={"WHILE": 5}),
        Case("masked_lstm", lambda: _model(True, keras.layers.LSTM(3), 5), ops={"WHILE": 5}),
        Case("masked_gru", lambda: _model(True, keras.layers.GRU(3, return_sequences=True), 2), ops={"WHILE": 4}),
        Case("bidirectional", _bidirectional, ops={"WHILE": 4}),
        Case("convolutions", _convolutions, ops={"CONV_2D": 3}),
        Case(
            "hidden",
            lambda: _model(False, keras.layers.Dense(3), 4, hidden_dim=2),
            ops={"FULLY_CONNECTED": 5, "SPLIT": 1},
        ),
        Case(
            "hidden_no_bias",
            lambda: _model(True, keras.layers.LSTM(3), 2, hidden_dim=2, use_bias=False),
            ops={"WHILE": 2},
        ),
        Case("attention", lambda: _model(True, SeqSelfAttention(4), 2), ops={"SOFTMAX": 2}, absent=("SHAPE",)),
    ),
)
def lower(ctx: Context, layer: MultiHead, inputs: Inputs, masks: Masks) -> Tensor:
    """x: (batch, ..., in) -> the output shape of one head followed by the number of heads."""
    (x,) = inputs
    parts = [x] * layer.layer_num
    if layer.W is not None:
        parts = tf.split(dense(x, layer.W, layer.b), layer.layer_num, axis=-1)
    heads = [ctx.call(head, part, masks[0]) for head, part in zip(layer.layers, parts, strict=True)]
    return _stacked(heads)


def _stacked(heads: Sequence[Tensor]) -> Tensor:
    """N of (..., k) -> (..., k, N): joined along k, then N and k exchanged.

    Of the forms tried this one alone stays with XNNPACK, in a third of the time of PACK on the last axis.
    """
    if heads[0].shape.rank < 2 or heads[0].shape[-1] is None:
        return tf.stack(heads, axis=-1)
    *leading, width = sizes(heads[0])
    joined = reshape(tf.concat(heads, axis=-1), [*leading, len(heads), width])
    rank = len(leading) + 2
    return tf.transpose(joined, [*range(rank - 2), rank - 1, rank - 2])
