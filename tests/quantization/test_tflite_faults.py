"""What int8 and int16x8 of TFLite must not lose: biases beyond 32 bits, masks that more than softmax reads, rows that
are hidden whole; and what they must refuse.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from mh_edge.quantization.scheme import Options
from tests.quantization.test_tflite_static import KERNELS, SCHEMES, off, outputs, quantized, written

WIDE, MANY = 24, 32

BIAS_ERROR = {"int8": 0.015, "int16x8": 0.009}
"""What products with ordinary numbers lose; a bias that is cut off loses 4 % to 60 %."""

Layer = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Weights, bias, samples."""


def _normal(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.normal(size=shape).astype(np.float32)


def _dead(rng: np.random.Generator) -> Layer:
    weights = _normal(rng, WIDE, MANY)
    weights[:, ::3] = 0
    return weights, _normal(rng, MANY), _normal(rng, 60, WIDE)


def _nearly_dead(rng: np.random.Generator) -> Layer:
    weights, bias, samples = _dead(rng)
    weights[:, ::3] = 1e-4
    return weights, bias, samples


LAYERS: dict[str, Callable[[np.random.Generator], Layer]] = {
    "channels of zeros": _dead,
    "channels of nearly zeros": _nearly_dead,
    "small weights": lambda rng: (_normal(rng, WIDE, MANY) * 1e-6, _normal(rng, MANY) * 10, _normal(rng, 60, WIDE)),
    "samples of zeros": lambda rng: (_normal(rng, WIDE, MANY), _normal(rng, MANY), np.zeros((9, WIDE), np.float32)),
    "large biases": lambda rng: (_normal(rng, WIDE, MANY) * 0.02, _normal(rng, MANY) * 10, _normal(rng, 60, WIDE) / 4),
}


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("name", SCHEMES)
@pytest.mark.parametrize("per_channel", [True, False])
def test_biases_that_pass_32_bits(layer, name, per_channel, tmp_path):
    weights, bias, samples = LAYERS[layer](np.random.default_rng(0))
    source = written(
        lambda x: tf.nn.relu(tf.matmul(x, weights) + bias), [tf.TensorSpec((1, WIDE), name="x")], tmp_path / "x.tflite"
    )
    batches = [{"x": sample[None]} for sample in samples]
    quantized(source, name, batches, tmp_path / "q.tflite", Options(per_channel=per_channel))
    for kernels in KERNELS:
        assert off(outputs(tmp_path / "q.tflite", batches, kernels), outputs(source.path, batches)) < BIAS_ERROR[name]


@pytest.mark.parametrize("kind", ["convolution", "depthwise", "transposed"])
@pytest.mark.parametrize("name", SCHEMES)
def test_convolutions_with_channels_of_zeros(kind, name, tmp_path: Path):
    rng = np.random.default_rng(0)
    bias = _normal(rng, 8)
    weights = _normal(rng, 3, 3, 8, 1 if kind == "depthwise" else 8)
    weights[:, :, 1::4] = 0  # the inputs of some, the outputs of others
    weights[..., ::4] = 0 if kind == "convolution" else weights[..., ::4]

    def convolved(x: tf.Tensor) -> tf.Tensor:
        if kind == "convolution":
            return tf.nn.conv2d(x, weights, 1, "SAME") + bias
        if kind == "depthwise":
            return tf.nn.depthwise_conv2d(x, weights, [1] * 4, "SAME") + bias
        return tf.nn.conv2d_transpose(x, weights, (1, 10, 10, 8), 2) + bias

    source = written(convolved, [tf.TensorSpec((1, 5, 5, 8), name="x")], tmp_path / "x.tflite")
    batches = [{"x": sample[None]} for sample in _normal(rng, 30, 5, 5, 8)]
    quantized(source, name, batches, tmp_path / "q.tflite")
    assert off(outputs(tmp_path / "q.tflite", batches), outputs(source.path, batches)) < 2 * BIAS_ERROR[name]
