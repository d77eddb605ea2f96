"""The rules: ScaleNorm as LpNormalization (ONNX) and as L2_NORMALIZATION (TFLite) instead of the steps of its body.

Both runtimes give zeros for a vector of zeros, as the layer does.
"""

from __future__ import annotations

from typing import Any

import keras

import mh_edge
from scale_norm.layer import SMALLEST, ScaleNorm


def example() -> keras.Model:
    x = keras.Input((None, 6), name="x")
    return keras.Model(x, ScaleNorm()(x))


@mh_edge.rule(
    "onnx", ScaleNorm, cases=[mh_edge.Case("sequence", example, ops={"LpNormalization": 1}, absent=("Sqrt", "Shape"))]
)
def to_onnx(ctx: Any, layer: ScaleNorm, inputs: Any, masks: Any) -> Any:
    """ctx: mh_edge_onnx.context.Context; inputs: ONNX values."""
    del masks
    return ctx.op("Mul", ctx.op("LpNormalization", inputs[0], axis=-1, p=2), ctx.weight(layer.g))


@mh_edge.rule("tflite", ScaleNorm, cases=[mh_edge.Case("sequence", example, ops={"L2_NORMALIZATION": 1})])
def to_tflite(ctx: Any, layer: ScaleNorm, inputs: Any, masks: Any) -> Any:
    """ctx: mh_edge_tflite.context.Context; inputs: TensorFlow tensors."""
    import tensorflow as tf

    del ctx, masks
    return tf.math.l2_normalize(inputs[0], axis=-1, epsilon=SMALLEST**2) * tf.convert_to_tensor(layer.g)
