"""Graph clean-up after expansion: what is constant is folded, what is double or dead is dropped, and names become
stable.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common
from onnxscript import optimizer

from mh_edge.signature import Signature
from mh_edge_onnx.affine import fold_affine
from mh_edge_onnx.context import CALL
from mh_edge_onnx.initializers import derived
from mh_edge_onnx.layouts import settle_layouts
from mh_edge_onnx.names import Names
from mh_edge_onnx.peepholes import simplify

# Folded, these would blow a small description up into a large tensor; a runtime makes it in no time when it opens the
# file.
_DESCRIPTIONS = frozenset({"ConstantOfShape", "Expand", "EyeLike", "OneHot", "Range", "Tile", "Trilu"})

# Everything else that is constant is folded whatever its size: the file gets no larger by it.
_NO_LIMIT = 1 << 40


def clean(model: ir.Model, signature: Signature) -> None:
    """Fold, share, drop and rename, in place; afterwards inputs, outputs and their dims carry the signature's names."""
    # First, so that of two equal things the same one stays, whatever order tf2onnx wrote them in.
    _stable_order(model)
    fold_layouts(model)
    common.IdentityEliminationPass()(model)
    optimizer.fold_constants(
        model,
        onnx_shape_inference=True,
        input_size_limit=_NO_LIMIT,
        output_size_limit=_NO_LIMIT,
        should_fold=lambda node: False if node.op_type in _DESCRIPTIONS else None,
    )
    common.LiftConstantsToInitializersPass(lift_all_constants=False, size_limit=0)(model)
    simplify(model)
    common.RemoveUnusedNodesPass()(model)
    settle_layouts(model)
    fold_affine(model)
    common.DeduplicateInitializersPass()(model)
    common.CommonSubexpressionEliminationPass()(model)
    common.IdentityEliminationPass()(model)
    common.RemoveUnusedNodesPass()(model)
    common.RemoveUnusedOpsetsPass()(model)
    _name_interface(model, signature)
    _stable_order(model)
    _stable_names(model)


def fold_layouts(model: ir.Model) -> None:
    """Operations that only lay a weight out anew (the transpose of a convolution kernel) are done once, here, and
    lazily.
    """
    for node in list(model.graph):
        layout = _LAYOUTS.get(node.op_type) if node.domain == "" else None
        weight = node.inputs[0] if node.inputs else None
        if layout is None or weight is None or not isinstance(weight.const_value, ir.LazyTensor):
            continue
        out, change = node.outputs[0], layout(node)
        if change is not None and not out.is_graph_output():
            out.replace_all_uses_with(derived(model.graph, [weight], change))
            model.graph.remove(node, safe=True)


Layout = Callable[[np.ndarray], np.ndarray]


def _ints(value: ir.Value | None) -> list[int] | None:
    if value is None or value.const_value is None:
        return None
    return [int(item) for item in value.const_value.numpy().ravel()]


def _transpose(node: ir.Node) -> Layout | None:
    perm = node.attributes["perm"].as_ints() if "perm" in node.attributes else None
    return lambda array: array.transpose(perm)


def _reshape(node: ir.Node) -> Layout | None:
    target = _ints(node.inputs[1])
    if target is None or 0 in target:
        return None
    return lambda array: array.reshape(target)


def _unsqueeze(node: ir.Node) -> Layout | None:
    axes = _ints(node.inputs[1])
    return None if axes is None else lambda array: np.expand_dims(array, tuple(axes))


def _squeeze(node: ir.Node) -> Layout | None:
    if len(node.inputs) < 2:
        return lambda array: array.squeeze()
    axes = _ints(node.inputs[1])
    return None if axes is None else lambda array: array.squeeze(tuple(axes))


def _identity(node: ir.Node) -> Layout | None:
    del node
    return lambda array: array


_LAYOUTS: Mapping[str, Callable[[ir.Node], Layout | None]] = {
    "Transpose": _transpose,
    "Reshape": _reshape,
    "Unsqueeze": _unsqueeze,
    "Squeeze": _squeeze,
    "Identity": _identity,
}


def _name_interface(model: ir.Model, signature: Signature) -> None:
    graph = model.graph
    taken = {tensor.name for tensor in (*signature.inputs, *signature.outputs)}
    for value in _values(graph):
        if value.name in taken:
            value.name = f"{value.name}__inner"
    _separate_outputs(graph)
    for value, tensor in zip(graph.inputs, signature.inputs, strict=True):
        value.name, value.shape = tensor.name, ir.Shape(tensor.shape)
    for value, tensor in zip(graph.outputs, signature.outputs, strict=True):
        value.name, value.shape = tensor.name, ir.Shape(tensor.shape)


