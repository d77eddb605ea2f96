"""What the attention layers share: scores, masks and softmax, in the form that delegates take whole.

XNNPACK takes no boolean operation. So a mask becomes numbers in its first step, takes its final rank, and is inverted
and put together with others as numbers: then all that XNNPACK leaves to the CPU comes before the first product, and the
attention is one partition.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from mh_edge.layers.attention import ADDITIVE_MASK
from mh_edge_tflite.context import Tensor, reshape, sizes

BOOLEAN = ("LOGICAL_AND", "LOGICAL_NOT", "LOGICAL_OR")
"""What no mask of an attention comes from: XNNPACK has none of them, nor reshapes booleans."""


def each_role(given: Sequence[Any]) -> tuple[Any, Any, Any]:
    """[query, key, value], or the one thing that serves all three; of inputs and of masks."""
    query, key, value = given if len(given) == 3 else (given[0], given[0], given[0])
    return query, key, value


def attend(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, seen: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """a = softmax(q kᵀ / sqrt(d) + mask) · seen, o = a v; returns (o, a).

    query: (..., Tq, d), key: (..., Tk, d), value: (..., Tk, d_v) -> o: (..., Tq, d_v), a: (..., Tq, Tk). The scale is
    on the query, which is smaller than the scores.
    """
    scores = tf.matmul(query * (1.0 / math.sqrt(key.shape[-1])), key, transpose_b=True)
    weights = tf.nn.softmax(scores if mask is None else scores + mask)
    weights = weights if seen is None else weights * seen
    return tf.matmul(weights, value), weights


def split_heads(x: Tensor, heads: int) -> Tensor:
    """(batch, time, width) -> (batch, head, time, width of a head)."""
    cut = reshape(x, [*sizes(x)[:2], heads, x.shape[-1] // heads])
    return tf.transpose(cut, (0, 2, 1, 3))


def join_heads(x: Tensor) -> Tensor:
    """The inverse of `split_heads`."""
    batch, heads, steps, width = sizes(x)
    return reshape(tf.transpose(x, (0, 2, 1, 3)), [batch, steps, heads * width])


def key_and_order_mask(
    query: Tensor, key: Tensor, key_mask: Tensor | None, history_only: bool, rank: int = 3
) -> Tensor | None:
    """−10000·[key after query, if history_only] − 10000·(1 − key_mask); None when nothing is masked.

    query: (batch, Tq, ...), key: (batch, Tk, ...), key_mask: (batch, Tk) -> broadcasts to scores of this rank,
    (batch, ..., Tq, Tk). The reasons are summed before they meet the scores, so that these are read once.
    """
    reasons = []
    if history_only:
        reasons.append(additive(positions(key, axis=-1) > positions(query, axis=-2)))
    if key_mask is not None:
        mask = additive(hidden(key_mask))
        reasons.append(reshape(mask, [sizes(mask)[0], *[1] * (rank - 2), sizes(mask)[1]]))
    return sum(reasons[1:], reasons[0]) if reasons else None


def hidden(mask: Tensor, *axes: int) -> Tensor:
    """1 where a Keras mask is false, else 0; anything but false or 0 is true.

    axes: where to put in axes of 1, one after the other, before XNNPACK begins: it takes no EXPAND_DIMS of free sizes.
    """
    shown = tf.cast(tf.cast(mask, tf.bool), tf.float32)
    for axis in axes:
        shown = tf.expand_dims(shown, axis)
    return 1.0 - shown


def additive(masked: Tensor, by: float = ADDITIVE_MASK) -> Tensor:
    """−by where masked, a boolean or 1, else 0."""
    return tf.cast(masked, tf.float32) * -by


def positions(x: Tensor, axis: int) -> Tensor:
    """0, 1, 2, ... for the steps of x: (batch, T, ...), along one of the last two axes of a score: (T, 1) or (1, T)."""
    steps = x.shape[1] if x.shape[1] is not None else tf.shape(x)[1]
    return tf.expand_dims(tf.range(steps), -3 - axis)


def pairs(query: Tensor, key: Tensor) -> Tensor:
    """(batch, Tq, d) and (batch, Tk, d) -> q + k of every two steps, (batch, Tq, Tk, d)."""
    batch, steps, width = sizes(query)
    return reshape(query, [batch, steps, 1, width]) + reshape(key, [batch, 1, sizes(key)[1], width])
