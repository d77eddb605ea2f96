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
OP_OF_NODE, ATTRIBUTE_OF_NODE, GRAPHS_OF_ATTRIBUTE = 4, 5, (6, 11)
OUTSIDE_OF_WEIGHT, KEY_OF_ENTRY, VALUE_OF_ENTRY = 13, 1, 2
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5  # protobuf's wire types

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


def files_beside(path: Path) -> tuple[Path, ...]:
    """The files in which weights of an .onnx file lie, as far as they are there; none for what is none."""
    if path.suffix.lower() != ".onnx":
        return ()
    found: dict[Path, None] = {}
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            for graph in _inside(data, (0, len(data)), GRAPH_OF_MODEL):
                for weight in _inside(data, graph, WEIGHT_OF_GRAPH):
                    for entry in _inside(data, weight, OUTSIDE_OF_WEIGHT):
                        if _text(data, entry, KEY_OF_ENTRY) == b"location":
                            name = _text(data, entry, VALUE_OF_ENTRY).decode("utf-8", "surrogateescape")
                            found[path.parent / name] = None
        return tuple(one for one in found if one.is_file())
    except (OSError, IndexError, ValueError):
        return ()


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


def _inside(data: mmap.mmap, message: Span, *numbers: int) -> Iterator[Span]:
    """The fields of those numbers that hold bytes. Raises IndexError or ValueError for what is no protobuf."""
    place, end = message
    while place < end:
        key, place = _varint(data, place)
        kind = key & 7
        if kind == VARINT:
            _, place = _varint(data, place)
        elif kind == BYTES:
            size, place = _varint(data, place)
            if key >> 3 in numbers:
                yield place, place + size
            place += size
        elif kind in (FIXED32, FIXED64):
            place += 4 if kind == FIXED32 else 8
        else:
            raise ValueError(f"protobuf has no wire type {kind}")


def _varint(data: mmap.mmap, place: int) -> tuple[int, int]:
    """The number at a place of the file, and the place behind it."""
    value = shift = 0
    while True:
        byte = data[place]
        value |= (byte & 127) << shift
        place, shift = place + 1, shift + 7
        if byte < 128:
            return value, place
