"""fp16: weights and arithmetic in 16-bit floats, except where that would destroy a mask; inputs, outputs as before."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from mh_edge.artifact import Artifact
from mh_edge.packages import require
from mh_edge.quantization.onnx.halves import WHY, kept_float
from mh_edge.quantization.onnx.model import (
    captured,
    drop_unused,
    inferred,
    load,
    nothing_to_quantize,
    rename,
    replace_nodes,
    restore,
    saver,
    sort,
)
from mh_edge.quantization.onnx.products import as_gemms
from mh_edge.quantization.scheme import KeptFloat, Options, Quantized, Ranges, belongs, scheme

if TYPE_CHECKING:
    import onnx

OVERFLOW = (
    "on processors without 16-bit arithmetic ONNX Runtime computes this file in 32 bits: nothing is faster for it, and "
    "results beyond 65504, infinite elsewhere, do not show; measure on the device"
)

COPY = "/float32"
"""Suffix of the copies that the bodies of loops read."""


@scheme("onnx", "fp16", options=("keep_float",))
def fp16(source: Artifact, ranges: Ranges, options: Options) -> Quantized:
    """Weights and products in 16-bit floats; masks, softmax, inputs and outputs stay in 32. Needs no data."""
    float16 = require("onnxruntime.transformers.float16", "quantize,cpu", "the scheme fp16")
    model = as_gemms(load(source))
    kept = {node.name: WHY["keep_float"] for node in model.graph.node if belongs(node.name, options.keep_float)}
    kept |= {name: why for name, why in kept_float(model).items() if name not in kept}
    if not _halved_weights(model, kept):
        raise nothing_to_quantize(source, "fp16", "operation", kept)
    types = inferred(model)
    copies = _copies_for_bodies(model, types)
    del model.graph.value_info[:]
    model.graph.value_info.extend(types.values())
    own = {node.name for node in model.graph.node}
    result = float16.convert_float_to_float16(
        type(model).FromString(model.SerializeToString()),
        keep_io_types=True,
        disable_shape_infer=True,
        op_block_list=[],
        node_block_list=[*kept, *copies],
    )
    _join_casts(result, own)
    drop_unused(result)
    sort(result.graph)
    restore(result, model, "")
    return Quantized(
        saver(result), kept_float=tuple(KeptFloat(name, why) for name, why in kept.items()), notes=(OVERFLOW,)
    )


def _halved_weights(model: onnx.ModelProto, kept: Mapping[str, str]) -> bool:
    """Whether any operation that is not kept reads a constant that would be made smaller."""
    from onnx import TensorProto

    read = {name for node in model.graph.node if node.name not in kept for name in node.input}
    return any(tensor.name in read and tensor.data_type == TensorProto.FLOAT for tensor in model.graph.initializer)


def _copies_for_bodies(model: onnx.ModelProto, types: Mapping[str, onnx.ValueInfoProto]) -> list[str]:
    """Let the bodies of loops and branches read 32-bit copies of what they take from outside, since they stay as they
    are -> the names of the operations that make them. Nothing is known of a copy's type, else it would be halved.
    """
    from onnx import TensorProto, helper

    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    values = {value.name: value for value in model.graph.input} | dict(types)
    floats = {name for name, value in values.items() if value.type.tensor_type.elem_type == TensorProto.FLOAT}
    floats |= {name for name, tensor in constants.items() if tensor.data_type == TensorProto.FLOAT}
    made: dict[str, onnx.NodeProto | None] = {}
    for node in model.graph.node:
        for name in sorted(captured(node) & floats):
            rename(node, name, name + COPY)
            if name in made:
                continue
            if name in constants:
                made[name] = None
                copy = model.graph.initializer.add()
                copy.CopyFrom(constants[name])
                copy.name += COPY
            else:
                made[name] = helper.make_node("Identity", [name], [name + COPY], name=name + COPY)
    operations = [node for node in made.values() if node is not None]
    model.graph.node.extend(operations)
    return [node.name for node in operations]


def _join_casts(model: onnx.ModelProto, own: set[str]) -> None:
    """Of the casts that are new, leave one of each kind, and none between two operations that stay in 32 bits: it would
    round the masked scores on their way to the softmax. own: names of the operations that were there before.
    """
    graph = model.graph
    casts = {node.output[0]: node for node in graph.node if node.name not in own}
    old = [node for node in graph.node if node.name in own]
    direct = {name: casts[cast.input[0]].input[0] for name, cast in casts.items() if cast.input[0] in casts}
    outputs = {value.name for value in graph.output}
    for node in old:
        node.input[:] = [direct.get(name, name) for name in node.input]
    for name in sorted(outputs & direct.keys()):
        casts[name].op_type, casts[name].input[0] = "Identity", direct[name]
        del casts[name].attribute[:]
    needed = outputs.union(*(node.input for node in old))
    replace_nodes(graph, [*old, *(cast for name, cast in casts.items() if name in needed)])
