"""What the attention layers share: scores, additive masks and softmax, in the form that delegates take whole."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from mh_edge.layers.attention import ADDITIVE_MASK
from mh_edge_tflite.context import Tensor


def each_role(given: Sequence[Any]) -> tuple[Any, Any, Any]:
    """[query, key, value], or the one thing that serves all three; of inputs and of masks."""
    query, key, value = given if len(given) == 3 else (given[0], given[0], given[0])
    return query, key, value


def attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """a = softmax(q kᵀ / sqrt(d) + mask), o = a v; returns (o, a).

    query: (..., Tq, d), key: (..., Tk, d), value: (..., Tk, d_v) -> o: (..., Tq, d_v), a: (..., Tq, Tk). The scale is
    on the query, which is smaller than the scores.
    """
    scores = tf.matmul(query * (1.0 / math.sqrt(key.shape[-1])), key, transpose_b=True)
    weights = tf.nn.softmax(scores if mask is None else scores + mask)
    return tf.matmul(weights, value), weights


def key_and_order_mask(query: Tensor, key: Tensor, key_mask: Tensor | None, history_only: bool) -> Tensor | None:
    """−10000·[key after query, if history_only] − 10000·(1 − key_mask); None when nothing is masked.

    query: (batch, Tq, ...), key: (batch, Tk, ...), key_mask: (batch, Tk) -> broadcasts to (batch, Tq, Tk). The reasons
    are summed before they meet the scores, so that these are read once.
    """
    reasons = []
    if history_only:
        reasons.append(additive(positions(key, axis=-1) > positions(query, axis=-2)))
    if key_mask is not None:
        reasons.append(tf.expand_dims(additive(tf.logical_not(tf.cast(key_mask, tf.bool))), 1))
    return sum(reasons[1:], reasons[0]) if reasons else None


def additive(masked: Tensor) -> Tensor:
    """−10000 where masked, else 0."""
    return tf.cast(masked, tf.float32) * -ADDITIVE_MASK


def positions(x: Tensor, axis: int) -> Tensor:
    """0, 1, 2, ... for the steps of x: (batch, T, ...), along one of the last two axes of a score: (T, 1) or (1, T)."""
    steps = x.shape[1] if x.shape[1] is not None else tf.shape(x)[1]
    return tf.expand_dims(tf.range(steps), -3 - axis)
