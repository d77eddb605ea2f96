"""What the attention layers share: additive masks, a softmax in a wide enough type, and [query, key, value] inputs."""

from __future__ import annotations

import math
import warnings
from typing import Any

import keras
from keras import ops

Shape = tuple[int | None, ...]

ADDITIVE_MASK = 10000.0
"""Subtracted from a score that shall not count, once for each reason.

It is finite, so that a row in which every key is masked becomes the softmax of its raw scores instead of NaN.
"""


def attend(query: Any, key: Any, value: Any, key_mask: Any, history_only: bool) -> tuple[Any, Any]:
    """(a v, a) with a = softmax(q kᵀ / sqrt(d) − 10000·[key after query] − 10000·(1 − key_mask)).

    query: (..., Tq, d), key: (..., Tk, d), value: (..., Tk, d_v), key_mask: None or broadcasting to (..., 1, Tk)
    -> a v: (..., Tq, d_v), a: (..., Tq, Tk), both in the type of value.
    """
    keys_last = (*range(len(key.shape) - 2), len(key.shape) - 1, len(key.shape) - 2)
    scores = widen(ops.matmul(query, ops.transpose(key, keys_last)) / math.sqrt(key.shape[-1]))
    if history_only:
        after = positions(scores, axis=-1) > positions(scores, axis=-2)
        scores = scores - ADDITIVE_MASK * ops.cast(after, scores.dtype)
    if key_mask is not None:
        scores = scores - ADDITIVE_MASK * (1.0 - ops.cast(key_mask, scores.dtype))
    weights = ops.cast(softmax(scores), value.dtype)
    return ops.matmul(weights, value), weights


def softmax(scores: Any) -> Any:
    """Over the last axis, also of a single score: a sequence of length one is no mistake, though Keras warns of it."""
    if scores.shape[-1] != 1:
        return ops.softmax(scores, axis=-1)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="You are using a softmax over axis")
        return ops.softmax(scores, axis=-1)


def widen(scores: Any) -> Any:
    """The scores in float32 if they are narrower: beside -10000 a float16 counts in steps of 8, a bfloat16 of 64."""
    narrow = keras.backend.standardize_dtype(scores.dtype) in ("float16", "bfloat16")
    return ops.cast(scores, "float32") if narrow else scores


def positions(scores: Any, axis: int) -> Any:
    """0, 1, 2, ... along one of the last two axes (-2: query, -1: key), as (T, 1) or (1, T)."""
    # expand_dims: indexing with None on a free length needs the Flex delegate in TFLite
    return ops.expand_dims(ops.arange(ops.shape(scores)[axis], dtype="int32"), axis=-3 - axis)


def query_key_value(owner: str, inputs: Any) -> tuple[Any, Any, Any]:
    """One tensor (or shape) three times, or the three of a list; ValueError for a list of another length."""
    if not _is_several(inputs):
        return inputs, inputs, inputs
    if len(inputs) != 3:
        raise ValueError(f"{owner}: got {len(inputs)} inputs; give one tensor, or the list [query, key, value].")
    return inputs[0], inputs[1], inputs[2]


def query_key_value_shapes(owner: str, input_shape: Any) -> tuple[Shape, Shape, Shape]:
    """The same for shapes, checked: (batch, time, width) each, widths known, key and value of one length."""
    query, key, value = (tuple(shape) for shape in query_key_value(owner, input_shape))
    for role, shape in (("query", query), ("key", key), ("value", value)):
        if len(shape) != 3 or shape[-1] is None:
            raise ValueError(f"{owner}: {role} has shape {shape}; it must be (batch, time, width) with a known width.")
    if None not in (key[1], value[1]) and key[1] != value[1]:
        raise ValueError(f"{owner}: key has {key[1]} steps, value has {value[1]}; they must be as long as each other.")
    return query, key, value


def query_mask(mask: Any) -> Any:
    """The mask of the query: the first of several, or the only one."""
    return mask[0] if isinstance(mask, (list, tuple)) else mask


def key_mask(mask: Any) -> Any:
    """The mask that acts: the second of three, or the only one. Those of query and value hide nothing."""
    return mask[1] if isinstance(mask, (list, tuple)) else mask


def _is_several(inputs: Any) -> bool:
    """Whether inputs is a list of tensors or of shapes, and not one tensor or one shape (itself a tuple of numbers)."""
    if not isinstance(inputs, (list, tuple)):
        return False
    return not inputs or not (inputs[-1] is None or isinstance(inputs[-1], int))
