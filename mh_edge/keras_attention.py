"""Which instances of Keras's own attention layers the rules of every target leave to the default conversion.

A rule stands for a layer's `call`, which asks other methods; a subclass may keep `call` and replace one of those.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

OF_HEADS = ("_compute_attention", "_compute_attention_mask", "_compute_causal_mask", "_masked_softmax")
"""What `call` of keras.layers.MultiHeadAttention and GroupQueryAttention asks."""

OF_SCORES = ("_calculate_scores", "_apply_scores", "_calculate_score_mask")
"""What `call` of keras.layers.Attention and AdditiveAttention asks."""


def overridden(layer: Any, base: type, methods: Sequence[str]) -> str | None:
    """A sentence about the methods of `base` that the class of this layer has replaced; None when there is none."""
    found = [name for name in methods if getattr(type(layer), name) is not getattr(base, name)]
    return f"{type(layer).__name__} has {', '.join(found)} of its own" if found else None


def declined(layer: Any, base: type) -> str | None:
    """Why a layer of several heads is left to the default conversion; None when it is not."""
    if own := overridden(layer, base, OF_HEADS):
        return own
    if not layer.built:
        return "it was never called"
    parts = (layer._query_dense, layer._key_dense, layer._value_dense, layer._output_dense)
    if any(part.quantization_mode or part.lora_enabled for part in parts):
        return "its kernels are quantized or low-rank"
    axes = len(layer._query_dense.equation.split(",")[0])
    return None if axes == 3 else f"its query has {axes} axes, not (batch, time, width)"