def _separate_outputs(graph: ir.Graph) -> None:
    """An output that is also an input, an initializer or another output gets an Identity, so that it can have its own
    name.
    """
    seen: set[ir.Value] = set()
    for index, value in enumerate(graph.outputs):
        if value in seen or value.is_graph_input() or value.is_initializer():
            node = ir.node("Identity", [value], name=f"output_{index}/Identity")
            copy = node.outputs[0]
            copy.type, copy.shape = value.type, value.shape
            graph.append(node)
            graph.outputs[index] = copy
        seen.add(value)


def _bodies(node: ir.Node) -> list[ir.Graph]:
    """The subgraphs of Loop, Scan and If."""
    attributes = node.attributes.values()
    return [attribute.as_graph() for attribute in attributes if attribute.type == ir.AttributeType.GRAPH]


def _inner_values(graph: ir.Graph) -> list[ir.Value]:
    return [value for node in graph for value in node.outputs if not value.is_graph_output()]


def _values(graph: ir.Graph) -> list[ir.Value]:
    values = [value for node in ir.traversal.RecursiveGraphIterator(graph) for value in node.outputs]
    return [*graph.inputs, *graph.initializers.values(), *values]


_COUNTER = re.compile(r"__\d+|:\d+$")
"""What tf2onnx appends from a counter that runs on from one conversion to the next."""


def _stable_order(model: ir.Model) -> None:
    """Nodes in the order in which the outputs need them, initializers in the order of first use.

    tf2onnx's own order depends on hashes of the process.
    """
    common.LiftSubgraphInitializersToMainGraphPass()(model)
    graph = model.graph
    ordered: dict[ir.Node, None] = {}
    used: dict[ir.Value, None] = {}

    def needs(node: ir.Node) -> list[ir.Value]:
        bodies = _bodies(node)
        inner = [item for body in bodies for item in ir.traversal.RecursiveGraphIterator(body)]
        values = [*node.inputs, *(value for item in inner for value in item.inputs)]
        values += [value for body in bodies for value in body.outputs]
        return [value for value in values if value is not None]

    pending = [(node, False) for value in reversed(graph.outputs) if (node := value.producer()) is not None]
    while pending:
        node, ready = pending.pop()
        if node in ordered or node.graph is not graph:
            continue
        if ready:
            ordered[node] = None
            used.update((value, None) for value in needs(node) if value.is_initializer())
            continue
        pending.append((node, True))
        producers = [value.producer() for value in reversed(needs(node))]
        pending.extend((producer, False) for producer in producers if producer is not None)
    graph.remove(list(graph))
    graph.extend(ordered)
    used |= {value: None for value in graph.outputs if value.is_initializer()}
    graph.initializers.clear()
    for value in used:
        graph.register_initializer(value)


def _stable_names(model: ir.Model) -> None:
    """Names depend on the model alone, so that the same model gives the same bytes."""
    graph = model.graph
    values, nodes = Names(), Names()
    fixed = {*graph.inputs, *graph.outputs}
    for value in fixed:
        values.unique(value.name or "")
    renamed: dict[ir.Value, str] = {}
    for value in graph.initializers.values():
        is_weight = isinstance(value.const_value, ir.LazyTensor)
        base = _COUNTER.sub("", (value.name or "").removeprefix("initializer/")) if is_weight else "constant"
        renamed[value] = values.unique(base)
    for body in (body for node in ir.traversal.RecursiveGraphIterator(graph) for body in _bodies(node)):
        renamed |= {value: values.unique("body_input") for value in body.inputs}
    for node in ir.traversal.RecursiveGraphIterator(graph):
        # tf2onnx merges equal nodes in an order of its own, so which of their names stays is chance.
        node.name = nodes.unique((node.name or node.op_type) if CALL in node.metadata_props else node.op_type)
        renamed |= {
            value: values.unique(f"{node.name}:{value.index()}") for value in node.outputs if value not in fixed
        }
    for value in _inner_values(graph):
        # Any reader infers these; here they would only carry tf2onnx's names for unknown sizes.
        value.type = value.shape = None
    for node in ir.traversal.RecursiveGraphIterator(graph):
        # The call is in the node's name by now.
        node.metadata_props.pop(CALL, None)
    # In two steps, so that no new name meets an old one that is still in use.
    for index, value in enumerate(renamed):
        value.name = f"__{index}"
    for value, name in renamed.items():
        value.name = name
