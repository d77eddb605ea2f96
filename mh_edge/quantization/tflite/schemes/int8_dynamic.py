"""int8-dynamic for TFLite: weights in 8-bit integers, each activation rounded to its own range at every call."""

from __future__ import annotations

from mh_edge.artifact import Artifact
from mh_edge.quantization.scheme import Options, Quantized, Ranges, scheme
from mh_edge.quantization.tflite import model as litert
from mh_edge.quantization.tflite.weights import Recipe, by_recipe, told, weights

BITS = 8


@scheme("tflite", "int8-dynamic", options=("per_channel", "keep_float"))
def int8_dynamic(source: Artifact, ranges: Ranges, options: Options) -> Quantized:
    """Weights in 8-bit integers; the range of each activation is taken anew at every call. Needs no data.

    y = sx · sw · Σ (qx - zx) · qw + bias, sx and zx from the least and greatest value of x in this call. A convolution
    that LiteRT computes so, too; in the body of a loop as well. What is no product with weights computes as before.
    """
    del ranges
    model = litert.read(source.path)
    recipe = Recipe(options)
    recipe.dynamic(".*", BITS)
    content, why = by_recipe(model, options, recipe)
    return told(source, weights(model), content, why, "int8-dynamic")
