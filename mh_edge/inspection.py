"""What a model file holds: signature, operations, size, and which rule made what. Works on any `.onnx` or `.tflite`,
ours or not.

Reading needs the package of the format (onnx, ai-edge-litert) and never TensorFlow or Keras.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mh_edge.artifact import FORMATS, MODEL_SUFFIXES, Artifact, file_sha256, read_manifest
from mh_edge.commit import recover
from mh_edge.errors import InputError
from mh_edge.flatbuffer import free_dim, read_tables
from mh_edge.packages import require, version
from mh_edge.signature import Dim, Signature, Tensor

if TYPE_CHECKING:
    import onnx

RULE_KEY = "mh_edge.rule"
"""Key of an ONNX node's metadata under which the rule that made it is named."""


@dataclass(frozen=True)
class Content:
    """What was read from the file itself. data: names of external data files."""

    opset: int | None
    signature: Signature
    ops: Mapping[str, int]
    rules: Mapping[str, int]
    made: Mapping[str, Mapping[str, int]]
    data: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def inspect(path: str | Path) -> Artifact:
    """The Artifact that a file holds; what only its manifest knows (names of TFLite's free sizes, verification) is
    taken from there.

    Raises InputError for a missing, empty, truncated or foreign file, UnavailableError when the format's package is
    not installed.
    """
    path = Path(path)
    recover(path.parent)
    kind = file_format(path)
    content = _READERS[kind](path)
    sha256 = file_sha256(path)
    manifest = read_manifest(path, sha256)
    missing = [name for name in content.data if not (path.parent / name).is_file()]
    notes = content.notes + tuple(
        f"its weights lie in {name!r}, which is not beside it: it will not load" for name in missing
    )
    return Artifact(
        path=path,
        format=kind,
        bytes=sum(
            file.stat().st_size
            for file in (path, *(path.parent / name for name in content.data if name not in missing))
        ),
        sha256=sha256,
        opset=content.opset,
        signature=content.signature if manifest is None else manifest.signature,
        ops=content.ops,
        rules=content.rules if manifest is None else manifest.rules,
        made=content.made,
        verified=None if manifest is None else manifest.verified,
        notes=notes + (() if manifest is None else manifest.notes),
        choices=() if manifest is None else manifest.choices,
        session_options={} if manifest is None else manifest.session_options,
        quantized=None if manifest is None else manifest.quantized,
    )


def file_format(path: Path) -> str:
    """The format, "onnx" or "tflite", by first bytes and suffix. Raises InputError when the file is neither, or
    empty.
    """
    if path.is_dir():
        raise InputError(f"{str(path)!r} is a folder.", "Name the .onnx or .tflite file in it.")
    if not path.is_file():
        raise InputError(f"there is no file {str(path)!r}.")
    with path.open("rb") as file:
        head = file.read(8)
    if not head:
        raise InputError(f"{str(path)!r} is empty.", "Copy or export it again.")
    if head[4:8] == b"TFL3":
        return "tflite"
    suffix = path.suffix.removeprefix(".").lower()
    if suffix == "tflite":
        raise InputError(f"{str(path)!r} is not a TFLite file: it does not begin with TFLite's mark.")
    if suffix not in FORMATS:
        raise InputError(
            f"{str(path)!r} is neither an .onnx nor a .tflite file.",
            "mh-edge export MODEL writes one of a Keras model." if path.suffix.lower() in MODEL_SUFFIXES else "",
        )
    return suffix


def _read_onnx(path: Path) -> Content:
    onnx_module = require("onnx", "cpu", "reading an .onnx file")
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    try:
        model = onnx_module.load_model(str(path), load_external_data=False)
    except DecodeError as error:
        raise InputError(f"{str(path)!r} is truncated or not an ONNX file.", "Copy or export it again.") from error
    if not model.opset_import or not model.graph.output:
        raise InputError(f"{str(path)!r} is not an ONNX model: it names no operator set or no output.")
    if not all(isinstance(text, str) for text in _texts(model)):
        raise InputError(f"{str(path)!r} is damaged: it holds names that are no text.", "Copy or export it again.")
    nodes = list(_nodes(model.graph.node)) + [node for function in model.functions for node in _nodes(function.node)]
    weights = {tensor.name for tensor in model.graph.initializer}
    signature = Signature(
        tuple(_onnx_tensor(value) for value in model.graph.input if value.name not in weights),
        tuple(_onnx_tensor(value) for value in model.graph.output),
    )
    return Content(
        opset=next((item.version for item in model.opset_import if item.domain in ("", "ai.onnx")), None),
        signature=signature,
        ops=_counted(map(_operation, nodes)),
        made=_made((_rule(node), _operation(node)) for node in nodes),
        rules=_rules(nodes),
        data=external_data(model),
    )


