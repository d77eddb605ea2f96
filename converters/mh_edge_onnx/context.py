"""The builder that a rule for ONNX writes with."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
import onnx
import onnx_ir as ir

from mh_edge.artifact import Choice
from mh_edge.capture import Slot, capture, nested_layers
from mh_edge.errors import ConversionError
from mh_edge.rules import Rule, RuleSet, rules_for
from mh_edge.signature import Dim, Tensor
from mh_edge_onnx import activations
from mh_edge_onnx.initializers import initializer, lazy_tensor
from mh_edge_onnx.names import Names

RULE = "mh_edge.rule"
CALL = "mh_edge.call"
"""Metadata of every emitted node: the rule that wrote it, and, until names are settled, the layer call it belongs
to."""

OWN_DOMAIN, OWN_VERSION = "com.microsoft", 1
"""ONNX Runtime's own operations: for files that only ONNX Runtime opens."""

RULE_ERRORS = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError, onnx.defs.SchemaError)
"""What a mistake in a rule raises: a weight that is not there, an operation that this opset does not have."""

Inputs = Sequence[ir.Value]
Masks = Sequence[ir.Value | None]


@dataclass
class Job:
    """What one conversion shares between all its layer calls: settings, shared initializers, and what is told of it:
    the count of rules used, the choices made, the session options asked for.
    """

    opset: int
    runtime: str
    merge: bool
    convert: Callable[[Any, Job], ir.Model]
    rules: RuleSet = field(default_factory=lambda: rules_for("onnx"))
    used: dict[str, int] = field(default_factory=dict)
    calls: dict[str, int] = field(default_factory=dict)
    choices: list[Choice] = field(default_factory=list)
    session_options: dict[str, str] = field(default_factory=dict)
    initializers: dict[Any, ir.Value] = field(default_factory=dict)
    names: Names = field(default_factory=Names)

    def register(self, graph: ir.Graph) -> None:
        """Give the graph every shared initializer that something uses."""
        for value in self.initializers.values():
            if value.uses():
                value.name = self.names.unique(f"initializer/{value.name}")
                graph.register_initializer(value)


