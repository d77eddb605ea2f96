"""fp16 for TFLite: weights stored in 16-bit floats, half the size; LiteRT makes them 32-bit ones when it loads the
file, and delegates that have 16-bit arithmetic (GPUs) compute in it.

litert-quantizer casts the weights of some operations only, and neither tables nor the products in the heads of an
LSTM (a file of .87 instead of .56), so this is written here.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mh_edge.artifact import Artifact
from mh_edge.quantization.scheme import Options, Quantized, Ranges, scheme
from mh_edge.quantization.tflite import model as litert
from mh_edge.quantization.tflite.weights import told, weights

ROUNDING = 2.0**-11
"""Half the distance of 16-bit floats, relative: what rounding may change of the greatest entry."""

SMALLEST = 128
"""Entries: the operation and the tensor that a cast adds to the file take some 200 bytes."""

SMALL = f"fewer than {SMALLEST} entries: with a cast, the file would grow"

SHARED = "an operation that stays in float reads the same weight"

DEQUANTIZE_VERSION = 3
"""The first that takes 16-bit floats."""

UNFIT = "its entries are too large or too small for 16-bit floats"


@scheme("tflite", "fp16", options=("keep_float",))
def fp16(source: Artifact, ranges: Ranges, options: Options) -> Quantized:
    """Weights stored in 16-bit floats; what computes on a processor stays in 32 bits. Needs no data.

    w -> DEQUANTIZE(float16(w)). All that is no weight (the constants of masks, biases) stays as it is, and so does a
    weight of which 16 bits cannot hold the greatest entries to 2^-11.
    """
    del ranges
    model = litert.read(source.path)
    found = weights(model)
    why = litert.kept_as_asked(litert.operations(model), options)
    for one in found:
        if obstacle := _obstacle(one.values):
            why.setdefault(one.operation.name, obstacle)
    held = {one.place for one in found if one.operation.name in why}
    for one in found:
        if one.place in held:
            why.setdefault(one.operation.name, SHARED)
    _store(model, {one.place: one.values.astype(np.float16) for one in found if one.place not in held})
    return told(source, found, litert.pack(model), why, "fp16")


def _obstacle(values: np.ndarray) -> str:
    """Why a weight stays in 32 bits; empty when it need not."""
    if values.size < SMALLEST:
        return SMALL
    with np.errstate(over="ignore"):
        lost = np.abs(values - values.astype(np.float16).astype(np.float32)).max()
    return "" if lost <= ROUNDING * np.abs(values).max() else UNFIT


def _store(model: Any, halves: dict[tuple[int, int], np.ndarray]) -> None:
    """Put 16-bit constants, each with the operation that makes it 32-bit, in the place of (graph, tensor)."""
    names = litert.schema()
    code = names.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = names.BuiltinOperator.DEQUANTIZE
    code.version = DEQUANTIZE_VERSION
    model.operatorCodes.append(code)
    stored: dict[int, int] = {}  # tensors may share a buffer
    casts: dict[int, list[Any]] = {}
    for (number, index), half in halves.items():
        graph = model.subgraphs[number]
        whole = graph.tensors[index]
        if whole.buffer not in stored:
            stored[whole.buffer] = litert.add_constant(model, half)
        tensor = names.TensorT()
        tensor.name, tensor.shape, tensor.type = whole.name + b"_fp16", whole.shape, names.TensorType.FLOAT16
        tensor.buffer, whole.buffer = stored[whole.buffer], litert.NO_BUFFER
        graph.tensors.append(tensor)
        cast = names.OperatorT()
        cast.opcodeIndex = len(model.operatorCodes) - 1
        cast.inputs, cast.outputs = [len(graph.tensors) - 1], [index]
        casts.setdefault(number, []).append(cast)
    for number, made in casts.items():
        model.subgraphs[number].operators = made + model.subgraphs[number].operators
    read = {tensor.buffer for graph in model.subgraphs for tensor in graph.tensors}
    for buffer in stored.keys() - read:
        model.buffers[buffer].data = None
