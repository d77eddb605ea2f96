"""What the rules of recurrent layers on every target, and streams, have in common."""

from __future__ import annotations

from typing import Any

import keras


def cells(layer: keras.layers.RNN) -> list[Any]:
    """The cells of the layer, the one that reads x first."""
    return list(layer.cell.cells) if isinstance(layer.cell, keras.layers.StackedRNNCells) else [layer.cell]


def zeroed_elsewhere(layer: Any) -> str | None:
    """Why a keras.layers.RNN is left to the default conversion, or None: unrolled, Keras zeroes the outputs of a layer
    that reads from the end by the mask in the order of the input, and so at other steps than the masked ones.
    """
    turned = layer.unroll and layer.go_backwards and layer.zero_output_for_mask and layer.return_sequences
    return "unrolled from the end, Keras zeroes its outputs at other steps than the masked ones" if turned else None
