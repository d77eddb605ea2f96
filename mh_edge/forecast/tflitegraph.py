"""The graph of a .tflite file, read from its tables, and the partitions that the interpreter would form."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mh_edge.errors import InputError
from mh_edge.flatbuffer import free_dim
from mh_edge.forecast.graph import Graph, Node, Tensor
from mh_edge.packages import require
from mh_edge.signature import Dim, Signature


def read(path: Path, signature: Signature, ours: bool) -> Graph:
    """A file that was inspected before, so that its tables are known to be whole. signature, ours: what that told."""
    schema = require("ai_edge_litert.schema_py_generated", "litert", "the forecast for a .tflite file")
    model = schema.Model.GetRootAs(path.read_bytes(), 0)
    try:
        nodes = list(_nodes(model, schema))
        main = model.Subgraphs(0)
        outputs = frozenset(f"0:{main.Outputs(index)}" for index in range(main.OutputsLength()))
    except (struct.error, IndexError, TypeError, ValueError, AttributeError, KeyError) as error:
        # What inspecting it does not touch, such as the names of tensors inside.
        raise InputError(f"{str(path)!r} is truncated or damaged: {error}.", "Copy or export it again.") from error

    def split(taken: frozenset[Node]) -> list[list[Node]]:
        bodies = range(model.SubgraphsLength())
        return [part for body in bodies for part in _split([node for node in nodes if node.body == body], taken)]

    return Graph(path, "tflite", nodes, signature, outputs, ours, split)


def _nodes(model: Any, schema: Any) -> Iterator[Node]:
    builtin = {code: name for name, code in vars(schema.BuiltinOperator).items() if not name.startswith("_")}
    dtypes = {code: name.lower() for name, code in vars(schema.TensorType).items() if not name.startswith("_")}
    for place in range(model.SubgraphsLength()):
        graph = model.Subgraphs(place)
        operators = [graph.Operators(index) for index in range(graph.OperatorsLength())]
        codes = [model.OperatorCodes(operator.OpcodeIndex()) for operator in operators]
        unpack = schema.BuiltinOperator.DEQUANTIZE
        made = {
            operator.Outputs(index)
            for operator, code in zip(operators, codes, strict=True)
            for index in range(operator.OutputsLength())
            # Delegates see weights that are only unpacked from float16 as constants.
            if code.BuiltinCode() != unpack or graph.Tensors(operator.Inputs(0)).Type() != schema.TensorType.FLOAT16
        }

        given = {graph.Inputs(index) for index in range(graph.InputsLength())}

        def tensor(index: int, graph: Any = graph, place: int = place, made: set[int] = made | given) -> Tensor:
            table = graph.Tensors(index)
            constant = index not in made and not table.IsVariable()
            return Tensor(f"{place}:{index}", dtypes.get(table.Type(), "unknown"), _shape(table), constant)

        for operator, code in zip(operators, codes, strict=True):
            number = max(code.DeprecatedBuiltinCode(), code.BuiltinCode())
            custom = number == schema.BuiltinOperator.CUSTOM
            inputs = [operator.Inputs(index) for index in range(operator.InputsLength())]
            yield Node(
                op=code.CustomCode().decode() if custom else builtin.get(number, f"BUILTIN_{number}"),
                inputs=tuple(tensor(index) if index >= 0 else None for index in inputs),
                outputs=tuple(tensor(operator.Outputs(index)) for index in range(operator.OutputsLength())),
                options={},
                body=place,
                version=code.Version(),
            )


def _shape(table: Any) -> tuple[Dim, ...]:
    field = table.ShapeSignature if table.ShapeSignatureLength() else table.Shape
    name = table.Name().decode()
    sizes = [int(field(axis)) for axis in range(table.ShapeSignatureLength() or table.ShapeLength())]
    return tuple(size if size >= 0 else free_dim(name, axis) for axis, size in enumerate(sizes))


def _split(nodes: Sequence[Node], taken: frozenset[Node]) -> list[list[Node]]:
    """Parts follow each other, of the delegate and of the CPU in turn; each takes every node of its kind whose inputs
    are there when it begins or come from itself (tflite/graph_info.cc of LiteRT 2.3).
    """
    makers = {tensor.name for node in nodes for tensor in node.outputs}
    ready: set[str] = set()
    waiting, parts = list(nodes), []
    while waiting:
        part: list[Node] = []
        kind: bool | None = None
        grown = True
        while grown:
            grown = False
            for node in tuple(waiting):
                if kind not in (None, node in taken):
                    continue
                if all(tensor.name in ready or tensor.name not in makers for tensor in node.given):
                    kind, grown = node in taken, True
                    part.append(node)
                    waiting.remove(node)
                    ready.update(tensor.name for tensor in node.outputs)
        if not part:
            break  # a circle, which no runtime takes
        if kind:
            parts.append(part)
    return parts
