"""int8 for TFLite: full integer, what microcontrollers and integer accelerators run."""

from __future__ import annotations

from mh_edge.artifact import Artifact
from mh_edge.quantization.scheme import Options, Quantized, Ranges, scheme
from mh_edge.quantization.tflite.model import observe
from mh_edge.quantization.tflite.static import quantize_static

BITS = 8

MARGIN = 8.0
"""exp(−8) = .0003: less than half of 1/256, the step of a softmax's output, even beside nothing greater than 1."""


@scheme("tflite", "int8", calibrate=observe, options=("per_channel", "integer_io", "keep_float"))
def int8(source: Artifact, ranges: Ranges, options: Options) -> Quantized:
    """Weights and activations in 8-bit integers, masks kept.

    x = scale · (q − zero_point): weights symmetric, with a scale for each output channel or one for all; activations
    with one scale each, by the ranges; biases in 32 bits. Inputs and outputs stay float unless integer_io is set;
    booleans and indices stay what they are. See masks.py for attention masks, biases.py for large biases, rewriting.py
    for what is put otherwise first; what still computes in float is told as kept_float.
    """
    return quantize_static(source, ranges, options, bits=BITS, margin=MARGIN)
