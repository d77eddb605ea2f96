"""The parts of a float file that can be quantized or left in float each on its own: its layers.

`mh_edge.layerpaths` tells how files name them; those of PyTorch and Keras do as .onnx files of ours. A product without
a path is a part of its own. The heads of a MultiHead that stand as operations side by side are parts of their own as
well; in .tflite files they have paths of their own. Heads of attention, and heads that were merged into one wide
operation, are columns of one weight: an operation is quantized whole or not at all, so those can be measured
(`Part.heads`) but not kept in float one by one.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mh_edge import layerpaths
from mh_edge.artifact import Artifact
from mh_edge.errors import UsageError
from mh_edge.inspection import RULE_KEY
from mh_edge.quantization.onnx import model as onnxmodel
from mh_edge.quantization.scheme import belongs
from mh_edge.quantization.tflite import model as litert

if TYPE_CHECKING:
    import onnx

REST = "(operations of no layer)"

_REPEATED = re.compile(r"/\d+$")
"""What `onnxmodel.load` adds to the second operation of a name."""
_MARKED = re.compile(r"^(.+)/mh_edge\.(\w+)/")
"""The path and the rule of the innermost marked layer in the name of a TFLite tensor."""
_MERGED = re.compile(r"^(\d+) .*heads? as one")
"""How the manifest says that several heads became one operation."""

ATTENTION_WEIGHTS = 4
"""Wq, Wk, Wv and, as the last of them needs their results, Wo."""


@dataclass(frozen=True)
class Share:
    """A head's own numbers in a weight: entries start, start + step, ... below stop of `axis`. channels: the axis of
    output channels, each of which has a scale of its own.
    """

    weight: str
    channels: int
    axis: int
    start: int
    stop: int
    step: int = 1


@dataclass(frozen=True)
class Part:
    """A layer. name: its own. operations: their names in the file. names: what `Options.keep_float` has to say to a
    scheme to select exactly them. weights: how many numbers they hold. heads: for each head that is some columns of its
    weights, those.
    """

    name: str
    operations: tuple[str, ...]
    names: tuple[str, ...]
    weights: int
    heads: tuple[tuple[Share, ...], ...] = ()


@dataclass(frozen=True)
class Weight:
    """A constant matrix. channels: the axis of output channels. place: in a .tflite file, its graph and tensor."""

    name: str
    shape: tuple[int, ...]
    channels: int
    place: tuple[int, int] = (0, 0)


@dataclass(frozen=True)
class _Operation:
    """layer: its path in the file, "" without one. rule: of ours. heads: how many it cuts its input into, as far as it
    says so. constants: how many numbers it holds. weights: its constants that are matrices.
    """

    name: str
    layer: str
    rule: str
    constants: int
    weights: tuple[Weight, ...]
    heads: int = 0


def parts(source: Artifact) -> tuple[Part, ...]:
    """The layers of a float file, in the order of their first operations; what belongs to no layer comes last, as one
    part.
    """
    operations = _operations(source)
    titles = layerpaths.titles((operation.layer for operation in operations), source.format)
    products = Counter(operation.layer for operation in operations if operation.weights)
    grouped: dict[str, list[_Operation]] = {}
    for operation in operations:
        heads = source.format == "onnx" and operation.rule == "MultiHead" and products[operation.layer] > 1
        alone = operation.name if operation.weights else REST
        grouped.setdefault(alone if heads or operation.layer not in titles else operation.layer, []).append(operation)
    merged = {choice.layer: int(found[1]) for choice in source.choices if (found := _MERGED.match(choice.choice))}
    every = [operation.name for operation in operations]
    made = [
        Part(
            name=title,
            operations=tuple(operation.name for operation in group),
            names=_selecting(name, [operation.name for operation in group], every),
            weights=sum(operation.constants for operation in group),
            heads=_heads(group, merged.get(title) or merged.get(title.rpartition("/")[2], 0)),
        )
        for name, group in grouped.items()
        for title in [titles.get(name, name)]
    ]
    return tuple(sorted(made, key=lambda part: part.name == REST))


def resolved(names: Sequence[str], source: Artifact) -> tuple[str, ...]:
    """What `Options.keep_float` has to say to a scheme so that the layers and operations that a user names stay in
    float. In an .onnx file that is what they are called. In a .tflite file it is every operation of them: a layer may
    be called by its own name or by its path, and what was fused in the operation of another layer is the layer's whose
    weight it has. Raises UsageError for a name that nothing has.
    """
    operations = _operations(source)
    layers = layerpaths.names((operation.layer for operation in operations), source.format)
    called = {one.name: (one.name, *layers.get(one.layer, ())) for one in operations}
    found = {name: [one for one, of in called.items() if any(belongs(each, [name]) for each in of)] for name in names}
    for name, those in found.items():
        if not those:
            known = ", ".join(part.name for part in parts(source) if part.name != REST)
            raise UsageError(
                f"no layer or operation of {str(source.path)!r} is called {name!r}, so it cannot be kept in float.",
                f"Its layers are {known}.",
            )
    if source.format == "onnx":
        return tuple(names)
    wanted = {one for those in found.values() for one in those}
    return tuple(operation.name for operation in operations if operation.name in wanted)


def weights(source: Artifact) -> dict[str, tuple[Weight, np.ndarray]]:
    """The constant matrices of a file by name."""
    if source.format == "onnx":
        from onnx import numpy_helper

        model = onnxmodel.load(source)
        held = onnxmodel.weights(model)
        return {one.name: (one, numpy_helper.to_array(held[one.name])) for one in _matrices(_onnx(model))}
    model = litert.read(source.path)
    return {one.name: (one, _constant(model, one)) for one in _matrices(_tflite(model))}


def rewrite(source: Artifact, changed: Mapping[str, np.ndarray], path: Path) -> None:
    """Write the file with other numbers in the matrices named."""
    if source.format == "onnx":
        model = onnxmodel.load(source)
        held = onnxmodel.weights(model)
        for name, value in changed.items():
            held[name].ClearField("float_data")
            held[name].raw_data = np.ascontiguousarray(value, "<f4").tobytes()
        onnxmodel.saver(model)(path)
        return
    model = litert.read(source.path)
    for one in _matrices(_tflite(model)):
        if one.name in changed:
            graph, tensor = one.place
            buffer = model.buffers[model.subgraphs[graph].tensors[tensor].buffer]
            buffer.data = np.ascontiguousarray(changed[one.name], "<f4").view(np.uint8).ravel()
    path.write_bytes(litert.pack(model))


def _constant(model: Any, one: Weight) -> np.ndarray:
    graph, tensor = one.place
    value = litert.constant(model, tensor, graph)
    if value is None:
        raise ValueError(f"{one.name} is no constant")
    return value


def _matrices(operations: Iterable[_Operation]) -> Iterable[Weight]:
    return {weight.name: weight for operation in operations for weight in operation.weights}.values()


def _operations(source: Artifact) -> list[_Operation]:
    onnx = source.format == "onnx"
    return list(_onnx(onnxmodel.load(source)) if onnx else _tflite(litert.read(source.path)))


def _selecting(name: str, own: Sequence[str], every: Sequence[str]) -> tuple[str, ...]:
    """The part's name where it selects these operations and no other, else theirs."""
    selected = [one for one in every if any(belongs(part, [name]) for part in litert.own_names(one))]
    return (name,) if selected == list(own) else tuple(own)


