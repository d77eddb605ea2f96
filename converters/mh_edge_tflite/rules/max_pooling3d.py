"""MaxPooling3D: the maximum of each window of a volume."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from mh_edge.rules import Case, rule
from mh_edge_tflite.context import Context, Inputs, Masks, Tensor
from mh_edge_tflite.pooling import declined, over_volume


def _model(*shape: int | None, **options: Any) -> keras.Model:
    x = keras.Input(shape, name="x")
    return keras.Sequential([x, keras.layers.MaxPooling3D(**{"pool_size": 2, **options})])


@rule(
    "tflite",
    keras.layers.MaxPooling3D,
    applies=declined,
    cases=(
        Case("valid", lambda: _model(5, 6, 7, 2), ops={"MAX_POOL_2D": 2}, absent=("SHAPE",)),
        Case(
            "same", lambda: _model(5, 6, 7, 2, pool_size=(2, 3, 2), strides=1, padding="same"), ops={"MAX_POOL_2D": 2}
        ),
        Case("free", lambda: _model(None, 6, 7, 2, padding="same"), ops={"MAX_POOL_2D": 2}),
    ),
)
def lower(ctx: Context, layer: keras.layers.MaxPooling3D, inputs: Inputs, masks: Masks) -> Tensor:
    """x: (batch, depth, height, width, channels) -> the same rank."""
    del ctx, masks
    return over_volume(tf.nn.max_pool2d, layer, inputs[0])