class Context:
    """Writes the operations of one layer call.

    opset, runtime: what the file is for ("cpu", "cuda", "plugins", "portable"). merge: whether parallel heads may
    become one operation. arguments: the layer call's arguments by name, tensors as ir.Value, for rules that need
    more than inputs and masks. outputs: how many the call has. nodes: what was written so far, in order.
    """

    def __init__(
        self, job: Job, rule: Rule, layer: keras.Layer, arguments: Mapping[str, Any], parent: str = "", outputs: int = 1
    ) -> None:
        self._job = job
        self._rule = rule.name
        path = f"{parent}/{layer.name}" if parent else layer.name
        job.calls[path] = job.calls.get(path, 0) + 1
        self._call = path if job.calls[path] == 1 else f"{path}#{job.calls[path]}"
        job.used[rule.name] = job.used.get(rule.name, 0) + 1
        self.opset = job.opset
        self.runtime = job.runtime
        self.merge = job.merge
        self.arguments = arguments
        self.outputs = outputs
        self.nodes: list[ir.Node] = []

    def chose(self, choice: str, why: str) -> None:
        """Tell which of several forms this layer call was given."""
        self._job.choices.append(Choice(self._call, choice, why))

    def session_option(self, key: str, value: str) -> None:
        """Ask for a session option of ONNX Runtime that the speed of what is written depends on."""
        self._job.session_options[key] = value

    def op(self, op_type: str, *inputs: ir.Value | None, **attributes: Any) -> ir.Value:
        """One operation with one output; `attributes` are ONNX's."""
        return self.ops(op_type, *inputs, outputs=1, **attributes)[0]

    def ops(self, op_type: str, *inputs: ir.Value | None, outputs: int, **attributes: Any) -> tuple[ir.Value, ...]:
        """One operation with several outputs."""
        node = self._write(op_type, inputs, attributes, outputs)
        _infer(node, self.opset)
        return tuple(node.outputs)

    def own_op(
        self, op_type: str, *inputs: ir.Value | None, shape: Sequence[Dim | None], **attributes: Any
    ) -> ir.Value:
        """One of ONNX Runtime's own operations, whose result has the first input's dtype; ONNX knows no shape of it."""
        node = self._write(op_type, inputs, attributes, 1, OWN_DOMAIN)
        (output,) = node.outputs
        output.type = next(value.type for value in inputs if value is not None and value.type is not None)
        output.shape = ir.Shape(shape)
        return output

    def _write(
        self,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        attributes: Mapping[str, Any],
        outputs: int,
        domain: str = "",
    ) -> ir.Node:
        node = ir.node(
            op_type,
            list(inputs),
            attributes={key: value for key, value in attributes.items() if value is not None},
            domain=domain,
            num_outputs=outputs,
            name=self._job.names.unique(f"{self._call}/{op_type}"),
            metadata_props={RULE: self._rule, CALL: self._call},
        )
        for value in node.outputs:
            value.name = self._job.names.unique(f"{node.name}:{value.index()}" if outputs > 1 else f"{node.name}:0")
        self.nodes.append(node)
        return node

    def constant(self, value: Any, dtype: str = "int64") -> ir.Value:
        """A small constant, shared by every use of the same numbers."""
        array = np.asarray(value, dtype=dtype)
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._job.initializers:
            name = self._job.names.unique(f"const_{array.dtype.name}_{'x'.join(map(str, array.shape)) or 'scalar'}")
            self._job.initializers[key] = _held(name, lambda: array, array)
        return self._job.initializers[key]

    def weight(
        self,
        variables: keras.Variable | Sequence[keras.Variable],
        transform: Callable[..., np.ndarray] = lambda array: array,
        label: str = "",
    ) -> ir.Value:
        """An initializer made of one or more Keras variables: `transform(array, ...)`.

        Calls with the same variables and the same label give the same initializer, so a `label` names the transform.
        The numbers are read from Keras only when the file is written.
        """
        used = [variables] if isinstance(variables, keras.Variable) else list(variables)
        key = (tuple(id(variable) for variable in used), label)
        if key not in self._job.initializers:
            # The transform of zero-strided zeros costs no copy of the weights and gives the final shape.
            probe = transform(*(np.broadcast_to(np.zeros((), variable.dtype), variable.shape) for variable in used))
            name = self._job.names.unique("/".join(filter(None, (used[0].path, label))))

            def read() -> np.ndarray:
                return np.ascontiguousarray(transform(*map(keras.ops.convert_to_numpy, used)))

            self._job.initializers[key] = _held(name, read, probe)
        return self._job.initializers[key]

    def shape(self, value: ir.Value) -> tuple[Dim | None, ...]:
        """The value's sizes: an int, a name, or None where nothing is known."""
        if value.shape is None:
            raise ConversionError(f"{self._call}: the shape of {value.name} is not known while its rule is applied.")
        return tuple(dim if isinstance(dim, int) else dim.value for dim in value.shape)

    def activation(self, function: Callable[..., Any], x: ir.Value) -> ir.Value:
        """Any Keras activation: its ONNX operations where there are some, else traced through the default
        conversion.
        """
        lowered = activations.lower(self, function, x)
        return lowered if lowered is not None else self.trace(function, (x,))[0]

    def call(self, layer: keras.Layer, inputs: Inputs, masks: Masks = ()) -> tuple[ir.Value, ...]:
        """Another layer on these values: by its own rule where it has one, else by the default conversion of its own
        body.
        """
        rule = self._job.rules.find(layer)
        padded = [*masks, *[None] * (len(inputs) - len(masks))]
        if rule is not None:
            inner = Context(self._job, rule, layer, {}, self._call)
            outputs = inner.lower(rule, layer, inputs, padded)
            self.nodes.extend(inner.nodes)
            return outputs
        given = [mask for mask in padded if mask is not None and "mask" in layer._call_signature.parameters]

        def body(flat: Sequence[Any]) -> Any:
            values, rest = list(flat[: len(inputs)]), iter(flat[len(inputs) :])
            kept = [None if mask is None else next(rest) for mask in padded] if given else []
            kwargs = {"mask": kept if len(kept) > 1 else kept[0]} if given else {}
            return layer(values if len(values) > 1 else values[0], **kwargs)

        return self._splice(body, [*inputs, *given], layer)

    def trace(self, function: Callable[..., Any], inputs: Inputs) -> tuple[ir.Value, ...]:
        """Any function of Keras tensors, through the default conversion."""
        return self._splice(lambda flat: function(*flat), inputs, None)

    def lower(self, rule: Rule, layer: keras.Layer, inputs: Inputs, masks: Masks) -> tuple[ir.Value, ...]:
        """Apply the rule -> its outputs as a tuple. Raises ConversionError, naming the rule, when it fails."""
        where = f"the ONNX rule for {rule.name} ({rule.lower.__module__}), applied to layer {layer.name!r},"
        try:
            outputs = rule.lower(self, layer, tuple(inputs), tuple(masks))
        except RULE_ERRORS as error:
            raise ConversionError(f"{where} raised {type(error).__name__}: {error}", "Mend the rule.") from error
        found = tuple(outputs) if isinstance(outputs, tuple | list) else (outputs,)
        if not all(isinstance(value, ir.Value) for value in found):
            raise ConversionError(f"{where} returned {outputs!r}.", "A rule returns what ctx.op gave it, or several.")
        return found

    def _splice(
        self, body: Callable[[Sequence[Any]], Any], values: Inputs, layer: keras.Layer | None
    ) -> tuple[ir.Value, ...]:
        specs = [
            Tensor(f"value_{index}", _dtype(value), tuple("?" if dim is None else dim for dim in self.shape(value)))
            for index, value in enumerate(values)
        ]
        captured = capture(
            body,
            specs,
            layers=[] if layer is None else nested_layers(layer),
            variables=[] if layer is None else [*layer.trainable_variables, *layer.non_trainable_variables],
            rules=self._job.rules,
        )
        model = self._job.convert(captured, self._job)
        for inner, value in zip(model.graph.inputs, values, strict=True):
            inner.replace_all_uses_with(value, replace_graph_outputs=True)
        results = tuple(model.graph.outputs)
        for weight in list(model.graph.initializers.values()):
            model.graph.initializers.pop(weight.name or "")
            self._job.initializers["spliced", id(weight)] = weight
        nodes = list(model.graph)
        model.graph.outputs.clear()
        model.graph.remove(nodes)
        for node in nodes:
            if CALL not in node.metadata_props:
                node.name = f"{self._call}/{node.op_type}"
                node.metadata_props.update({RULE: self._rule, CALL: self._call})
        self.nodes.extend(nodes)
        return results


