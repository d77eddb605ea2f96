"""The graph of an .onnx file as ONNX Runtime hands it to its execution providers: after its basic optimizations, with
the types and sizes that ONNX Runtime infers; and the partitions that it would form.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mh_edge.errors import InputError
from mh_edge.forecast.graph import UNKNOWN, Graph, Node, Tensor
from mh_edge.packages import require
from mh_edge.runtimes.base import first_line
from mh_edge.runtimes.ort.session import DTYPES, SEVERITY_FATAL, failures
from mh_edge.signature import Dim, Signature

if TYPE_CHECKING:
    import onnx

PURPOSE = "the forecast for an .onnx file"

QUANTIZED = ("QuantizeLinear", "DequantizeLinear")

INSERTED = "InsertedPrecisionFreeCast_"
"""How the casts are named that ONNX Runtime inserts around float16 for the CPU, and for no other provider: a file that
gets them is looked at as it is.
"""


def read(path: Path, signature: Signature, ours: bool) -> Graph:
    """signature, ours: what inspecting it told. Raises InputError for a file that ONNX Runtime cannot open,
    UnavailableError when it is not installed.
    """
    onnx = require("onnx", "cpu", PURPOSE)
    require("onnxruntime", "cpu", PURPOSE)
    model_utils = require("onnxruntime.tools.onnx_model_utils", "cpu", PURPOSE)
    with tempfile.TemporaryDirectory() as folder:
        optimized = Path(folder) / "optimized.onnx"
        try:
            model_utils.optimize_model(path, optimized, log_level=SEVERITY_FATAL, use_external_initializers=True)
            model = onnx.load_model(str(optimized), load_external_data=False)
            if any(node.name.startswith(INSERTED) for node in model.graph.node):
                model = onnx.load_model(str(path))
            known = _inferred(model, Path(folder) / "typed.onnx")
        except failures() as error:
            raise InputError(
                f"{str(path)!r} cannot be opened by ONNX Runtime, so nothing can be foretold: {first_line(error)}"
            ) from error
    for tensor in model.graph.initializer:
        dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).name
        known[tensor.name] = Tensor(tensor.name, dtype, tuple(tensor.dims), constant=True)
    found = list(_protos(model.graph))
    for proto, _ in found:
        _same_size(proto, known)
    nodes = [_node(proto, body, known) for proto, body in found]

    def split(taken: frozenset[Node]) -> list[list[Node]]:
        return _split(model.graph, {id(proto): node for (proto, _), node in zip(found, nodes, strict=True)}, taken)

    outputs = frozenset(value.name for value in model.graph.output)
    return Graph(path, "onnx", nodes, signature, outputs, ours, split)


def _inferred(model: onnx.ModelProto, path: Path) -> dict[str, Tensor]:
    """Inputs and results of the main graph's nodes by name: ONNX Runtime tells the types of its outputs."""
    import onnx
    import onnxruntime

    typed = onnx.ModelProto()
    typed.CopyFrom(model)
    there = {value.name for value in typed.graph.output}
    names = [name for node in typed.graph.node for name in node.output if name and name not in there]
    typed.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    onnx.save_model(typed, str(path))
    options = onnxruntime.SessionOptions()
    options.log_severity_level = SEVERITY_FATAL
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    inferred = onnx.shape_inference.infer_shapes(model).graph
    scalars = {value.name for value in (*inferred.input, *inferred.value_info, *inferred.output) if _is_scalar(value)}
    found = (*session.get_inputs(), *session.get_outputs())
    return {item.name: _tensor(item, item.name in scalars) for item in found}


def _is_scalar(value: onnx.ValueInfoProto) -> bool:
    return value.type.tensor_type.HasField("shape") and not value.type.tensor_type.shape.dim


def _tensor(item: Any, scalar: bool) -> Tensor:
    # ONNX Runtime gives no sizes both for a scalar and for an unknown rank.
    sizes: tuple[Dim, ...] = tuple(size if isinstance(size, int) else size or UNKNOWN for size in item.shape)
    return Tensor(item.name, DTYPES.get(item.type, item.type), sizes if sizes or scalar else None, constant=False)


def _same_size(proto: onnx.NodeProto, known: dict[str, Tensor]) -> None:
    """What onnx has no inference for in com.microsoft: quantized and floats have the same size."""
    if _operation(proto) in QUANTIZED and proto.input[0] in known:
        for name in proto.output:
            if name in known and known[name].shape is None:
                known[name] = replace(known[name], shape=known[proto.input[0]].shape)


def _protos(graph: onnx.GraphProto, body: int = 0) -> Iterator[tuple[onnx.NodeProto, int]]:
    for node in graph.node:
        yield node, body
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs) if attribute.HasField("g") else attribute.graphs:
                yield from _protos(inner, body + 1)


def _node(proto: onnx.NodeProto, body: int, known: dict[str, Tensor]) -> Node:
    from onnx import AttributeProto, helper

    def tensor(name: str) -> Tensor:
        return known.get(name) or Tensor(name, UNKNOWN, None, constant=False)

    plain = (item for item in proto.attribute if item.type not in (AttributeProto.GRAPH, AttributeProto.GRAPHS))
    return Node(
        op=_operation(proto),
        inputs=tuple(tensor(name) if name else None for name in proto.input),
        outputs=tuple(tensor(name) for name in proto.output if name),
        options={item.name: helper.get_attribute_value(item) for item in plain},
        body=body,
    )


def _operation(proto: onnx.NodeProto) -> str:
    # The same two operations, for opsets that lack their 16-bit types.
    if proto.op_type in QUANTIZED:
        return str(proto.op_type)
    return f"{proto.domain}.{proto.op_type}".lstrip(".").removeprefix("ai.onnx.")


class _Taken:
    """What the usability checker asks whether a node is supported."""

    def __init__(self, nodes: dict[int, Node], taken: Iterable[Node]) -> None:
        self._nodes, self._taken = nodes, frozenset(taken)

    def is_op_supported(self, proto: onnx.NodeProto) -> bool:
        return self._nodes[id(proto)] in self._taken


def _split(graph: onnx.GraphProto, nodes: dict[int, Node], taken: frozenset[Node]) -> list[list[Node]]:
    """By the rule of ONNX Runtime's execution providers, which its usability checker has in Python."""
    checker = require("onnxruntime.tools.mobile_helpers.usability_checker", "cpu", PURPOSE)
    found = checker.check_partitioning(graph, _Taken(nodes, taken), require_fixed_input_sizes=False)
    return [[nodes[id(proto)] for proto in group] for group in found.supported_groups]
