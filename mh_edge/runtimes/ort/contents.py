"""What must be known of an .onnx file before it is run: the coarsest numbers in which it is computed, by the operations
of its nodes, and the files beside it in which weights lie.

The protobuf is walked past the weights, without the package onnx: importing that takes longer than ONNX Runtime itself.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path

Span = tuple[int, int]
"""Begin and end of a message in the file."""

# numbers of fields in onnx.proto
GRAPH_OF_MODEL, FUNCTION_OF_MODEL, NODE_OF_GRAPH, NODE_OF_FUNCTION, WEIGHT_OF_GRAPH = 7, 25, 1, 7, 5
TRAINING_OF_MODEL, GRAPHS_OF_TRAINING = 20, (1, 2)
SPARSE_OF_GRAPH, TENSORS_OF_SPARSE = 15, (1, 2)
OP_OF_NODE, ATTRIBUTE_OF_NODE, GRAPHS_OF_ATTRIBUTE = 4, 5, (6, 11)
NAME_OF_ATTRIBUTE, NUMBER_OF_ATTRIBUTE, TEXT_OF_ATTRIBUTE = 1, 3, 4
TENSORS_OF_ATTRIBUTE, SPARSE_OF_ATTRIBUTE = (5, 10), (22, 23)
OUTSIDE_OF_WEIGHT, KEY_OF_ENTRY, VALUE_OF_ENTRY = 13, 1, 2
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5  # protobuf's wire types
LONGEST_VARINT = 70  # bits

INTEGERS = (b"uantize", b"QLinear", b"QGemm", b"QAttention", b"Integer", b"NBits")
"""Parts of the types of operations on integers that stand for other numbers."""

TO_FLOAT16 = b"\x0a\x02to\x18\x0a"
"""The attribute `to` of a Cast to float16, as protobuf writes it: what a file of float16 with inputs of float32 has."""


def precision(path: Path) -> str:
    """One of PRECISIONS; "float32" for a file that is no protobuf, which the runtime will refuse."""
    found = "float32"
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        try:
            for node in _nodes(data):
                op = _text(data, node, OP_OF_NODE)
                if any(part in op for part in INTEGERS):
                    return "integers"
                if op == b"Cast" and any(
                    data[begin:end].startswith(TO_FLOAT16) for begin, end in _inside(data, node, ATTRIBUTE_OF_NODE)
                ):
                    found = "float16"
        except (IndexError, ValueError):
            return found
    return found


def compiled(path: Path) -> bool:
    """Whether an .onnx file holds what an execution provider compiled for its device (EPContext); False for what is
    no protobuf.
    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        try:
            return any(_text(data, node, OP_OF_NODE) == b"EPContext" for node in _nodes(data))
        except (IndexError, ValueError):
            return False


def files_beside(path: Path) -> tuple[Path, ...]:
    """The files in which weights of an .onnx file lie, as far as they are there; none for what is none."""
    if path.suffix.lower() != ".onnx":
        return ()
    try:
        found = [path.parent / name for name in locations(path)]
        return tuple(one for one in found if one.is_file())
    except (OSError, ValueError):
        return ()


