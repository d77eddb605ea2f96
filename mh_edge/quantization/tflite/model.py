"""What the TFLite schemes share: reading a float file as objects, seeing its ranges, running litert-quantizer, saving.

litert-quantizer addresses operations by regular expressions over the names of the tensors that they make, and tensors
by name, over all subgraphs; so names are made unique as the file is read.
"""

from __future__ import annotations

import contextlib
import io
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from mh_edge.artifact import Artifact
from mh_edge.errors import ConversionError, InputError, UsageError
from mh_edge.flatbuffer import read_tables
from mh_edge.packages import require
from mh_edge.quantization.scheme import Arrays, KeptFloat, Options, Range, Ranges, belongs
from mh_edge.quantization.tflite.soundness import DAMAGE, check_tables

EXTRA = "quantize"
PURPOSE = "quantizing a .tflite file"

NO_QUANTIZE = "no_quantize"
"""litert-quantizer's name for an operation that stays as it is."""

SCOPE_LENGTH = 10_000
"""litert-quantizer compares no more of an operation's names than this with a regular expression."""

CALLS = frozenset({"WHILE", "IF"})

NO_BUFFER = 0
"""Every file's first buffer is empty: that of tensors that are computed."""

SOME = 3
"""Names in a sentence."""

MOVERS = frozenset({"QUANTIZE", "DEQUANTIZE"})

LOOP_REASON = "inside a loop, where each step would round what the step before it rounded; 8 bits for its weights"
ASKED_REASON = "kept in float as asked"

Entry = dict[str, Any]
"""One entry of a recipe of litert-quantizer: regex, operation, algorithm_key, op_config; a later one wins."""


@dataclass(frozen=True)
class Operation:
    """graph: its subgraph. kind: "FULLY_CONNECTED", or the name of a custom one. made: names of what it makes.
    inputs, outputs: indices of tensors, -1 for an input left out. index: among the operations of its graph.
    """

    graph: int
    index: int
    kind: str
    made: tuple[str, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]

    @property
    def name(self) -> str:
        """The name of the first tensor that it makes."""
        return self.made[0] if self.made else ""

    def belongs(self, names: Iterable[str]) -> bool:
        """Whether it is one of those named or lies in a layer named."""
        wanted = tuple(names)
        return self.name in wanted or any(belongs(part, wanted) for part in own_names(self.name))


def own_names(joined: str) -> list[str]:
    """Those of an operation's own layer among the names, joined by ";", of what was fused in it: a constant that it
    shares with another layer brings that layer's name. The layer named most often is its own; of two, the later.
    """
    names = [name for name in joined.split(";") if name] or [joined]  # some end in ";"
    layers = [name.rpartition("/")[0] for name in names]
    own = max(reversed(layers), key=layers.count)
    return [name for name, layer in zip(names, layers, strict=True) if layer == own]


def some(names: Sequence[str]) -> str:
    """The first three, each without what was fused in it, and how many more."""
    first = [own_names(name)[0] for name in names[:SOME]]
    return ", ".join(first) + (f" and {len(names) - SOME} more" if len(names) > SOME else "")


def read(path: Path) -> Any:
    """A float .tflite file as the ModelT of TFLite's schema. Raises InputError for one that is damaged, or holds
    quantized tensors already.
    """
    names = schema()
    read_tables(path, names)
    reader = require("ai_edge_litert.tools.flatbuffer_utils", EXTRA, PURPOSE)
    try:
        model = reader.read_model(str(path))
        check_tables(model, names.TensorType.FLOAT32)
    except DAMAGE as error:
        raise InputError(f"{str(path)!r} is damaged: {error}.", "Copy or export it again.") from error
    half = names.TensorType.FLOAT16
    for graph in model.subgraphs:
        for tensor in graph.tensors:
            scales = tensor.quantization.scale if tensor.quantization is not None else None
            if (scales is not None and len(scales)) or tensor.type == half:
                raise InputError(
                    f"{str(path)!r} is quantized already: its tensor {tensor.name.decode()!r} is.",
                    "Give the float file it was made from.",
                )
    _make_names_unique(model)
    return model


def _make_names_unique(model: Any) -> None:
    taken: set[bytes] = set()
    for number, graph in enumerate(model.subgraphs):
        for index, tensor in enumerate(graph.tensors):
            if not tensor.name or tensor.name in taken:
                tensor.name = (tensor.name or b"tensor") + f"#{number}.{index}".encode()
            taken.add(tensor.name)


def read_any(content: bytes) -> Any:
    """The ModelT of any file, float or not."""
    return require("ai_edge_litert.tools.flatbuffer_utils", EXTRA, PURPOSE).read_model_from_bytearray(content)


def pack(model: Any) -> bytes:
    """The bytes of a file."""
    return bytes(require("ai_edge_litert.tools.flatbuffer_utils", EXTRA, PURPOSE).convert_object_to_bytearray(model))


