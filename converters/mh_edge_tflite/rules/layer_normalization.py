"""LayerNormalization: y = c / sqrt(mean(c²) + epsilon) * gamma + beta, c = x - mean(x), means over the axes."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from mh_edge.rules import Case, rule
from mh_edge_tflite.context import Context, Inputs, Masks, Tensor
from mh_edge_tflite.normalising import normalised


def _model(*shape: int | None, **options: Any) -> keras.Model:
    scattered = keras.initializers.RandomNormal(1.0, 0.5)
    given = {"gamma_initializer": scattered, "beta_initializer": scattered, **options}
    return keras.Sequential([keras.Input(shape, name="x"), keras.layers.LayerNormalization(**given)])


OPS = {"MEAN": 2, "SUB": 1, "MUL": 3, "ADD": 2, "RSQRT": 1}
LITTER = ("SQUARED_DIFFERENCE", "NEG", "SHAPE", "RESHAPE")


@rule(
    "tflite",
    keras.layers.LayerNormalization,
    applies=lambda layer: (
        "rms_scaling divides by the deviation without taking the mean away" if layer.rms_scaling else None
    ),
    cases=(
        Case("last", lambda: _model(None, 6), ops=OPS, absent=LITTER),
        Case("bare", lambda: _model(None, 6, center=False, scale=False), ops=OPS | {"MUL": 2, "ADD": 1}, absent=LITTER),
        Case("two_axes", lambda: _model(None, 4, 6, axis=(2, 3)), ops=OPS, absent=LITTER),
        Case("inner_axis", lambda: _model(5, None, axis=1), ops=OPS, absent=LITTER),
    ),
)
def lower(ctx: Context, layer: keras.layers.LayerNormalization, inputs: Inputs, masks: Masks) -> Tensor:
    """x: any shape -> the same shape."""
    del ctx, masks
    (x,) = inputs
    axes = sorted(axis % x.shape.rank for axis in ([layer.axis] if isinstance(layer.axis, int) else layer.axis))
    along = [size if axis in axes else 1 for axis, size in enumerate(x.shape)]
    gamma, beta = (None if weight is None else tf.reshape(weight, along) for weight in (layer.gamma, layer.beta))
    return normalised(x, axes, layer.epsilon, gamma, beta)
