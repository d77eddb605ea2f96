"""Biases that fit: a bias is an integer at the scale of the products, which it may pass by far.

    y = s_x · s_w · (Σ q_x · q_w + q_b),  q_b = b / (s_x · s_w)

Where weights or inputs are all but zero, q_b leaves 32 bits and would be cut off, in 16-bit files too: litert-quantizer
stores 64 bits there and fills 32. So the channel's weights take the least scale with which it fits:

    s_w = max(s_w, |b| / (s_x · 2^30))

Their rounding is then |b| · q_x / 2^31 at most: less than a step of what is computed, which the bias decides.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mh_edge.quantization.tflite.model import MOVERS, Operation, constant, operations, read_any

MOST = 2.0**30
"""Half of what 32 bits hold; the other half is for the products."""

GREATEST_WEIGHT = 127

BIASED = {
    "FULLY_CONNECTED": (0, 1, 2),
    "CONV_2D": (0, 1, 2),
    "DEPTHWISE_CONV_2D": (0, 1, 2),
    "TRANSPOSE_CONV": (2, 1, 3),
}
"""Kind of operation -> which of its inputs are x, the weights and the bias."""


def bounds_for_biases(model: Any, content: bytes) -> dict[str, np.ndarray]:
    """Name of each weight of the float `model` whose scales are too small in `content`, the file in integers -> the
    greatest entry to quantize it for, in each channel or in all; as many dimensions as the weight.
    """
    made = read_any(content)
    bounds: dict[str, np.ndarray] = {}
    for of_floats, of_integers in zip(_main(model), _main(made), strict=True):
        x, weight, bias = BIASED.get(of_floats.kind, (0, 0, 0))
        if bias >= len(of_floats.inputs) or not bias or of_floats.inputs[bias] < 0:
            continue
        values = constant(model, of_floats.inputs[bias])
        weights = constant(model, of_floats.inputs[weight])
        step, each, summed = (_scales(made, of_integers.inputs[place]) for place in (x, weight, bias))
        if values is None or weights is None or step is None or each is None or summed is None:
            continue
        least = np.abs(values.astype(np.float64)) / (step * MOST)
        least = least if each.size > 1 else least.max(keepdims=True)
        if (least > each).any():
            axis = made.subgraphs[0].tensors[of_integers.inputs[weight]].quantization.quantizedDimension
            shape = [each.size if place == axis else 1 for place in range(weights.ndim)]
            bound = (np.maximum(least, each) * GREATEST_WEIGHT).reshape(shape).astype(np.float32)
            name = model.subgraphs[0].tensors[of_floats.inputs[weight]].name.decode()
            bounds[name] = np.maximum(bound, bounds.get(name, bound))
    return bounds


def _main(model: Any) -> list[Operation]:
    return [one for one in operations(model) if one.graph == 0 and one.kind not in MOVERS]


def _scales(model: Any, tensor: int) -> np.ndarray | None:
    quantization = model.subgraphs[0].tensors[tensor].quantization
    found = None if quantization is None else quantization.scale
    return None if found is None or not len(found) else np.asarray(found, np.float64)
