"""Reading a TFLite file's tables without opening it in a runtime, so that a file no runtime takes can be looked at too.

The generated accessors do not check offsets: every count and every buffer is compared with the size of the file here,
and what still points outside ends as InputError.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mh_edge.errors import InputError
from mh_edge.signature import Dim, Signature, Tensor

METADATA = "mh_edge"
"""Name of the metadata in which a file of ours says {"rules": {rule: calls}}, as JSON."""


_SCOPE = re.compile(r"mh_edge\.(\w+)/")


@dataclass(frozen=True)
class Tables:
    """ops: every operation of every subgraph, in order: its name ("FULLY_CONNECTED"; custom ones by their own name) and
    the rule that made it, "" if none did. rules: how many layer calls each rule made, by our own metadata; {} for a
    file of others.
    """

    signature: Signature
    ops: tuple[tuple[str, str], ...]
    rules: Mapping[str, int]


def read_tables(path: Path, schema: Any) -> Tables:
    """The tables of a TFLite file. schema: the module generated from TFLite's schema. Raises InputError for a damaged
    file.
    """
    content = path.read_bytes()
    try:
        model = schema.Model.GetRootAs(content, 0)
        size = len(content)
        _check_buffers(model, size)
        return Tables(_signature(model, schema, size), tuple(_ops(model, schema, size)), _rules(model, size))
    except (struct.error, IndexError, TypeError, ValueError, AttributeError, UnicodeDecodeError, KeyError) as error:
        # TypeError and AttributeError: an offset that leads nowhere gives None instead of a table.
        raise InputError(f"{str(path)!r} is truncated or damaged: {error}.", "Copy or export it again.") from error


def _items(length: int, item: Callable[[int], Any], size: int) -> Iterator[Any]:
    if not 0 <= length <= size:
        raise ValueError(f"a table of {length} entries in a file of {size} bytes")
    return (item(index) for index in range(length))


def _check_buffers(model: Any, size: int) -> None:
    for buffer in _items(model.BuffersLength(), model.Buffers, size):
        field = buffer._tab.Offset(4)
        end = buffer._tab.Vector(field) + buffer._tab.VectorLen(field) if field else 0
        if max(end, buffer.Offset() + buffer.Size()) > size:
            raise ValueError("its weights end after the file does")


def _ops(model: Any, schema: Any, size: int) -> Iterator[tuple[str, str]]:
    builtin = {code: name for name, code in vars(schema.BuiltinOperator).items() if not name.startswith("_")}
    names = []
    for code in _items(model.OperatorCodesLength(), model.OperatorCodes, size):
        # Codes above 127 did not fit the first field, which is kept for old readers.
        number = max(code.DeprecatedBuiltinCode(), code.BuiltinCode())
        custom = number == schema.BuiltinOperator.CUSTOM
        names.append(code.CustomCode().decode() if custom else builtin.get(number, f"BUILTIN_{number}"))
    for graph in _items(model.SubgraphsLength(), model.Subgraphs, size):
        for operator in _items(graph.OperatorsLength(), graph.Operators, size):
            made = graph.Tensors(operator.Outputs(0)).Name() if operator.OutputsLength() else b""
            yield names[operator.OpcodeIndex()], rule_of(made.decode())


def rule_of(tensor: str) -> str:
    """The innermost scope `mh_edge.<rule>` in the name of a tensor; the converter joins the names of what it fused."""
    return next((found[1] for found in reversed(list(_SCOPE.finditer(tensor.split(";")[0])))), "")


def _rules(model: Any, size: int) -> Mapping[str, int]:
    for entry in _items(model.MetadataLength(), model.Metadata, size):
        if entry.Name() == METADATA.encode():
            rules = json.loads(model.Buffers(entry.Buffer()).DataAsNumpy().tobytes())["rules"]
            return {str(rule): int(count) for rule, count in rules.items()}
    return {}


def _signature(model: Any, schema: Any, size: int) -> Signature:
    """By the names of the first signature; by those of the tensors when the file has none."""
    dtypes = {code: name.lower() for name, code in vars(schema.TensorType).items() if not name.startswith("_")}
    definition = model.SignatureDefs(0) if model.SignatureDefsLength() else None
    graph = model.Subgraphs(0 if definition is None else definition.SubgraphIndex())

    def named(owner: Any, length: int, item: Callable[[int], Any]) -> Iterator[tuple[str, int]]:
        for entry in _items(length, item, size):
            index = entry if owner is graph else entry.TensorIndex()
            name = graph.Tensors(index).Name() if owner is graph else entry.Name()
            yield name.decode(), index

    def tensor(name: str, index: int) -> Tensor:
        table = graph.Tensors(index)
        field = table.ShapeSignature if table.ShapeSignatureLength() else table.Shape
        count = table.ShapeSignatureLength() or table.ShapeLength()
        shape = tuple(_dim(name, axis, length) for axis, length in enumerate(_items(count, field, size)))
        return Tensor(name, dtypes.get(table.Type(), "unknown"), shape)

    owner = graph if definition is None else definition
    inputs = named(owner, owner.InputsLength(), owner.Inputs)
    outputs = named(owner, owner.OutputsLength(), owner.Outputs)
    return Signature(tuple(tensor(*item) for item in inputs), tuple(tensor(*item) for item in outputs))


def _dim(tensor: str, axis: int, length: int) -> Dim:
    return length if length >= 0 else free_dim(tensor, axis)


def free_dim(tensor: str, axis: int) -> str:
    """The name of a free size that the file gives none."""
    return f"{tensor}_dim_{axis}"