def operations(model: Any) -> list[Operation]:
    """Every operation of every subgraph."""
    names = {code: name for name, code in vars(schema().BuiltinOperator).items() if not name.startswith("_")}
    kinds = []
    for code in model.operatorCodes:
        # Codes above 127 did not fit the first field, which is kept for old readers.
        kind = names.get(max(code.builtinCode, code.deprecatedBuiltinCode), "UNKNOWN")
        kinds.append(code.customCode.decode() if kind == "CUSTOM" and code.customCode else kind)
    return [
        Operation(
            number,
            index,
            kinds[one.opcodeIndex],
            tuple(graph.tensors[made].name.decode() for made in one.outputs if made >= 0),
            tuple(int(tensor) for tensor in one.inputs),
            tuple(int(tensor) for tensor in one.outputs),
        )
        for number, graph in enumerate(model.subgraphs)
        for index, one in enumerate(graph.operators)
    ]


def constant(model: Any, tensor: int, graph: int = 0) -> np.ndarray | None:
    """The values of a constant float tensor; None for any other."""
    table = model.subgraphs[graph].tensors[tensor]
    data = model.buffers[table.buffer].data
    if not is_float(model, tensor, graph) or data is None or not len(data):
        return None
    return np.frombuffer(data, np.float32).reshape(table.shape if table.shape is not None else ())


def is_float(model: Any, tensor: int, graph: int = 0) -> bool:
    """Whether a tensor holds 32-bit floats."""
    return bool(model.subgraphs[graph].tensors[tensor].type == schema().TensorType.FLOAT32)


def add_constant(model: Any, values: np.ndarray) -> int:
    """A new buffer with these values -> its index."""
    buffer = schema().BufferT()
    buffer.data = np.frombuffer(values.tobytes(), np.uint8)
    model.buffers.append(buffer)
    return len(model.buffers) - 1


def kept_as_asked(of: Sequence[Operation], options: Options) -> dict[str, str]:
    """Name of each operation that the user keeps in float -> the reason. Raises UsageError for a name that is nowhere
    in the file.
    """
    for name in options.keep_float:
        if not any(one.belongs([name]) for one in of):
            some = ", ".join(repr(one.name) for one in of[:3])
            raise UsageError(
                f"keep_float: no layer or operation of the file is called {name!r}.",
                f"`mh-edge quantize --explain` shows the names; some are {some}.",
            )
    return {one.name: ASKED_REASON for one in of if one.belongs(options.keep_float)}


def kept_in_loops(of: Sequence[Operation]) -> dict[str, str]:
    """Name of each operation in a subgraph that another calls -> why it stays in float."""
    return {one.name: LOOP_REASON for one in of if one.graph > 0}


def exactly(names: Iterable[str]) -> str:
    """The regular expression of litert-quantizer for one operation, or for the model's INPUT or OUTPUT, by the names of
    all that it makes.
    """
    return f"^{re.escape((';'.join(names) + ';')[:SCOPE_LENGTH])}$"


def leave_float(of: Sequence[Operation], names: Iterable[str]) -> list[Entry]:
    """The entries that keep the named operations in float."""
    wanted = set(names)
    scopes = [exactly(one.made)[1:-1] for one in of if one.name in wanted]
    return [no_quantize(f"^(?:{'|'.join(scopes)})$")] if scopes else []


def no_quantize(regex: str, operation: str = "*") -> Entry:
    """The entry that keeps what the expression finds in float; operation: of this kind only."""
    return {"regex": regex, "operation": operation, "algorithm_key": NO_QUANTIZE, "op_config": {}}


def quantized(
    content: bytes,
    recipe: Sequence[Entry],
    ranges: Ranges | None = None,
    bounds: Mapping[str, np.ndarray] | None = None,
) -> bytes:
    """What litert-quantizer makes of a file by a recipe. ranges: of every float tensor that is no constant. bounds: the
    greatest entry to quantize a weight for, where that is not its own.

    Raises ConversionError with what litert-quantizer says when it cannot.
    """
    quantizer = require("litert_quantizer.quantizer", EXTRA, PURPOSE)
    with _unprinted():
        try:
            made = quantizer.Quantizer(content, list(recipe))
            result = made.quantize(
                None if ranges is None else _as_statistics(content, ranges) | _as_extremes(bounds or {}),
                enable_progress_bar=False,
                enable_progress_report=False,
            )
        except (*DAMAGE, RuntimeError, KeyError, NotImplementedError) as error:
            said = " ".join(str(error).split())
            raise ConversionError(
                f"litert-quantizer cannot quantize this file: {said}.", "Name the operation with --keep-float."
            ) from error
    return bytes(result.quantized_model)


@contextlib.contextmanager
def _unprinted() -> Iterator[None]:
    """litert-quantizer's progress bars cannot be switched off: they, what it prints, and the interpreter's warning that
    keeping all tensors takes memory go nowhere.
    """
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        warnings.filterwarnings("ignore", message="Warning: Enabling `experimental_preserve_all_tensors`")
        yield


