"""A weighted mean over time whose weights are learned."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from mh_edge.layers.attention import ADDITIVE_MASK, Shape, widen

EPSILON = 1e-7
"""Added to the sum of the exponentials; part of the formula, whatever `keras.backend.epsilon()` says."""


@keras.saving.register_keras_serializable(package="mh_edge")
class SeqWeightedAttention(keras.layers.Layer):  # type: ignore[misc]
    """s = x W + b − 10000·(1 − mask), a = exp(s − max s) / (Σ exp(s − max s) + 1e-7), y = Σ over time of a·x.

    x: (batch, time, dim), mask: (batch, time) -> y: (batch, dim), without a mask.
    return_attention=True returns [y, a], a: (batch, time).

    Attributes to read: use_bias, return_attention, and once built W: (dim, 1), b: (1,) or None without use_bias.

    Raises ValueError when the input is not (batch, time, dim) with a known dim.
    Source: Felbo et al., 2017, https://arxiv.org/abs/1708.00524; keras-self-attention 0.51.0, `SeqWeightedAttention`.
    """

    def __init__(self, use_bias: bool = True, return_attention: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.supports_masking = True
        self.use_bias = use_bias
        self.return_attention = return_attention
        self.W = self.b = None

    def build(self, input_shape: Any) -> None:
        shape = tuple(input_shape)
        if len(shape) != 3 or shape[-1] is None:
            raise ValueError(
                f"SeqWeightedAttention: the input has shape {shape}; it must be (batch, time, dim) with a known dim."
            )
        self.W = self.add_weight(shape=(shape[-1], 1), name="W", initializer="random_uniform")
        if self.use_bias:
            self.b = self.add_weight(shape=(1,), name="b", initializer="zeros")
        self.built = True

    def call(self, inputs: Any, mask: Any = None) -> Any:
        scores = ops.matmul(inputs, self.W)
        if self.b is not None:
            scores = scores + self.b
        scores = widen(ops.squeeze(scores, axis=-1))
        if mask is not None:
            scores = scores - ADDITIVE_MASK * (1.0 - ops.cast(mask, scores.dtype))
        exponentials = ops.exp(scores - ops.max(scores, axis=-1, keepdims=True))
        weights = exponentials / (ops.sum(exponentials, axis=-1, keepdims=True) + EPSILON)
        weights = ops.cast(weights, inputs.dtype)
        output = ops.sum(inputs * ops.expand_dims(weights, axis=-1), axis=1)
        return [output, weights] if self.return_attention else output

    def compute_mask(self, inputs: Any, mask: Any = None) -> Any:
        return [None, None] if self.return_attention else None

    def compute_output_shape(self, input_shape: Any) -> Shape | list[Shape]:
        batch, time, dim = input_shape
        return [(batch, dim), (batch, time)] if self.return_attention else (batch, dim)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "use_bias": self.use_bias, "return_attention": self.return_attention}
