"""MultiHead: y = stack([L_n(z_n)], axis=-1), z_n = x or the n-th slice of x W + b."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from mh_edge.layers import MultiHead, SeqSelfAttention
from mh_edge.merging import groups
from mh_edge.rules import Case, rule
from mh_edge_tflite.context import Context, Inputs, Masks, Tensor, dense, reshape, sizes
from mh_edge_tflite.merging import merged


def _model(masked: bool, layer: Any, *args: Any, steps: int | None = None, **options: Any) -> keras.Model:
    x = keras.Input((steps, 6), name="x")
    z = keras.layers.Masking()(x) if masked else x
    return keras.Model(x, MultiHead(layer, *args, **options)(z))


def _hidden() -> keras.Model:
    return _model(False, keras.layers.Dense(3, bias_initializer="normal"), 4, hidden_dim=2)


def _convolutions() -> keras.Model:
    kernels = [keras.layers.Conv1D(4, size, padding="same", activation="relu") for size in (3, 5, 7)]
    return _model(False, kernels)


def _paddings() -> keras.Model:
    """Taps that lie apart, and of which no head has all."""
    kept = {"padding": "same", "bias_initializer": "normal"}
    return _model(False, [keras.layers.Conv1D(4, size, dilation_rate=step, **kept) for size, step in ((2, 1), (3, 2))])


def _far_apart() -> keras.Model:
    """One kernel for both would be mostly zeros."""
    return _model(False, [keras.layers.Conv1D(40, size, padding="same") for size in (1, 31)])


def _hidden_convolution() -> keras.Model:
    """The hidden layer's bias is not there beyond the ends, so it cannot be folded in."""
    model = _model(False, keras.layers.Conv1D(4, 3, padding="same"), 2, hidden_dim=3)
    model.layers[-1].b.assign([1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    return model


def _images() -> keras.Model:
    x = keras.Input((9, 8, 3), name="x")
    return keras.Model(x, MultiHead(keras.layers.Conv2D(4, 3, strides=2, padding="same"), 3)(x))


def _bidirectional() -> keras.Model:
    return _model(True, keras.layers.Bidirectional(keras.layers.LSTM(3)), layer_num=2)


def _several() -> keras.Model:
    """Heads that agree, in two groups, and one that is alone."""
    layers = keras.layers
    return _model(True, [layers.LSTM(3), layers.GRU(3), layers.LSTM(3), layers.SimpleRNN(3), layers.GRU(3)])


@rule(
    "tflite",
    MultiHead,
    cases=(
        Case(
            "dense",
            lambda: _model(False, keras.layers.Dense(3, activation="relu", bias_initializer="normal"), 4),
            ops={"FULLY_CONNECTED": 1, "RESHAPE": 1},
            absent=("RELU", "CONCATENATION", "TRANSPOSE"),
        ),
        Case("hidden", _hidden, ops={"FULLY_CONNECTED": 1, "RESHAPE": 1}, absent=("SPLIT",)),
        # Two products of 12 and 36 multiplications at each place, where one would take 108.
        Case("hidden_apart", lambda: _model(False, keras.layers.Dense(9), 2, hidden_dim=1), ops={"FULLY_CONNECTED": 2}),
        Case("joining", lambda: _model(False, keras.layers.Dense(3, activation="softmax"), 2), ops={"SOFTMAX": 2}),
        Case("convolutions", _convolutions, ops={"CONV_2D": 1, "RESHAPE": 1}, absent=("PAD", "TRANSPOSE")),
        Case("paddings", _paddings, ops={"CONV_2D": 1, "PAD": 0}),
        Case("causal", lambda: _model(False, keras.layers.Conv1D(4, 3, padding="causal"), 3), ops={"CONV_2D": 1}),
        Case("apart", _far_apart, ops={"CONV_2D": 2}),
        Case("hidden_convolution", _hidden_convolution, ops={"CONV_2D": 1, "FULLY_CONNECTED": 1}),
        Case("separable", lambda: _model(False, keras.layers.SeparableConv1D(4, 3), 3), ops={"CONV_2D": 1}),
        Case("images", _images, ops={"CONV_2D": 1, "RESHAPE": 1}),
        Case("depthwise", lambda: _model(False, keras.layers.DepthwiseConv1D(3), 2), ops={"DEPTHWISE_CONV_2D": 2}),
        Case("lstm", lambda: _model(False, keras.layers.LSTM(3), 5), ops={"WHILE": 1, "BATCH_MATMUL": 1}),
        Case("masked_lstm", lambda: _model(True, keras.layers.LSTM(3), 5), ops={"WHILE": 1, "BATCH_MATMUL": 1}),
        Case(
            "masked_gru",
            lambda: _model(True, keras.layers.GRU(3, return_sequences=True), 2),
            ops={"WHILE": 2, "BATCH_MATMUL": 4},
        ),
        Case(
            "backwards",
            lambda: _model(True, keras.layers.GRU(3, reset_after=False, go_backwards=True), 3),
            ops={"WHILE": 1, "BATCH_MATMUL": 2},
        ),
        Case(
            "short",
            lambda: _model(False, keras.layers.SimpleRNN(3, return_sequences=True), 3, steps=6),
            ops={"BATCH_MATMUL": 5},
            absent=("WHILE",),
        ),
        Case("bidirectional", _bidirectional, ops={"WHILE": 1, "BATCH_MATMUL": 1}),
        Case(
            "hidden_no_bias",
            lambda: _model(True, keras.layers.LSTM(3), 2, hidden_dim=2, use_bias=False),
            ops={"WHILE": 1, "FULLY_CONNECTED": 2},
        ),
        Case("several", _several, ops={"WHILE": 3, "BATCH_MATMUL": 2}),
        Case(
            "large", lambda: _model(False, keras.layers.SimpleRNN(400), 2), ops={"WHILE": 2}, absent=("BATCH_MATMUL",)
        ),
        Case("attention", lambda: _model(True, SeqSelfAttention(4), 2), ops={"SOFTMAX": 2}, absent=("SHAPE",)),
    ),
)
def lower(ctx: Context, layer: MultiHead, inputs: Inputs, masks: Masks) -> Tensor:
    """x: (batch, ..., in) -> the output shape of one head followed by the number of heads."""
    (x,) = inputs
    done: dict[int, Tensor] = {}
    for group in groups(layer) if ctx.merge else ():
        if (together := merged(ctx, layer, group, x, masks[0])) is not None:
            if len(group.numbers) == layer.layer_num:
                return together
            done |= zip(group.numbers, tf.unstack(together, axis=-1), strict=True)
    return _stacked(_apart(ctx, layer, x, masks[0], done))


def _apart(ctx: Context, layer: MultiHead, x: Tensor, mask: Tensor | None, done: Mapping[int, Tensor]) -> list[Tensor]:
    """What each head gives, those that are done already included."""
    parts = [x] * layer.layer_num
    if layer.W is not None:
        parts = tf.split(dense(x, layer.W, layer.b), layer.layer_num, axis=-1)
    return [
        done[number] if number in done else ctx.call(head, part, mask)
        for number, (head, part) in enumerate(zip(layer.layers, parts, strict=True))
    ]


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