def _held(name: str, read: Callable[[], np.ndarray], like: np.ndarray) -> ir.Value:
    """An initializer of what `read` gives, whose dtype and shape are those of `like`."""
    return initializer(name, lazy_tensor(name, read, ir.DataType.from_numpy(like.dtype), ir.Shape(like.shape)))


def _dtype(value: ir.Value) -> str:
    if value.dtype is None:
        raise ConversionError(f"the dtype of {value.name} is not known while a rule is applied.")
    return str(value.dtype.numpy().name)


# Constants whose numbers shape inference may need (Reshape's target, Slice's bounds) are small; weights never are.
_INFERENCE_DATA_LIMIT = 64


def _infer(node: ir.Node, opset: int) -> None:
    """Fill in dtype and shape of the node's outputs from those of its inputs."""
    schema = _schema(node.op_type, opset)
    types: dict[str, onnx.TypeProto] = {}
    data: dict[str, onnx.TensorProto] = {}
    for value in node.inputs:
        if value is None or value.type is None or value.name is None:
            continue
        types[value.name] = ir.to_proto(value).type
        constant = value.const_value
        if constant is not None and constant.size <= _INFERENCE_DATA_LIMIT:
            data[value.name] = onnx.numpy_helper.from_array(constant.numpy(), value.name)
    inferred = onnx.shape_inference.infer_node_outputs(
        schema, ir.to_proto(node), types, data, opset_imports=[onnx.helper.make_opsetid("", opset)]
    )
    for value in node.outputs:
        if value.name in inferred:
            kind = ir.serde.deserialize_type_proto_for_type(inferred[value.name])
            shape = ir.serde.deserialize_type_proto_for_shape(inferred[value.name])
            value.type, value.shape = kind, shape


@functools.cache
def _schema(op_type: str, opset: int) -> onnx.defs.OpSchema:
    return onnx.defs.get_schema(op_type, opset)


def resolve(structure: Any, values: Sequence[ir.Value | None]) -> Any:
    """The structure of a LayerCall with its Slots replaced by values."""
    return keras.tree.map_structure(lambda leaf: values[leaf.index] if isinstance(leaf, Slot) else leaf, structure)
