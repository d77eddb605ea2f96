"""SeqSelfAttention: y = softmax(g(e) − masks) x, e = tanh(x_t Wt + x_t' Wx + bh) Wa + ba or x_t Wa x_t'ᵀ + ba."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from mh_edge.layers import SeqSelfAttention
from mh_edge.rules import Case, rule
from mh_edge_tflite.attention import BOOLEAN, additive, hidden, pairs, positions
from mh_edge_tflite.context import Context, Inputs, Masks, Tensor, dense


def _model(masked: bool, **options: Any) -> keras.Model:
    x = keras.Input((None, 6), name="x")
    z = keras.layers.Masking()(x) if masked else x
    return keras.Model(x, SeqSelfAttention(4, bias_initializer="normal", **options)(z))


@rule(
    "tflite",
    SeqSelfAttention,
    cases=(
        Case("additive", lambda: _model(False), ops={"SOFTMAX": 1, "TANH": 1}, absent=("SHAPE",)),
        Case(
            "masked",
            lambda: _model(True, return_attention=True),
            ops={"SOFTMAX": 1, "CAST": 1},
            absent=("SHAPE", *BOOLEAN),
        ),
        Case("window", lambda: _model(True, attention_width=3), ops={"SOFTMAX": 1}),
        Case("history", lambda: _model(True, history_only=True, attention_activation="sigmoid"), ops={"SOFTMAX": 1}),
        Case(
            "multiplicative",
            lambda: _model(True, attention_type="multiplicative"),
            ops={"SOFTMAX": 1},
            absent=("TANH",),
        ),
        Case("no_bias", lambda: _model(True, use_additive_bias=False, use_attention_bias=False), ops={"SOFTMAX": 1}),
    ),
)
def lower(ctx: Context, layer: SeqSelfAttention, inputs: Inputs, masks: Masks) -> Any:
    """x: (batch, time, dim) -> (batch, time, dim), and the weights (batch, time, time) if asked."""
    del ctx
    (x,) = inputs
    # The masks before the first product: what XNNPACK leaves to the CPU does not part the rest.
    reasons = []
    if layer.attention_width is not None:
        reasons.append(additive(_outside(x, layer.attention_width, layer.history_only)))
    if masks[0] is not None:
        reasons.append(hidden(masks[0], 2) * additive(hidden(masks[0], 1)))
    scores = layer.attention_activation(_additive(layer, x) if layer.Wt is not None else _multiplicative(layer, x))
    for reason in reasons:
        scores = scores + reason
    weights = tf.nn.softmax(scores)
    output = tf.matmul(weights, x)
    return [output, weights] if layer.return_attention else output


def _additive(layer: SeqSelfAttention, x: Tensor) -> Tensor:
    hidden = pairs(dense(x, layer.Wt, layer.bh), dense(x, layer.Wx))
    return tf.squeeze(dense(tf.tanh(hidden), layer.Wa, layer.ba), -1)


def _multiplicative(layer: SeqSelfAttention, x: Tensor) -> Tensor:
    scores = tf.matmul(dense(x, layer.Wa), x, transpose_b=True)
    return scores if layer.ba is None else scores + tf.convert_to_tensor(layer.ba)


def _outside(x: Tensor, width: int, history_only: bool) -> Tensor:
    """(time, time): whether step t' lies outside the window of step t."""
    lower_end = positions(x, axis=-2) - (width - 1 if history_only else width // 2)
    keys = positions(x, axis=-1)
    return tf.logical_or(keys < lower_end, keys >= lower_end + width)