def _heads(group: Sequence[_Operation], merged: int) -> tuple[tuple[Share, ...], ...]:
    """The heads among the columns of a layer's weights: of attention by its cut into heads, of heads that `merged` says
    were made one operation every merged-th column; () where there are none, or they cannot be told apart.
    """
    held = [weight for operation in group for weight in operation.weights]
    if merged > 1 and len(held) == 1 and held[0].shape[held[0].channels] % merged == 0:
        count, by = held[0].shape[held[0].channels], merged
        return tuple((Share(held[0].name, held[0].channels, held[0].channels, head, count, by),) for head in range(by))
    heads = next((operation.heads for operation in group if operation.heads > 1), 0)
    attention = any(operation.rule.endswith("MultiHeadAttention") for operation in group)
    if not attention or heads < 2 or [len(weight.shape) for weight in held] != [2] * ATTENTION_WEIGHTS:
        return ()
    axes = [weight.channels for weight in held[:-1]] + [1 - held[-1].channels]
    sizes = [weight.shape[axis] for weight, axis in zip(held, axes, strict=True)]
    if any(size % heads for size in sizes):
        return ()
    return tuple(
        tuple(
            Share(weight.name, weight.channels, axis, head * size // heads, (head + 1) * size // heads)
            for weight, axis, size in zip(held, axes, sizes, strict=True)
        )
        for head in range(heads)
    )


def _is_matrix(shape: Sequence[int]) -> bool:
    return sum(size > 1 for size in shape) > 1


def _onnx(model: onnx.ModelProto) -> Iterator[_Operation]:
    from onnx import TensorProto, numpy_helper

    constants = onnxmodel.weights(model)
    for node in onnxmodel.nodes(model):
        held = [constants[name] for name in node.input if name in constants]
        floats = [tensor for tensor in held if tensor.data_type == TensorProto.FLOAT]
        attributes = {attribute.name: attribute.i for attribute in node.attribute}
        heads = attributes.get("q_num_heads", 0)
        if node.op_type == "Reshape" and held and list(held[-1].dims) == [4]:
            heads = int(numpy_helper.to_array(held[-1])[2])
        flipped = node.op_type == "Gemm" and attributes.get("transB", 0)
        last = node.op_type in ("MatMul", "Gemm") and not flipped
        yield _Operation(
            name=node.name,
            layer=_REPEATED.sub("", node.name).rpartition("/")[0],
            rule=next((item.value for item in node.metadata_props if item.key == RULE_KEY), ""),
            constants=sum(int(np.prod(tensor.dims)) for tensor in floats),
            weights=tuple(
                Weight(tensor.name, tuple(tensor.dims), len(tensor.dims) - 1 if last else 0)
                for tensor in floats
                if _is_matrix(tensor.dims)
            ),
            heads=heads,
        )


def _tflite(model: Any) -> Iterator[_Operation]:
    for one in litert.operations(model):
        tensors = model.subgraphs[one.graph].tensors
        floats = [(index, litert.constant(model, index, one.graph)) for index in one.inputs if index >= 0]
        held = [(index, value) for index, value in floats if value is not None]
        matrices = [(index, value) for index, value in held if _is_matrix(value.shape)]
        # What follows may be fused into a product, which then has that layer's name; its weight keeps the name it had.
        others = [index for index, value in held if value.size > 1 and not _is_matrix(value.shape)]
        names = [tensors[index].name.decode() for index, _ in matrices] + [one.name]
        names += [tensors[index].name.decode() for index in others]
        layer, rule = next((scope for name in names if (scope := _scope(name))[0]), ("", ""))
        yield _Operation(
            name=one.name,
            layer=layer,
            rule=rule,
            constants=sum(value.size for _, value in held),
            weights=tuple(
                Weight(tensors[index].name.decode(), value.shape, 0, (one.graph, index)) for index, value in matrices
            ),
            heads=_cut_into(model, one),
        )


def _cut_into(model: Any, one: litert.Operation) -> int:
    """The third size that a RESHAPE to four sizes asks for."""
    tensors = model.subgraphs[one.graph].tensors
    shape = model.buffers[tensors[one.inputs[1]].buffer].data if one.kind == "RESHAPE" and len(one.inputs) > 1 else None
    sizes = np.frombuffer(b"" if shape is None else bytes(shape), "<i4")
    return int(sizes[2]) if len(sizes) == 4 else 0


def _scope(tensor: str) -> tuple[str, str]:
    """The layer path and the rule in a tensor's name."""
    name = litert.own_names(tensor)[-1]
    marked = _MARKED.match(name)
    return (marked[1], marked[2]) if marked else (name.rpartition("/")[0], "")