def _as_statistics(content: bytes, ranges: Ranges) -> dict[str, dict[str, np.ndarray]]:
    """litert-quantizer wants the ends of a range with the rank of the tensor."""
    model = read_any(content)
    ranks = {
        tensor.name.decode(): 0 if tensor.shape is None else len(tensor.shape)
        for graph in model.subgraphs
        for tensor in graph.tensors
    }
    return {
        name: {"min": np.full((1,) * ranks[name], one.low, "f4"), "max": np.full((1,) * ranks[name], one.high, "f4")}
        for name, one in ranges.items()
        if name in ranks
    }


def _as_extremes(bounds: Mapping[str, np.ndarray]) -> dict[str, dict[str, np.ndarray]]:
    return {name: {"min": -bound, "max": bound} for name, bound in bounds.items()}


def saving(content: bytes) -> Callable[[Path], Sequence[Path]]:
    """A `save` of Quantized that writes these bytes."""

    def save(path: Path) -> Sequence[Path]:
        path.write_bytes(content)
        return (path,)

    return save


def observe(source: Artifact, options: Options, batches: Iterable[Arrays]) -> Ranges:
    """Run the float file on the batches -> range of every float tensor of its main graph that is no constant.

    One batch is held at a time. Infinite entries (masks of foreign files) count for nothing.
    """
    del options
    model = read(source.path)
    interpreter_module = require("ai_edge_litert.interpreter", EXTRA, PURPOSE)
    plain = interpreter_module.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES  # XNNPACK keeps inner tensors to itself
    with _unprinted():
        interpreter = interpreter_module.Interpreter(
            model_content=pack(model),
            experimental_preserve_all_tensors=True,
            experimental_op_resolver_type=plain,
            num_threads=1,
        )
    graph = model.subgraphs[0]
    seen = {index: graph.tensors[index].name.decode() for index in _changing(model)}
    fed = signature_inputs(model)
    low, high = dict.fromkeys(seen, np.inf), dict.fromkeys(seen, -np.inf)
    shapes: dict[int, tuple[int, ...]] = {}
    for batch in batches:
        arrays = {fed[name]: array for name, array in batch.items()}
        if shapes != {index: array.shape for index, array in arrays.items()}:
            for index, array in arrays.items():
                interpreter.resize_tensor_input(index, array.shape)
                shapes[index] = array.shape
            interpreter.allocate_tensors()
        for index, array in arrays.items():
            interpreter.set_tensor(index, array)
        interpreter.invoke()
        for index in seen:
            values = interpreter.get_tensor(index)
            values = values[np.isfinite(values)]
            if values.size:
                low[index] = min(low[index], float(values.min()))
                high[index] = max(high[index], float(values.max()))
    return {name: Range(low[index], high[index]) for index, name in seen.items() if low[index] <= high[index]}


def _changing(model: Any) -> list[int]:
    """The float tensors of the main graph that are inputs or are made by an operation. What a loop makes and nothing
    reads is left out: LiteRT does not fill it.
    """
    main = [one for one in operations(model) if one.graph == 0]
    graph = model.subgraphs[0]
    wanted = {int(index) for index in graph.outputs} | {index for one in main for index in one.inputs}
    made = [index for one in main for index in one.outputs if one.kind not in CALLS or index in wanted]
    return [index for index in (*map(int, graph.inputs), *made) if index >= 0 and is_float(model, index)]


def signature_inputs(model: Any) -> Mapping[str, int]:
    """Name of each input, as the artifact's signature has it -> its tensor."""
    graph = model.subgraphs[0]
    if model.signatureDefs:
        return {one.name.decode(): int(one.tensorIndex) for one in model.signatureDefs[0].inputs}
    return {graph.tensors[index].name.decode(): int(index) for index in graph.inputs}


def still_float(of_float: Sequence[Operation], content: bytes, reasons: Mapping[str, str]) -> tuple[KeptFloat, ...]:
    """Which operations of a quantized file compute with floats still. reasons: by operation, why; the others are none
    that litert-quantizer has an integer form of.
    """
    model = read_any(content)
    known = {one.name for one in of_float}
    kept = []
    for one in operations(model):
        touched = (tensor for tensor in (*one.inputs, *one.outputs) if tensor >= 0)
        if one.kind in MOVERS or not any(is_float(model, tensor, one.graph) for tensor in touched):
            continue
        name = one.name if one.name in known else one.name.partition("_dequant")[0]
        kept.append(KeptFloat(name, reasons.get(name, f"litert-quantizer has no integer form of {one.kind}")))
    return tuple(kept)


def float_tensors(content: bytes) -> set[str]:
    """Names of the tensors that a quantized file has as floats only, by the names they had in the float file."""
    model = read_any(content)
    names = {
        tensor.name.decode(): is_float(model, index, number)
        for number, graph in enumerate(model.subgraphs)
        for index, tensor in enumerate(graph.tensors)
    }
    return {name for name, is_one in names.items() if is_one and f"{name}_quantized" not in names}


def schema() -> ModuleType:
    """The module generated from TFLite's schema."""
    return require("ai_edge_litert.schema_py_generated", EXTRA, PURPOSE)