def locations(path: Path) -> tuple[str, ...]:
    """What an .onnx file says of where its weights, and what was compiled of it, lie outside of it. Raises ValueError
    for what is no protobuf.
    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        whole = (0, len(data))
        try:
            found = [
                name for graph in _inside(data, whole, GRAPH_OF_MODEL) for name in _outside(data, graph, NODE_OF_GRAPH)
            ]
            for training in _inside(data, whole, TRAINING_OF_MODEL):
                for graph in _inside(data, training, *GRAPHS_OF_TRAINING):
                    found += _outside(data, graph, NODE_OF_GRAPH)
            for function in _inside(data, whole, FUNCTION_OF_MODEL):
                found += _outside(data, function, NODE_OF_FUNCTION)
        except (IndexError, RecursionError) as error:
            raise ValueError(f"{path.name} is no protobuf, or nested too deeply") from error
    return tuple(dict.fromkeys(name.decode("utf-8", "surrogateescape") for name in found))


def _outside(data: mmap.mmap, graph: Span, nodes: int) -> Iterator[bytes]:
    """Of a graph (or a function, which has no weights but those in its nodes) and the bodies in it."""
    if nodes == NODE_OF_GRAPH:
        for weight in _inside(data, graph, WEIGHT_OF_GRAPH):
            yield from _of_tensor(data, weight)
        for sparse in _inside(data, graph, SPARSE_OF_GRAPH):
            for weight in _inside(data, sparse, *TENSORS_OF_SPARSE):
                yield from _of_tensor(data, weight)
    for node in _inside(data, graph, nodes):
        if b"EPContext" in _texts(data, node, OP_OF_NODE):
            yield from _of_context(data, node)
        for attribute in _inside(data, node, ATTRIBUTE_OF_NODE):
            for weight in _inside(data, attribute, *TENSORS_OF_ATTRIBUTE):
                yield from _of_tensor(data, weight)
            for sparse in _inside(data, attribute, *SPARSE_OF_ATTRIBUTE):
                for weight in _inside(data, sparse, *TENSORS_OF_SPARSE):
                    yield from _of_tensor(data, weight)
            for body in _inside(data, attribute, *GRAPHS_OF_ATTRIBUTE):
                yield from _outside(data, body, NODE_OF_GRAPH)


def _of_tensor(data: mmap.mmap, tensor: Span) -> Iterator[bytes]:
    for entry in _inside(data, tensor, OUTSIDE_OF_WEIGHT):
        if b"location" in _texts(data, entry, KEY_OF_ENTRY):
            yield from _texts(data, entry, VALUE_OF_ENTRY)


def _of_context(data: mmap.mmap, node: Span) -> Iterator[bytes]:
    """Where the attribute embed_mode is 0, ep_cache_context is a path; else it is what was compiled."""
    attributes = [(_texts(data, one, NAME_OF_ATTRIBUTE), one) for one in _inside(data, node, ATTRIBUTE_OF_NODE)]
    if any(b"embed_mode" in names and not any(_numbers(data, one, NUMBER_OF_ATTRIBUTE)) for names, one in attributes):
        for names, one in attributes:
            if b"ep_cache_context" in names:
                yield from _texts(data, one, TEXT_OF_ATTRIBUTE)


def _nodes(data: mmap.mmap) -> Iterator[Span]:
    """Every node, those of functions and of the bodies of control flow, too."""
    for graph in _inside(data, (0, len(data)), GRAPH_OF_MODEL):
        yield from _nodes_of(data, graph, NODE_OF_GRAPH)
    for function in _inside(data, (0, len(data)), FUNCTION_OF_MODEL):
        yield from _nodes_of(data, function, NODE_OF_FUNCTION)


def _nodes_of(data: mmap.mmap, graph: Span, number: int) -> Iterator[Span]:
    for node in _inside(data, graph, number):
        yield node
        for attribute in _inside(data, node, ATTRIBUTE_OF_NODE):
            for body in _inside(data, attribute, *GRAPHS_OF_ATTRIBUTE):
                yield from _nodes_of(data, body, NODE_OF_GRAPH)


def _text(data: mmap.mmap, message: Span, number: int) -> bytes:
    return next((data[begin:end] for begin, end in _inside(data, message, number)), b"")


def _texts(data: mmap.mmap, message: Span, number: int) -> list[bytes]:
    """All of them: of a field that is written twice, protobuf takes the last."""
    return [data[begin:end] for begin, end in _inside(data, message, number)]


def _inside(data: mmap.mmap, message: Span, *numbers: int) -> Iterator[Span]:
    """The fields of those numbers that hold bytes. Raises IndexError or ValueError for what is no protobuf."""
    for number, _, span in _fields(data, message):
        if span is not None and number in numbers:
            yield span


def _numbers(data: mmap.mmap, message: Span, number: int) -> list[int]:
    """The fields of that number that hold whole numbers."""
    return [value for found, value, span in _fields(data, message) if span is None and found == number]


def _fields(data: mmap.mmap, message: Span) -> Iterator[tuple[int, int, Span | None]]:
    """Number, value and, where it holds bytes, place of each field."""
    place, end = message
    while place < end:
        key, place = _varint(data, place)
        kind, span = key & 7, None
        value = 0
        if kind == VARINT:
            value, place = _varint(data, place)
        elif kind == BYTES:
            size, place = _varint(data, place)
            span = (place, place + size)
            place += size
        elif kind in (FIXED32, FIXED64):
            place += 4 if kind == FIXED32 else 8
        else:
            raise ValueError(f"protobuf has no wire type {kind}")
        if place > end:
            raise ValueError("a field reaches beyond its message")
        yield key >> 3, value, span


def _varint(data: mmap.mmap, place: int) -> tuple[int, int]:
    """The number at a place of the file, and the place behind it."""
    value = shift = 0
    while shift < LONGEST_VARINT:
        byte = data[place]
        value |= (byte & 127) << shift
        place, shift = place + 1, shift + 7
        if byte < 128:
            return value, place
    raise ValueError("a number of more than 64 bits")
