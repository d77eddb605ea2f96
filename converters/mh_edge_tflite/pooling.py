"""Pooling over volumes, which TFLite has not, as two poolings over images."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from mh_edge_tflite.context import Tensor, reshape, sizes


def over_volume(pool: Callable[..., Tensor], layer: Any, x: Tensor) -> Tensor:
    """pool: tf.nn.max_pool2d or avg_pool2d; x: (batch, depth, height, width, channels).

    A maximum of maxima is the maximum, and a mean of means of equal windows the mean; at the border of padding 'same'
    the windows are cut alike in every row.
    """
    padding = layer.padding.upper()
    (deep, *flat), (step, *steps) = layer.pool_size, layer.strides
    batch, depth, height, width, channels = sizes(x)
    y = pool(reshape(x, [batch * depth, height, width, channels]), flat, steps, padding)
    _, height, width, _ = sizes(y)
    y = pool(reshape(y, [batch, depth, height * width, channels]), (deep, 1), (step, 1), padding)
    return tf.reshape(y, [batch, sizes(y)[1], height, width, channels])


def declined(layer: Any) -> str | None:
    """Why a pooling over volumes is left to the default conversion."""
    return None if layer.data_format == "channels_last" else "its data_format is channels_first"
