"""Attention by one head without weights."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from mh_edge.layers.attention import Shape, attend, key_mask, query_key_value, query_key_value_shapes, query_mask


@keras.saving.register_keras_serializable(package="mh_edge")
class ScaledDotProductAttention(keras.layers.Layer):  # type: ignore[misc]
    """y = softmax(Q Kᵀ / sqrt(d) − 10000·[key after query, if history_only] − 10000·(1 − key_mask)) V.

    x or [Q: (batch, Tq, d), K: (batch, Tk, d), V: (batch, Tk, v_in)] -> y: (batch, Tq, v_in).
    return_attention=True returns [y, weights], weights: (batch, Tq, Tk).

    The mask of three that acts is the second; the output carries the first. A fully masked row is the softmax of its
    raw scores. Attributes to read: return_attention, history_only.

    Raises ValueError when the widths of query and key differ, or the inputs are neither one nor three.
    Source: Vaswani et al., Attention Is All You Need, 2017; keras-self-attention 0.51.0, `ScaledDotProductAttention`.
    """

    def __init__(self, return_attention: bool = False, history_only: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.supports_masking = True
        self.return_attention = return_attention
        self.history_only = history_only

    def build(self, input_shape: Any) -> None:
        query, key, _ = query_key_value_shapes("ScaledDotProductAttention", input_shape)
        if query[-1] != key[-1]:
            raise ValueError(
                f"ScaledDotProductAttention: query is {query[-1]} wide, key is {key[-1]}; "
                "their product needs equal widths."
            )
        self.built = True

    def call(self, inputs: Any, mask: Any = None) -> Any:
        query, key, value = query_key_value("ScaledDotProductAttention", inputs)
        hidden = key_mask(mask)
        if hidden is not None:  # (batch, Tk) -> (batch, query, Tk)
            hidden = ops.expand_dims(hidden, axis=1)
        output, weights = attend(query, key, value, hidden, self.history_only)
        return [output, weights] if self.return_attention else output

    def compute_mask(self, inputs: Any, mask: Any = None) -> Any:
        return [query_mask(mask), None] if self.return_attention else query_mask(mask)

    def compute_output_shape(self, input_shape: Any) -> Shape | list[Shape]:
        query, key, value = query_key_value_shapes("ScaledDotProductAttention", input_shape)
        output: Shape = (*query[:-1], value[-1])
        return [output, (*query[:-1], key[1])] if self.return_attention else output

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "return_attention": self.return_attention,
            "history_only": self.history_only,
        }
