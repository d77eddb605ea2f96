"""int16x8 for TFLite: 8-bit weights, 16-bit activations; for accuracy near float where no float unit is."""

from __future__ import annotations

from mh_edge.artifact import Artifact
from mh_edge.quantization.scheme import Options, Quantized, Ranges, scheme
from mh_edge.quantization.tflite.model import observe
from mh_edge.quantization.tflite.static import quantize_static

BITS = 16

MARGIN = 12.0
"""exp(−12) = .000006: less than half of 1/32768, the step of a softmax's output."""


@scheme("tflite", "int16x8", calibrate=observe, options=("per_channel", "integer_io", "keep_float"))
def int16x8(source: Artifact, ranges: Ranges, options: Options) -> Quantized:
    """Weights in 8-bit, activations in 16-bit integers, masks kept.

    x = scale · q, activations symmetric as well; biases are stored in 64 bits and fit in 32. Otherwise as int8.
    LiteRT's table of exp ends at −10, so a hidden step keeps a weight of 1/32768 where in int8 it has none. No delegate
    takes it: many times slower than float on a processor that has a float unit.
    """
    return quantize_static(source, ranges, options, bits=BITS, margin=MARGIN)
