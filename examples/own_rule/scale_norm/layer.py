"""The layer: plain Keras, which knows nothing of conversion."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

SMALLEST = 1e-6


@keras.saving.register_keras_serializable(package="scale_norm")
class ScaleNorm(keras.layers.Layer):
    """y = g x / max(|x|, 1e-6), |x| over the last axis and g one number that is learned.

    x: (..., dim) -> y: (..., dim). Source: Nguyen and Salazar, Transformers without Tears, 2019.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.supports_masking = True

    def build(self, input_shape: Any) -> None:
        self.g = self.add_weight(shape=(), name="g", initializer="ones")
        self.built = True

    def call(self, x: Any) -> Any:
        length = ops.sqrt(ops.sum(ops.square(x), axis=-1, keepdims=True))
        return self.g * x / ops.maximum(length, SMALLEST)

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape
