"""Keras 3 layers: parallel heads and attention, written with `keras.ops` alone and thus for every backend.

Importing this module imports Keras and registers the layers, so that `.keras` files that hold them load without
`custom_objects`.
"""

from __future__ import annotations

from mh_edge.packages import require

try:
    from mh_edge.layers.keras2_hard_sigmoid import keras2_hard_sigmoid as keras2_hard_sigmoid
    from mh_edge.layers.multi_head import MultiHead
    from mh_edge.layers.multi_head_attention import MultiHeadAttention
    from mh_edge.layers.scaled_dot_product_attention import ScaledDotProductAttention
    from mh_edge.layers.seq_self_attention import SeqSelfAttention
    from mh_edge.layers.seq_weighted_attention import SeqWeightedAttention
except ModuleNotFoundError:
    require("keras", "export", "mh_edge.layers")  # says how to install it
    raise

__all__ = [
    "MultiHead",
    "MultiHeadAttention",
    "ScaledDotProductAttention",
    "SeqSelfAttention",
    "SeqWeightedAttention",
]
