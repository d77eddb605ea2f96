"""Replacing each marked layer by the operations of its rule."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from mh_edge.capture import LayerCall, split_arguments
from mh_edge.errors import ConversionError
from mh_edge_onnx.bridge import DOMAIN
from mh_edge_onnx.context import Context, Job, resolve


def expand(model: ir.Model, calls: dict[str, LayerCall], job: Job) -> None:
    """Expand every `mh_edge::Call` node of the model, in place; nodes inside the bodies of Loop and If too."""
    marked = [node for node in ir.traversal.RecursiveGraphIterator(model.graph) if node.domain == DOMAIN]
    for node in marked:
        _expand(node, calls[node.attributes["token"].as_string()], job)


def _expand(node: ir.Node, call: LayerCall, job: Job) -> None:
    values = list(node.inputs)
    for value, spec in zip(values, call.specs, strict=True):
        if value is None:
            raise ConversionError(f"{call.layer.name}: one of its inputs disappeared while the model was converted.")
        _describe(value, spec.dtype, spec.shape)
    ctx = Context(job, call.rule, call.layer, resolve(dict(call.arguments), values), outputs=len(node.outputs))
    inputs, masks = split_arguments(call.arguments)
    outputs = ctx.lower(call.rule, call.layer, resolve(inputs, values), resolve(masks, values))
    if len(outputs) != len(node.outputs):
        raise ConversionError(
            f"the rule for {call.rule.name} gave {len(outputs)} outputs for layer {call.layer.name!r}, "
            f"which has {len(node.outputs)}."
        )
    for old, new in zip(node.outputs, outputs, strict=True):
        new.shape = new.shape or old.shape
    if node.graph is None:
        raise ConversionError(f"{call.layer.name}: its place in the graph was lost while the model was converted.")
    ir.convenience.replace_nodes_and_values(node.graph, node, [node], ctx.nodes, node.outputs, outputs)


def _describe(value: ir.Value, dtype: str, shape: tuple[int | str, ...]) -> None:
    """What the trace knew of a value, where the graph does not say more."""
    if value.dtype is None:
        value.type = ir.TensorType(ir.DataType.from_numpy(np.dtype(dtype)))
    if value.shape is None:
        value.shape = ir.Shape([None if dim == "?" else dim for dim in shape])
