"""int4: weights in 4-bit integers, in blocks of the inputs to one output, each block with a scale of its own.

    w ≈ scale · (q − zero_point),    q from 0 to 15

Activations and sums stay in 32-bit floats, so that nothing has to be known of them and masks are untouched.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mh_edge.artifact import Artifact
from mh_edge.errors import UsageError
from mh_edge.packages import require
from mh_edge.quantization.onnx.matmuls import as_matmuls
from mh_edge.quantization.onnx.model import (
    TOO_SMALL,
    Weighted,
    drop_unused,
    load,
    nodes,
    nothing_to_quantize,
    restore,
    saver,
    sort,
    tiny,
    weighted,
)
from mh_edge.quantization.onnx.products import as_gemms
from mh_edge.quantization.onnx.unfit import unfit
from mh_edge.quantization.scheme import ASKED, KeptFloat, Options, Quantized, Ranges, belongs, scheme
from mh_edge.quiet import loggers_at

if TYPE_CHECKING:
    import onnx

SLOTS = {"MatMul": 1, "Gather": 0, "Conv": 1, "ConvTranspose": 1, "GRU": 1, "LSTM": 1, "RNN": 1}
"""Which input of an operation is its weight; only MatMul has a 4-bit form."""

BLOCK_SIZES = (16, 32, 64, 128, 256)
"""Those that ONNX Runtime's MatMulNBits has kernels for."""

SHORT = f"it has fewer than {min(BLOCK_SIZES)} inputs, the smallest block: little would be saved, at much accuracy"
"""Mostly the first product, of the features of a step. On three trained models, keeping it lowered the divergence of
the classes' probabilities from .016 to .002, from .0030 to .0013, and left .1 as it was; for .01 of the size.
"""

SYMMETRIC = False
"""On a trained masked transformer a zero point for each block lowered the mean error of the logits from 4.1 % to 3.5 %,
for 3 % of the size. ONNX Runtime's other rule without data, k_quant, was at 5.2 %; its HQQ needs PyTorch.
"""

ACCURACY_LEVEL = 0
"""Sums in float32; 4 rounds activations to 8 bits: on the same model 1.5 to 1.8 times the time, no less error."""


@scheme("onnx", "int4", options=("block_size", "keep_float"))
def int4(source: Artifact, ranges: Ranges, options: Options) -> Quantized:
    """Weights in 4-bit integers, in blocks with a scale each; activations stay float. Needs no data."""
    if options.block_size not in BLOCK_SIZES:
        raise UsageError(
            f"int4 has no blocks of {options.block_size} weights.", f"Take one of {', '.join(map(str, BLOCK_SIZES))}."
        )
    model = as_gemms(load(source))
    as_matmuls(model)
    found = weighted(model, SLOTS)
    kept = unfit(model, (one.node for one in found)) | _kept(found, options)
    chosen = {one.node.name: _block(one, options.block_size) for one in found if one.node.name not in kept}
    if not chosen:
        raise nothing_to_quantize(source, "int4", "product", kept)
    result = model
    for size in sorted(set(chosen.values())):
        result = _quantized(result, {name for name, block in chosen.items() if block == size}, size)
    drop_unused(result)
    sort(result.graph)
    restore(result, model, "_Q4")
    return Quantized(saver(result), kept_float=tuple(KeptFloat(name, why) for name, why in kept.items()))


def _kept(found: Sequence[Weighted], options: Options) -> dict[str, str]:
    """Operation -> why it stays in float."""
    kept = {}
    small = tiny([one for one in found if one.node.op_type == "MatMul"])
    for one in found:
        if belongs(one.node.name, options.keep_float):
            kept[one.node.name] = ASKED
        elif one.node.op_type != "MatMul":
            kept[one.node.name] = f"ONNX Runtime has no {one.node.op_type} with 4-bit weights"
        elif len(one.weight.dims) != 2:
            kept[one.node.name] = "its weight is not one matrix"
        elif one.weight.dims[0] < min(BLOCK_SIZES):
            kept[one.node.name] = SHORT
        elif one.node.name in small:
            kept[one.node.name] = TOO_SMALL
    return kept


def _block(one: Weighted, size: int) -> int:
    """The block size for a weight: not much longer than its columns, since the rest of a block is stored too."""
    return next((smaller for smaller in BLOCK_SIZES if one.weight.dims[0] <= smaller < size), size)


def _quantized(model: onnx.ModelProto, names: set[str], block_size: int) -> onnx.ModelProto:
    """The model with these products in blocks of one size."""
    nbits = require("onnxruntime.quantization.matmul_nbits_quantizer", "quantize,cpu", "the scheme int4")
    quantizer = nbits.MatMulNBitsQuantizer(
        type(model).FromString(model.SerializeToString()),
        block_size=block_size,
        is_symmetric=SYMMETRIC,
        accuracy_level=ACCURACY_LEVEL,
        nodes_to_exclude=[node.name for node in nodes(model) if node.name not in names],
    )
    with loggers_at(logging.WARNING, nbits.__name__):  # a line for every operation
        quantizer.process()
    made: onnx.ModelProto = quantizer.model.model
    return made
