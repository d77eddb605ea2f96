"""The coarsest numbers in which an .onnx file is computed, by the operations of its nodes.

The protobuf is walked past the weights, without the package onnx: importing that takes longer than ONNX Runtime itself.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path

GRAPH_OF_MODEL, NODE_OF_GRAPH = 7, 1  # numbers of fields in onnx.proto
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5  # protobuf's wire types

INTEGERS = (b"uantizeLinear", b"QLinear", b"MatMulInteger", b"ConvInteger", b"MatMulNBits")
"""Parts of the names of operations on integers that stand for other numbers."""

TO_FLOAT16 = b"\x0a\x02to\x18\x0a"
"""The attribute `to` of a Cast to float16, as protobuf writes it: what a file of float16 with inputs of float32 has."""


def precision(path: Path) -> str:
    """One of PRECISIONS; "float32" for a file that is no protobuf, which the runtime will refuse."""
    found = "float32"
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        try:
            for node in _nodes(data):
                if any(name in node for name in INTEGERS):
                    return "integers"
                if TO_FLOAT16 in node:
                    found = "float16"
        except (IndexError, ValueError):
            return found
    return found


def _nodes(data: mmap.mmap) -> Iterator[bytes]:
    for number, begin, end in _fields(data, 0, len(data)):
        if number == GRAPH_OF_MODEL:
            yield from (data[a:b] for field, a, b in _fields(data, begin, end) if field == NODE_OF_GRAPH)


def _fields(data: mmap.mmap, place: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Number, begin and end of each field that holds bytes. Raises IndexError or ValueError for what is no protobuf."""
    while place < end:
        key, place = _varint(data, place)
        kind = key & 7
        if kind == VARINT:
            _, place = _varint(data, place)
        elif kind == BYTES:
            size, place = _varint(data, place)
            yield key >> 3, place, place + size
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
