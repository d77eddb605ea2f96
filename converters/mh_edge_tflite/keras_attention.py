"""What Keras's own attention layers share: y = softmax(scores, where visible) v, visible by masks that all must agree.

A row that sees nothing differs: keras.layers.MultiHeadAttention and GroupQueryAttention replace its scores, so its
weights are equal, or 0 where the layer drops weights out in training or hands them out; Attention and AdditiveAttention
subtract 1e9, so they are the softmax of what is left of the scores in float32.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from mh_edge_tflite.attention import additive, attend, hidden, join_heads, positions, split_heads
from mh_edge_tflite.context import Inputs, Masks, Tensor, dense, reshape, sizes

UNSEEN = 0.7 * float(np.finfo(np.float32).max)
"""Keras's large negative number, negated. Every score vanishes beside it, so that adding it is replacing."""

SUBTRACTED = 1e9
"""What Attention and AdditiveAttention subtract in float32."""


def unseen(mask: Tensor | None, *axes: int) -> Tensor | None:
    """`hidden`, if there is a mask."""
    return None if mask is None else hidden(mask, *axes)


def future(query: Tensor, key: Tensor) -> Tensor:
    """(Tq, Tk): the key is after the query."""
    return positions(key, axis=-1) > positions(query, axis=-2)


def hiding(reasons: Iterable[Tensor | None], by: float) -> Tensor | None:
    """The mask to add to scores: −by where one of the reasons holds; None without any.

    Each reason becomes numbers while it is small or a constant, and only then meets the others, in XNNPACK.
    """
    masks = [additive(reason, by) for reason in reasons if reason is not None]
    return functools.reduce(tf.minimum, masks) if masks else None


def lower_heads(layer: Any, given: Mapping[str, Any], query_mask: Tensor | None, window: int | None) -> Any:
    """y = (softmax(q kᵀ / sqrt(d), where visible) v · gate) Wo + bo for each head; q, k, v, gate = x W + b.

    given: the arguments of the call. window: a key is seen from fewer steps away. Returns y, or (y, weights).
    """
    query, value = given["query"], given["value"]
    key = value if given.get("key") is None else given["key"]
    explicit = given.get("attention_mask")
    reasons = (
        unseen(query_mask, 1, 3),
        unseen(given.get("value_mask"), 1, 1),
        unseen(given.get("key_mask"), 1, 1),
        future(query, value) if given.get("use_causal_mask") else None,
        None if window is None else tf.abs(positions(query, axis=-2) - positions(value, axis=-1)) >= window,
        unseen(explicit, *[-3] * (0 if explicit is None else 4 - explicit.shape.rank)),
    )
    q, k, v = (
        split_heads(_projected(x, part), part.kernel.shape[1])
        for x, part in ((query, layer._query_dense), (key, layer._key_dense), (value, layer._value_dense))
    )
    mask = hiding((_stacked(reason, q.shape[1], k.shape[1]) for reason in reasons if reason is not None), UNSEEN)
    config = layer.get_config()
    zero = config["dropout"] > 0 or bool(given.get("return_attention_scores"))
    output, weights = _attended(q, k, v, mask, zero)
    joined = join_heads(output)
    if config["use_gate"]:
        joined = joined * tf.sigmoid(_projected(query, layer._gate_dense))
    made = layer._output_dense
    kernel = tf.reshape(made.kernel, (joined.shape[-1], -1))
    y = dense(joined, kernel, None if made.bias is None else tf.reshape(made.bias, (-1,)))
    if len(made.kernel.shape) > 3:
        y = reshape(y, [*sizes(y)[:2], *made.kernel.shape[2:]])
    return (y, weights) if given.get("return_attention_scores") else y


def _projected(x: Tensor, part: keras.layers.EinsumDense) -> Tensor:
    """(batch, time, in) -> (batch, time, heads * width): the kernel (in, heads, width) as one product."""
    kernel = tf.reshape(part.kernel, (part.kernel.shape[0], -1))
    return dense(x, kernel, None if part.bias is None else tf.reshape(part.bias, (-1,)))


def _stacked(reason: Tensor, heads: int, served: int) -> Tensor:
    """A reason that broadcasts to (batch, head, Tq, Tk), for heads that stand one below the other as `_attended` puts
    them: (batch, head of key, count * Tq, Tk) or 1 in the place of any.
    """
    while reason.shape.rank < 4:
        reason = tf.expand_dims(reason, -3)
    count = heads // served
    if count == 1:
        return reason
    if reason.shape[1] != 1:
        batch, _, steps, keys = sizes(reason)
        return reshape(reason, [batch, served, count * steps, keys])
    return reason if reason.shape[2] == 1 else tf.concat([reason] * count, axis=2)


def _attended(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, zero: bool) -> tuple[Tensor, Tensor]:
    """o = a v, a = softmax(q kᵀ / sqrt(d) + mask), of (batch, head, time, width); returns (o, a).

    zero: whether hidden weights are 0 in a row that sees nothing, too. A head of key and value that serves several
    neighbouring heads of the query meets them all in one product: their steps stand one below the other, and nothing
    is repeated.
    """
    batch, heads, steps, width = sizes(query)
    if (served := key.shape[1]) < heads:
        query = reshape(query, [batch, served, heads // served * steps, width])
    seen = tf.maximum(mask, -1.0) + 1.0 if mask is not None and zero else None
    output, weights = attend(query, key, value, mask, seen)
    if served < heads:
        output = reshape(output, [batch, heads, steps, value.shape[3]])
        weights = reshape(weights, [batch, heads, steps, sizes(weights)[3]])
    return output, weights


def lower_scored(
    scores: Callable[[Any, Tensor, Tensor], Tensor], given: Mapping[str, Any], layer: Any, inputs: Inputs, masks: Masks
) -> Any:
    """y = softmax(scores(q, k) − 1e9·[not visible]) v, 0 where the query is masked; inputs: query, value[, key].

    scores: (layer, (batch, Tq, d), (batch, Tk, d)) -> (batch, Tq, Tk). Returns y, or (y, weights).
    """
    query, value, key = (*inputs, inputs[1])[:3]
    causal = future(query, key) if given.get("use_causal_mask") else None
    mask = hiding((unseen(masks[1], 1), causal), SUBTRACTED)
    found = scores(layer, query, key)
    weights = tf.nn.softmax(found if mask is None else found + mask)
    output = tf.matmul(weights, value)
    if masks[0] is not None:
        output = output * tf.expand_dims(tf.cast(masks[0], tf.float32), 2)
    return (output, weights) if given.get("return_attention_scores") else output
