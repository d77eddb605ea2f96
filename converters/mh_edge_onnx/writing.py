"""An onnx_ir model as a file: one file up to protobuf's limit, weights in external data beyond it.

Weights are written one after the other, straight from Keras: at no time does the process hold a second copy of them.
(Handing the whole model to protobuf would hold three.)
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import onnx
import onnx_ir as ir

from mh_edge.artifact import file_sha256

EXTERNAL_DATA_LIMIT = 2**31 - 2**26
"""Bytes of weights from which a model goes to external data: protobuf reads less than 2 GiB, and the graph needs
room."""

DATA_SUFFIX = ".data"
_HASH_LENGTH = 16
_INLINE_LIMIT = 1024
"""Smaller tensors stay in the model: shape inference has to read axes and target shapes."""

# Field numbers of ONNX's protobuf schema.
_GRAPH_OF_MODEL = 7
_INITIALIZER_OF_GRAPH = 5
_RAW_DATA_OF_TENSOR = 9


def save(model: ir.Model, path: Path) -> list[Path]:
    """Write the model -> the files written, the model first.

    External data is one file `<stem>.<hash>.data`, named by its own content, so that a model never meets the data of
    another. The model is left without numbers of its own where they went to external data.
    """
    size = sum(tensor.nbytes for tensor in _tensors(model))
    data = [] if size < EXTERNAL_DATA_LIMIT else [_save_external(model, path)]
    with path.open("wb") as file:
        _write(model, file)
    return [path, *data]


def _tensors(model: ir.Model) -> Iterator[ir.TensorProtocol]:
    return (value.const_value for value in model.graph.initializers.values() if value.const_value is not None)


def _save_external(model: ir.Model, path: Path) -> Path:
    pending = path.with_name(f"{path.stem}.pending{DATA_SUFFIX}")
    ir.external_data.unload_from_model(model, path.parent, pending.name, size_threshold_bytes=_INLINE_LIMIT)
    data = path.with_name(f"{path.stem}.{file_sha256(pending)[:_HASH_LENGTH]}{DATA_SUFFIX}")
    pending.rename(data)
    for value in model.graph.initializers.values():
        tensor = value.const_value
        if isinstance(tensor, ir.ExternalTensor):
            value.const_value = ir.ExternalTensor(
                data.name,
                tensor.offset,
                tensor.length,
                tensor.dtype,
                shape=tensor.shape,
                name=tensor.name,
                base_dir=path.parent,
            )
    return data


def _write(model: ir.Model, file: BinaryIO) -> None:
    """ModelProto{..., graph: GraphProto{..., initializer: TensorProto{..., raw_data}}}, weights last and one at a
    time.
    """
    initializers = model.graph.initializers
    values = [value for value in initializers.values() if isinstance(value.const_value, ir.LazyTensor)]
    weights = {value.name or "": tensor for value in values if (tensor := value.const_value) is not None}
    for name in weights:
        initializers.pop(name)
    proto = ir.to_proto(model)
    for value in values:
        model.graph.register_initializer(value)
    graph = proto.graph.SerializeToString(deterministic=True)
    proto.ClearField("graph")
    headers = {name: _header(name, tensor) for name, tensor in weights.items()}
    sizes = {name: len(headers[name]) + tensor.nbytes for name, tensor in weights.items()}
    total = len(graph) + sum(len(_field(_INITIALIZER_OF_GRAPH, size)) + size for size in sizes.values())
    file.write(proto.SerializeToString(deterministic=True))
    file.write(_field(_GRAPH_OF_MODEL, total))
    file.write(graph)
    for name, tensor in weights.items():
        file.write(_field(_INITIALIZER_OF_GRAPH, sizes[name]))
        file.write(headers[name])
        file.write(tensor.tobytes())


def _header(name: str, tensor: ir.TensorProtocol) -> bytes:
    """A TensorProto up to and with the length of its raw_data."""
    described = onnx.TensorProto(name=name, data_type=tensor.dtype.value, dims=tensor.shape.numpy())
    head: bytes = described.SerializeToString(deterministic=True)
    return head + _field(_RAW_DATA_OF_TENSOR, tensor.nbytes)


def _field(number: int, size: int) -> bytes:
    """Protobuf's tag and length in front of a field of bytes (wire type 2)."""
    return _varint(number << 3 | 2) + _varint(size)


def _varint(value: int) -> bytes:
    """Seven bits a byte, the least first, the high bit set on all but the last."""
    result = bytearray()
    while value > 0x7F:
        result.append(value & 0x7F | 0x80)
        value >>= 7
    result.append(value)
    return bytes(result)
