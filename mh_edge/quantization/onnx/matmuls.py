"""Gemm as quantizers know it: without scales beside its matrices, or as MatMul and Add.

ONNX Runtime's own rewriting transposes a weight in place even when another operation reads it, and loses the names;
its calibrated quantizer takes no notice of beta, and fails on a bias that is not a vector.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mh_edge.quantization.onnx.model import drop_unused, graphs, replace_nodes, weights

if TYPE_CHECKING:
    import onnx

SEPARATOR = "/"
"""Between an operation's name and what it was divided into, so that whoever names the operation names its parts."""


MATRIX = (1, 0)
"""The order of the axes of a matrix behind Transpose, if nothing else is said."""


def as_plain_gemms(model: onnx.ModelProto) -> None:
    """alpha · A B + beta · C -> Gemm(A, alpha · B, beta · C), in place, wherever B is constant. A C that is no vector
    for all rows is added behind it. The Gemm keeps its name and metadata.
    """
    _rewrite(model, divide=False)


def as_matmuls(model: onnx.ModelProto) -> None:
    """alpha · A B + beta · C -> MatMul(A, alpha · B) + beta · C, in place, wherever B is constant and A is not
    transposed. The MatMul keeps the Gemm's name and metadata; a transposed or scaled weight is written anew.
    """
    _rewrite(model, divide=True)


def fold_transposes(model: onnx.ModelProto) -> None:
    """Transpose of a constant matrix -> a constant, in place, in the outermost graph: else it is no weight, as where a
    table of embeddings makes the outputs too.
    """
    from onnx import numpy_helper

    graph, constants = model.graph, weights(model)
    results = {value.name for value in graph.output}
    left = []
    for node in graph.node:
        held = constants.get(node.input[0]) if node.op_type == "Transpose" else None
        if held is None or len(held.dims) != len(MATRIX) or node.output[0] in results:
            left.append(node)
            continue
        order = next((tuple(one.ints) for one in node.attribute if one.name == "perm"), MATRIX)
        turned = np.ascontiguousarray(numpy_helper.to_array(held).transpose(order))
        graph.initializer.append(numpy_helper.from_array(turned, node.output[0]))
    if len(left) < len(graph.node):
        replace_nodes(graph, left)
        drop_unused(model)


def _rewrite(model: onnx.ModelProto, divide: bool) -> None:
    constants = weights(model)
    for graph in graphs(model.graph):
        if any(node.op_type == "Gemm" for node in graph.node):
            replace_nodes(graph, [one for node in graph.node for one in _rewritten(node, graph, constants, divide)])
    drop_unused(model)


def _rewritten(
    node: onnx.NodeProto, graph: onnx.GraphProto, constants: dict[str, onnx.TensorProto], divide: bool
) -> list[onnx.NodeProto]:
    from onnx import helper, numpy_helper

    options = {"alpha": 1.0, "beta": 1.0, "transA": 0, "transB": 0}
    options |= {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    if node.op_type != "Gemm" or node.domain not in ("", "ai.onnx") or node.input[1] not in constants:
        return [node]
    if divide and options["transA"]:
        return [node]
    a, b, c = [*node.input, ""][:3]
    made: list[onnx.NodeProto] = []

    def constant(name: str, array: np.ndarray, how: str) -> str:
        new = f"{node.name}{SEPARATOR}{name}{SEPARATOR}{how}"
        graph.initializer.append(numpy_helper.from_array(array, new))
        return new

    def operation(kind: str, inputs: list[str], result: str) -> str:
        name = node.name if kind in ("Gemm", "MatMul") else f"{node.name}{SEPARATOR}{kind}"
        made.append(helper.make_node(kind, inputs, [result], name))
        made[-1].metadata_props.extend(node.metadata_props)
        return result

    weight = numpy_helper.to_array(constants[b])
    units = weight.shape[0 if options["transB"] else 1]
    turned = bool(divide and options["transB"])
    if turned or options["alpha"] != 1:
        weight = weight.T if turned else weight
        b = constant(b, (weight * weight.dtype.type(options["alpha"])).copy(), "weight")
    vector = False
    if c in constants:
        bias = numpy_helper.to_array(constants[c])
        scaled = bias * bias.dtype.type(options["beta"])
        vector = bias.size == bias.shape[-1] if bias.ndim else True
        if vector:
            scaled = np.broadcast_to(scaled.reshape(-1), (units,)).copy()
        if options["beta"] != 1 or scaled.shape != bias.shape:
            c = constant(c, scaled, "bias")
    elif c and options["beta"] != 1:
        beta = constant(c, np.asarray(options["beta"], weight.dtype), "beta")
        c = operation("Mul", [c, beta], f"{c}{SEPARATOR}{node.name}{SEPARATOR}scaled")
    whole = node.output[0]
    behind = bool(c) and (divide or not vector)
    product = f"{whole}{SEPARATOR}product" if behind else whole
    if divide:
        operation("MatMul", [a, b], product)
    else:
        operation("Gemm", [a, b, c] if vector else [a, b], product)
        made[-1].attribute.extend(one for one in node.attribute if one.name in ("transA", "transB"))
    if behind:
        operation("Add", [product, c], whole)
    return made
