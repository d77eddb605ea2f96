"""int8-dynamic: weights in 8-bit integers, each activation rounded to its own range at every call.

    y = sx · sw · Σ (qx − zx) · qw + bias,    sx, zx from the least and greatest value of x in this call

No data is needed, and what is no product with a constant weight (an attention mask and the softmax behind it, above
all) computes as before.
"""

from __future__ import annotations

import logging
import tempfile
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from mh_edge.artifact import Artifact
from mh_edge.packages import require
from mh_edge.quantization.onnx.matmuls import as_matmuls
from mh_edge.quantization.onnx.model import (
    TOO_SMALL,
    Weighted,
    load,
    nodes,
    nothing_to_quantize,
    replace_nodes,
    restore,
    saver,
    sort,
    tiny,
    weighted,
)
from mh_edge.quantization.onnx.products import as_gemms
from mh_edge.quantization.onnx.unfit import HIDDEN_ROWS, holds_infinity, unfit
from mh_edge.quantization.scheme import ASKED, KeptFloat, Options, Quantized, Ranges, belongs, scheme
from mh_edge.quiet import loggers_at

if TYPE_CHECKING:
    import onnx

SLOTS = {"MatMul": 1, "LSTM": 1, "Gather": 0}
"""Which input of an operation is its weight."""

FLOAT_ONLY = {
    "Conv": "ONNX Runtime's ConvInteger is slower than its float Conv; the scheme int8 quantizes convolutions",
    "ConvTranspose": "ONNX Runtime has no dynamic kernel for ConvTranspose",
    "GRU": "ONNX Runtime has no dynamic kernel for GRU",
    "RNN": "ONNX Runtime has no dynamic kernel for RNN",
}

LEAST_UNITS = 64
"""ONNX Runtime's DynamicQuantizeLSTM takes 1.1 to 1.6 times as long as LSTM with 16 and 32 units, at any batch size;
with 64, 1.2 at batch 1, .9 at batch 8; with 128, .8 and .6.
"""

NO_MATRIX = "its weight is not one matrix: ONNX Runtime takes a stack of them with a scale per tensor only"
SPREADS = (
    f"{HIDDEN_ROWS}, or NaN; the other samples of the same call, which share their ranges with it, can be wrong or NaN "
    "too"
)
SATURATION = (
    "on x86 processors without VNNI (most from before 2019), ONNX Runtime adds 8-bit products in 16 bits, which can "
    "overflow: measure there too"
)


@scheme("onnx", "int8-dynamic", options=("per_channel", "keep_float"))
def int8_dynamic(source: Artifact, ranges: Ranges, options: Options) -> Quantized:
    """Weights in 8-bit integers; the range of each activation is taken anew at every call. Needs no data."""
    quantization = require("onnxruntime.quantization", "quantize,cpu", "the scheme int8-dynamic")
    proto = require("onnx", "quantize", "the scheme int8-dynamic")
    model = as_gemms(load(source))
    as_matmuls(model)
    found = weighted(model, SLOTS)
    kept = unfit(model, (one.node for one in found)) | _kept(found, options)
    kept |= {
        node.name: FLOAT_ONLY[node.op_type]
        for node in nodes(model)
        if node.op_type in FLOAT_ONLY and node.domain in ("", "ai.onnx")
    }
    chosen = [one.node for one in found if one.node.name not in kept]
    if not chosen:
        raise nothing_to_quantize(source, "int8-dynamic", "product, LSTM or embedding table", kept)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        with loggers_at(logging.ERROR, "root"):  # it advises a preprocessing that changes nothing here
            quantization.quantize_dynamic(
                model,
                path,
                op_types_to_quantize=sorted({node.op_type for node in chosen}),
                nodes_to_quantize=[node.name for node in chosen],
                per_channel=options.per_channel,
                weight_type=quantization.QuantType.QInt8,
                use_external_data_format=True,
                extra_options={"EnableSubgraph": True, "DefaultTensorType": proto.TensorProto.FLOAT},
            )
        result: onnx.ModelProto = proto.load_model(str(path))
    _spell_out_dequantizing(result.graph)
    sort(result.graph)
    restore(result, model, "_quant")
    return Quantized(
        saver(result),
        kept_float=tuple(KeptFloat(name, why) for name, why in kept.items()),
        notes=(SATURATION, *((SPREADS,) if holds_infinity(model) else ())),
    )


def _spell_out_dequantizing(graph: onnx.GraphProto) -> None:
    """scale · (q − zero_point) of table rows as Cast, Sub and Mul: ONNX Runtime moves DequantizeLinear about, and 1.31
    aborts the process over one between Gather and Transpose in front of a Loop.
    """
    from onnx import TensorProto, helper

    spelled = []
    for node in graph.node:
        if node.op_type != "DequantizeLinear":
            spelled.append(node)
            continue
        q, scale, zero = node.input
        number, offset, less = (f"{node.output[0]}/{part}" for part in ("number", "offset", "less"))
        spelled += [
            helper.make_node("Cast", [q], [number], number, to=TensorProto.FLOAT),
            helper.make_node("Cast", [zero], [offset], offset, to=TensorProto.FLOAT),
            helper.make_node("Sub", [number, offset], [less], less),
            helper.make_node("Mul", [less, scale], node.output, node.name),
        ]
    replace_nodes(graph, spelled)


def _kept(found: list[Weighted], options: Options) -> dict[str, str]:
    """Operation -> why it stays in float."""
    small = tiny(found)
    kept = {}
    recurrent = Counter(one.node.input[2] for one in found if one.node.op_type == "LSTM")
    for one in found:
        if belongs(one.node.name, options.keep_float):
            kept[one.node.name] = ASKED
        elif one.node.name in small:
            kept[one.node.name] = TOO_SMALL
        elif one.node.op_type == "MatMul" and not _is_matrix(one, options.per_channel):
            kept[one.node.name] = NO_MATRIX
        elif one.node.op_type == "LSTM" and (why := _lstm_obstacle(one, recurrent)):
            kept[one.node.name] = why
    return kept


def _is_matrix(one: Weighted, per_channel: bool) -> bool:
    """Whether MatMulInteger takes the weight: a stack of matrices has no scales per channel there."""
    return len(one.weight.dims) == 2 or (len(one.weight.dims) > 2 and not per_channel)


def _lstm_obstacle(lstm: Weighted, recurrent: Counter[str]) -> str:
    """Why an LSTM cannot be quantized, or should not; empty when it can. recurrent: readers of recurrent weights."""
    if lstm.shared > 1 or recurrent[lstm.node.input[2]] > 1:
        return "another operation reads its weights too"
    units = lstm.weight.dims[1] // 4
    if units < LEAST_UNITS:
        return f"ONNX Runtime's dynamic LSTM is slower than the float one with {units} units (fewer than {LEAST_UNITS})"
    return ""
