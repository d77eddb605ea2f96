"""An onnx_ir model as a file: one file up to protobuf's limit, weights in external data beyond it."""

from __future__ import annotations

from pathlib import Path

import onnx_ir as ir

from mh_edge.artifact import file_sha256

EXTERNAL_DATA_LIMIT = 2**31 - 2**26
"""Bytes of weights from which a model goes to external data: protobuf reads less than 2 GiB, and the graph needs room
too."""

DATA_SUFFIX = ".data"
_HASH_LENGTH = 16
_INLINE_LIMIT = 1024
"""Smaller tensors stay in the model: shape inference has to read axes and target shapes."""


def save(model: ir.Model, path: Path) -> list[Path]:
    """Write the model -> the files written, the model first.

    External data is one file `<stem>.<hash>.data`, named by its own content, so that a model never meets the data of
    another. The model is left without numbers of its own where they went to external data.
    """
    size = sum(tensor.nbytes for tensor in map(_tensor, model.graph.initializers.values()) if tensor is not None)
    if size < EXTERNAL_DATA_LIMIT:
        path.write_bytes(ir.to_proto(model).SerializeToString(deterministic=True))
        return [path]
    return [path, _save_external(model, path)]


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
    path.write_bytes(ir.to_proto(model).SerializeToString(deterministic=True))
    return data


def _tensor(value: ir.Value) -> ir.TensorProtocol | None:
    return value.const_value
