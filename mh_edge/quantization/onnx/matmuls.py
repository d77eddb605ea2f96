"""Gemm -> MatMul and Add, for quantizers that know MatMul only.

ONNX Runtime's own rewriting transposes a weight in place even when another operation reads it, and loses the names.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mh_edge.quantization.onnx.model import drop_unused, graphs, replace_nodes, weights

if TYPE_CHECKING:
    import numpy as np
    import onnx

SEPARATOR = "/"
"""Between an operation's name and what it was divided into, so that whoever names the operation names its parts."""


def as_matmuls(model: onnx.ModelProto) -> None:
    """alpha · A B + beta · C -> MatMul(A, alpha · B) + beta · C, in place, wherever B and C are constant and A is not
    transposed. The MatMul keeps the Gemm's name and metadata; a transposed or scaled weight is written anew.
    """
    constants = weights(model)
    for graph in graphs(model.graph):
        if any(node.op_type == "Gemm" for node in graph.node):
            replace_nodes(graph, [one for node in graph.node for one in _divided(node, graph, constants)])
    drop_unused(model)


def _divided(
    node: onnx.NodeProto, graph: onnx.GraphProto, constants: dict[str, onnx.TensorProto]
) -> list[onnx.NodeProto]:
    from onnx import helper, numpy_helper

    if node.op_type != "Gemm" or node.domain not in ("", "ai.onnx"):
        return [node]
    options = {"alpha": 1.0, "beta": 1.0, "transA": 0, "transB": 0}
    options |= {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    a, b, *c = node.input
    c = [name for name in c if name]
    if options["transA"] or any(name not in constants for name in (b, *c)):
        return [node]

    def changed(name: str, array: np.ndarray, how: str) -> str:
        new = f"{node.name}{SEPARATOR}{name}{SEPARATOR}{how}"
        graph.initializer.append(numpy_helper.from_array(array, new))
        return new

    if options["transB"] or options["alpha"] != 1:
        weight = numpy_helper.to_array(constants[b])
        weight = weight.T if options["transB"] else weight
        b = changed(b, (weight * weight.dtype.type(options["alpha"])).copy(), "weight")
    if c and options["beta"] != 1:
        bias = numpy_helper.to_array(constants[c[0]])
        c = [changed(c[0], bias * bias.dtype.type(options["beta"]), "bias")]
    product = helper.make_node("MatMul", [a, b], node.output, name=node.name)
    product.metadata_props.extend(node.metadata_props)
    if not c:
        return [product]
    product.output[0] = f"{node.output[0]}{SEPARATOR}product"
    add = helper.make_node("Add", [product.output[0], c[0]], node.output, name=f"{node.name}{SEPARATOR}Add")
    add.metadata_props.extend(node.metadata_props)
    return [product, add]
