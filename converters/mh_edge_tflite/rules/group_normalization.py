"""GroupNormalization: y = c / sqrt(mean(c²) + epsilon) * gamma + beta, c = x - mean(x), over a group of channels."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from mh_edge.rules import Case, rule
from mh_edge_tflite.context import Context, Inputs, Masks, Tensor, reshape, sizes
from mh_edge_tflite.normalising import normalised


def _model(*shape: int | None, **options: Any) -> keras.Model:
    scattered = keras.initializers.RandomNormal(1.0, 0.5)
    given = {"gamma_initializer": scattered, "beta_initializer": scattered, **options}
    return keras.Sequential([keras.Input(shape, name="x"), keras.layers.GroupNormalization(3, **given)])


OPS = {"MEAN": 2, "SUB": 1, "MUL": 3, "ADD": 2, "RSQRT": 1, "RESHAPE": 2}
LITTER = ("SQUARED_DIFFERENCE", "NEG", "SHAPE", "PACK")


@rule(
    "tflite",
    keras.layers.GroupNormalization,
    cases=(
        Case("series", lambda: _model(None, 6), ops=OPS, absent=LITTER),
        Case("bare", lambda: _model(None, 6, center=False, scale=False), ops=OPS | {"MUL": 2, "ADD": 1}, absent=LITTER),
        Case("images", lambda: _model(4, 5, 6), ops=OPS, absent=LITTER),
        Case("channels_first", lambda: _model(6, None, axis=1), ops=OPS, absent=LITTER),
    ),
)
def lower(ctx: Context, layer: keras.layers.GroupNormalization, inputs: Inputs, masks: Masks) -> Tensor:
    """x: any shape -> the same shape; the mean is over the group and all axes but the batch."""
    del ctx, masks
    (x,) = inputs
    axis = layer.axis % x.shape.rank
    groups = (layer.groups, x.shape[axis] // layer.groups)
    shape = sizes(x)
    cut = reshape(x, [*shape[:axis], *groups, *shape[axis + 1 :]])
    others = [other for other in range(1, cut.shape.rank) if other != axis]
    along = [1] * axis + [*groups] + [1] * (x.shape.rank - axis - 1)
    gamma, beta = (None if weight is None else tf.reshape(weight, along) for weight in (layer.gamma, layer.beta))
    return reshape(normalised(cut, others, layer.epsilon, gamma, beta), shape)