def _texts(message: Any) -> Iterator[str | bytes]:
    """Every string field in a protobuf message; bytes where what is stored is not UTF-8."""
    for field, value in message.ListFields():
        if field.type == field.TYPE_STRING:
            yield from [value] if isinstance(value, str | bytes) else value
        elif field.type == field.TYPE_MESSAGE:
            for item in value if isinstance(value, Sequence) else [value]:
                yield from _texts(item)


def _operation(node: onnx.NodeProto) -> str:
    return f"{node.domain}.{node.op_type}".lstrip(".").removeprefix("ai.onnx.")


def _rule(node: onnx.NodeProto) -> str:
    return next((item.value for item in node.metadata_props if item.key == RULE_KEY), "")


def _rules(nodes: list[onnx.NodeProto]) -> dict[str, int]:
    """How many layer calls each rule made: a node of ours is named `<layer call>/<operation>`."""
    calls = {(_rule(node), node.name.rpartition("/")[0]) for node in nodes if _rule(node)}
    return _counted(rule for rule, _ in sorted(calls))


def _nodes(nodes: Any) -> Iterator[onnx.NodeProto]:
    """The nodes and, recursively, those of their subgraphs (bodies of If, Loop, Scan)."""
    for node in nodes:
        yield node
        for attribute in node.attribute:
            for graph in (attribute.g, *attribute.graphs):
                yield from _nodes(graph.node)


def _onnx_tensor(value: onnx.ValueInfoProto) -> Tensor:
    from onnx import helper

    kind = value.type.tensor_type
    shape: list[Dim] = [
        dim.dim_value if dim.HasField("dim_value") else dim.dim_param or free_dim(value.name, axis)
        for axis, dim in enumerate(kind.shape.dim)
    ]
    dtype = helper.tensor_dtype_to_np_dtype(kind.elem_type).name if kind.elem_type else "unknown"
    return Tensor(value.name, dtype, tuple(shape))


def external_data(model: onnx.ModelProto) -> tuple[str, ...]:
    """The names of the files beside it in which its weights lie."""
    external = [tensor for tensor in model.graph.initializer if tensor.data_location == tensor.EXTERNAL]
    return tuple(sorted({item.value for tensor in external for item in tensor.external_data if item.key == "location"}))


def _read_tflite(path: Path) -> Content:
    # While exporting, TensorFlow is loaded anyway and brings the same schema.
    tensorflow_only = version("ai-edge-litert") is None and "tensorflow" in sys.modules
    package = "tensorflow.lite.python" if tensorflow_only else "ai_edge_litert"
    model = read_tables(path, require(f"{package}.schema_py_generated", "litert", "reading a .tflite file"))
    flex = sorted({name for name, _ in model.ops if name.startswith("Flex")})
    notes = (f"needs TensorFlow's Flex delegate for {', '.join(flex)}: plain LiteRT refuses it",) if flex else ()
    return Content(
        opset=None,
        signature=model.signature,
        ops=_counted(name for name, _ in model.ops),
        made=_made((rule, name) for name, rule in model.ops),
        rules=model.rules,
        notes=notes,
    )


def _made(operations: Iterable[tuple[str, str]]) -> dict[str, dict[str, int]]:
    """(rule, operation) pairs -> what each rule made; operations without a rule do not count."""
    by_rule: dict[str, list[str]] = {}
    for rule, name in operations:
        if rule:
            by_rule.setdefault(rule, []).append(name)
    return {rule: _counted(names) for rule, names in sorted(by_rule.items())}


def _counted(names: Iterable[str]) -> dict[str, int]:
    """Name -> count, the most frequent first."""
    return dict(sorted(Counter(names).items(), key=lambda item: (-item[1], item[0])))


_READERS = {"onnx": _read_onnx, "tflite": _read_tflite}
