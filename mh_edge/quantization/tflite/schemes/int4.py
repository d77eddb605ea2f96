"""int4 for TFLite: weights in 4-bit integers from -7 to 7.

Measured on a masked transformer of two layers, three training seeds: change of accuracy in points, mean error of the
logits in units of their standard deviation, latency beside float:

    a scale for each channel, by the greatest weight       -.7, -.2, -.3   6.0 %   .93
    by the least squared error (OCTAV)                     -.1, -.1, +.6   5.4 %   .93
    OCTAV, the smallest weights in 8 bits (this scheme)    -.1, +.2, +.1   4.7 %   .92
    the same weights made floats again before use          -.1, +.3, +.6   4.6 %   3.1
    blocks of 32, the smallest weights in float            -.2, +.1, +.6   4.8 %   1.0   wrong without XNNPACK

LiteRT's own kernels (those without XNNPACK) compute something else from blocks (55 % error) and from the integer -8
(22 %), so that neither is written; XNNPACK takes no product whose weights are made floats before it.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import replace
from typing import Any

import numpy as np

from mh_edge.artifact import Artifact
from mh_edge.errors import ConversionError
from mh_edge.quantization.scheme import Options, Quantized, Ranges, scheme
from mh_edge.quantization.tflite import model as litert
from mh_edge.quantization.tflite.weights import TABLE, Recipe, Weight, by_recipe, these, told, weights

BITS, SMALL_BITS = 4, 8

CLIPPING = "OCTAV"
"""Sakr et al. 2022, arXiv:2206.06501: the clipping point of least squared error, by iteration."""

SMALL_SHARE = 0.05
"""The smallest weights that together hold this share of all are stored in 8 bits: a file grows by .6 % of its float
size at most, and the first and last product of a network, which are mostly small, lose little.
"""

A_TABLE = "a table, from which rows are taken while they are integers"

SMALL = f"the smallest, {SMALL_SHARE:.0%} of all weights at most"

LEAST, LEAST_KEPT = 0b1000, 0b1001
"""-8 and -7 in 4 bits."""


@scheme("tflite", "int4", options=("per_channel", "keep_float"))
def int4(source: Artifact, ranges: Ranges, options: Options) -> Quantized:
    """Weights in 4-bit integers; activations are rounded to 8 bits, each to its own range at every call. Needs no data.

    y = sx · sw · Σ (qx - zx) · qw + bias, sx and zx from the least and greatest value of x in this call. Small weights,
    tables, and weights of operations that LiteRT has no 4-bit form of take 8 bits.
    """
    del ranges
    model = litert.read(source.path)
    found = weights(model)
    recipe = Recipe(options)
    recipe.dynamic(".*", SMALL_BITS)
    recipe.dynamic("^", BITS, CLIPPING)
    recipe.dynamic(these(one.operation for one in found if _has_empty_channel(one.values)), BITS)
    small = _small(found)
    recipe.dynamic(these(one.operation for one in small), SMALL_BITS)
    content, why = by_recipe(model, options, recipe)
    content = _without_least(content)
    made = told(source, found, content, why, "int4")
    eight = _why(_held(content, found, model, "INT8"), {one.place for one in small})
    if not _held(content, found, model, "INT4"):
        raise ConversionError(
            f"int4 finds nothing to do in {source.path} that int8-dynamic does not: in 8 bits are {'; '.join(eight)}.",
            "Take the scheme int8-dynamic, or keep less in float.",
        )
    return replace(made, notes=tuple(f"In 8 bits instead of 4: {sentence}." for sentence in eight))


def _held(content: bytes, found: Sequence[Weight], model: Any, kind: str) -> list[Weight]:
    """The weights that a quantized file has as integers of this kind, one operation for each."""
    graphs = litert.read_any(content).subgraphs
    kinds = {number: {tensor.name: tensor.type for tensor in graph.tensors} for number, graph in enumerate(graphs)}
    wanted = vars(litert.schema().TensorType)[kind]
    names = {place: model.subgraphs[place[0]].tensors[place[1]].name for one in found for place in [one.place]}
    return [one for one in _once(found) if kinds[one.place[0]].get(names[one.place]) == wanted]


def _why(eight: Sequence[Weight], small: Set[tuple[int, int]]) -> list[str]:
    """The operations that read these weights, for each of the reasons."""
    reasons: dict[str, list[str]] = {}
    for one in eight:
        other = A_TABLE if one.operation.kind == TABLE else f"LiteRT has no 4-bit form of {one.operation.kind}"
        reasons.setdefault(SMALL if one.place in small else other, []).append(one.operation.name)
    return [f"{litert.some(names)} ({reason})" for reason, names in reasons.items()]


def _once(found: Sequence[Weight]) -> list[Weight]:
    return list({one.place: one for one in reversed(found)}.values())[::-1]


def _small(found: Sequence[Weight]) -> list[Weight]:
    """Those that read the smallest."""
    products = sorted((one for one in _once(found) if one.operation.kind != TABLE), key=lambda one: one.values.size)
    room = SMALL_SHARE * sum(one.values.size for one in products)
    places = set()
    for one in products:
        room -= one.values.size
        if room < 0:
            break
        places.add(one.place)
    return [one for one in found if one.place in places]


def _has_empty_channel(values: np.ndarray) -> bool:
    """Whether an output channel is all zeros: OCTAV finds a scale of 0 for it, which XNNPACK does not take."""
    return not values.reshape(len(values), -1).any(axis=1).all()


def _without_least(content: bytes) -> bytes:
    """-7 for every -8: LiteRT's own 4-bit kernel gets products with -8 wrong."""
    model = litert.read_any(content)
    tensors = (tensor for graph in model.subgraphs for tensor in graph.tensors)
    for index in sorted({tensor.buffer for tensor in tensors if tensor.type == litert.schema().TensorType.INT4}):
        pairs = np.asarray(model.buffers[index].data, np.uint8)
        low, high = (np.where(half == LEAST, LEAST_KEPT, half) for half in (pairs & 0xF, pairs >> 4))
        model.buffers[index].data = (low | high << 4).astype(np.uint8)
    return litert.pack(model)
