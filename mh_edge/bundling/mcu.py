"""Microcontrollers: a full-integer .tflite file for TensorFlow Lite Micro, as C++ that is compiled into the firmware.

NAME_model.c, .h     the file, byte for byte, as an array; C and C++
NAME_operators.h     MicroMutableOpResolver<N> with the operations of the file, and the size of its arena
NAME_golden.cpp      golden cases, for there is no file system to read them from
"""

from __future__ import annotations

import re
import shlex
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from mh_edge.artifact import Artifact, file_sha256
from mh_edge.bundling.golden import Golden
from mh_edge.bundling.platform import Kit, Member, Platform
from mh_edge.errors import ConversionError
from mh_edge.packages import version
from mh_edge.runtimes.tflite_micro import MicroError, MicroSession
from mh_edge.signature import Tensor

NAMES = (
    "Abs Add AddN ArgMax ArgMin AssignVariable AveragePool2D BatchMatMul BatchToSpaceNd BroadcastArgs BroadcastTo "
    "CallOnce Cast Ceil Concatenation Conv2D Cos CumSum DepthToSpace DepthwiseConv2D Dequantize Div "
    "DynamicUpdateSlice Elu EmbeddingLookup Equal Exp ExpandDims Fill Floor FloorDiv FloorMod FullyConnected "
    "Gather GatherNd Greater GreaterEqual HardSwish If L2Normalization L2Pool2D LeakyRelu Less LessEqual Log "
    "LogSoftmax LogicalAnd LogicalNot LogicalOr Logistic MaxPool2D Maximum Mean Minimum MirrorPad Mul Neg NotEqual "
    "Pack Pad PadV2 Prelu Quantize ReadVariable ReduceAll ReduceMax ReduceMin Relu Relu6 Reshape ResizeBilinear "
    "ResizeNearestNeighbor ReverseV2 Round Rsqrt SelectV2 Shape Sin Slice Softmax SpaceToBatchNd SpaceToDepth "
    "Split SplitV Sqrt Square SquaredDifference Squeeze StridedSlice Sub Sum Svdf Tanh Transpose TransposeConv "
    "UnidirectionalSequenceLSTM Unpack VarHandle While ZerosLike"
)
METHODS = {name.upper(): name for name in NAMES.split()}
"""The methods Add...() of MicroMutableOpResolver, by TFLite's names for the operations without their underscores."""

TYPES = {
    "float32": "kTfLiteFloat32",
    "int8": "kTfLiteInt8",
    "uint8": "kTfLiteUInt8",
    "int16": "kTfLiteInt16",
    "int32": "kTfLiteInt32",
    "int64": "kTfLiteInt64",
    "bool": "kTfLiteBool",
}
"""The types that the self-test compares."""

MARGIN = 1 / 16
"""Of the arena, beside what is measured here. With its own kernels a microcontroller of 32 bits needs less than a
machine of 64, whose pointers are twice as long; but those made for one processor ask for scratch memory beside that.
"""

ARENA_STEP = 1024
"""Arena sizes are multiples of this."""

GOLDEN_BYTES = 1 << 16
"""Of golden cases in the firmware, for each model: the first ones, and at least one. All of them are in golden/."""

ID_LENGTH = 40
"""Of identifiers that are made of file names."""

PER_LINE = 20
"""Bytes of an array in one line."""

PLAIN = re.compile(r"[^A-Za-z0-9 _.,:()-]")

QUANTIZE = "mh-edge quantize {} --scheme int8 --calibration DATA.npz makes full integers of a float file."


WITHOUT = "Build the model without the layer that makes it, or bundle it for a platform with an operating system."


@dataclass(frozen=True)
class Needs:
    """What a file needs to run. operators: names of methods of METHODS. arena: bytes, as measured. places: for
    "inputs" and "outputs", by name, which of the graph's it is.
    """

    operators: tuple[str, ...]
    arena: int
    places: Mapping[str, Mapping[str, int]]

    @property
    def arena_bytes(self) -> int:
        """With the margin."""
        return -(-int(self.arena * (1 + MARGIN)) // ARENA_STEP) * ARENA_STEP


class Mcu(Platform):
    """C++ sources for TensorFlow Lite Micro, checked in its interpreter here."""

    name = "mcu"
    formats = ("tflite",)
    next_step = "Add src/ to a firmware project as README.md says, and read SELFTEST PASSED on its serial port."

    SOURCES: ClassVar[tuple[str, ...]] = ("main.cpp", "selftest.cpp", "selftest.h")

    def __init__(self, settings: Mapping[str, str] | None = None) -> None:
        super().__init__(settings)
        self._needs: dict[Path, Needs] = {}

    def require(self, artifact: Artifact) -> None:
        if artifact.format not in self.formats:
            raise ConversionError(
                f"TensorFlow Lite Micro takes .tflite files, and {str(artifact.path)!r} is none.",
                "mh-edge export MODEL --to tflite --batch 1 writes one (with --sequence N for a free length); "
                + QUANTIZE.format("MODEL.tflite"),
            )
        self._needs[artifact.path] = needs(artifact)

    def device(self, artifact_format: str) -> str:
        return MicroSession.device

    def finish(self, kit: Kit) -> Mapping[str, Mapping[str, Any]]:
        names = identifiers([member.name for member in kit.members])
        needed = [self._needs[member.source.path] for member in kit.members]
        kit.copy(*(f"src/{name}" for name in self.SOURCES))
        details = {}
        for member, name, need in zip(kit.members, names, needed, strict=True):
            details[member.name] = _write(kit, member, name, need)
        largest = str(max(need.arena_bytes for need in needed))
        kit.fill(
            "templates/models.cpp",
            {
                "declarations": "\n".join(f"extern const Model {name}_golden;" for name in names),
                "list": ", ".join(f"&{name}_golden" for name in names),
                "arena": largest,
            },
            "src/models.cpp",
        )
        kit.fill("templates/sample.cpp", {"id": names[0], "tensors": _tensors(kit.members[0], needed[0])}, "sample.cpp")
        kit.readme(
            memory="\n".join(_memory(member, details[member.name]) for member in kit.members),
            margin=f"1/{1 / MARGIN:g}",
            version=version("tflite-micro") or "",
            sources=" ".join(sorted(f'"{path.name}"' for path in (kit.folder / "src").glob("*.c*"))),
        )
        return details


def needs(artifact: Artifact) -> Needs:
    """What TensorFlow Lite Micro needs for a file. Raises ConversionError where it does not run it in integers,
    UnavailableError where its interpreter is not installed.
    """
    for tensor in artifact.inputs:
        if any(isinstance(dim, str) for dim in tensor.shape):
            raise ConversionError(
                f"TensorFlow Lite Micro needs fixed sizes, and the input {tensor.name!r} of {str(artifact.path)!r} has "
                f"the free shape ({', '.join(map(str, tensor.shape))}).",
                "mh-edge export MODEL --to tflite --batch 1 --sequence N (or --dim NAME=N) fixes them.",
            )
    operators = _operators(artifact)
    _require_types(artifact)
    try:
        with MicroSession(artifact.path) as session:
            if session.precision != "integers":
                raise ConversionError(
                    f"{str(artifact.path)!r} computes in floats, for which microcontrollers are too small.",
                    QUANTIZE.format(shlex.quote(str(artifact.path))),
                )
            feeds = {one.name: np.zeros([int(dim) for dim in one.shape], one.dtype) for one in session.signature.inputs}
            session.run(feeds)  # some kernels find out only now that they lack a type
            sides = {
                "inputs": (session.signature.inputs, session.input_places),
                "outputs": (session.signature.outputs, session.output_places),
            }
            places = {
                side: {one.name: place for one, place in zip(tensors, found, strict=True)}
                for side, (tensors, found) in sides.items()
            }
            return Needs(operators, session.arena_bytes, places)
    except MicroError as error:
        raise ConversionError(
            f"{str(artifact.path)!r} does not run: {error.reason}",
            QUANTIZE.format(shlex.quote(str(artifact.path))) if artifact.quantized is None else WITHOUT,
        ) from error


def _operators(artifact: Artifact) -> tuple[str, ...]:
    """Raises ConversionError for operations that TensorFlow Lite Micro does not have."""
    if lacking := [op for op in artifact.ops if op.replace("_", "") not in METHODS]:
        makers = {op: [rule for rule, made in artifact.made.items() if op in made] for op in lacking}
        listed = ", ".join(f"{op} (of {', '.join(makers[op])})" if makers[op] else op for op in lacking)
        raise ConversionError(
            f"TensorFlow Lite Micro has no operation {listed}, which {str(artifact.path)!r} needs.",
            WITHOUT,
        )
    return tuple(sorted(METHODS[op.replace("_", "")] for op in artifact.ops))


def _require_types(artifact: Artifact) -> None:
    tensors: tuple[Tensor, ...] = (*artifact.inputs, *artifact.outputs)
    for tensor in tensors:
        if tensor.dtype not in TYPES:
            raise ConversionError(
                f"{tensor.name!r} of {str(artifact.path)!r} is {tensor.dtype}, which the self-test does not compare.",
                f"It compares {', '.join(TYPES)}.",
            )


def identifiers(names: Sequence[str]) -> list[str]:
    """For each file name the beginning of its identifiers and of its files: letters, digits and single underscores. No
    two are the same, for file systems that do not tell small letters from capitals either.
    """
    found: list[str] = []
    for name in names:
        ascii_only = unicodedata.normalize("NFKD", Path(name).stem).encode("ascii", "ignore").decode()
        base = re.sub(r"[^A-Za-z0-9]+", "_", ascii_only).strip("_")[:ID_LENGTH].strip("_") or "model"
        base = f"m_{base}" if base[0].isdigit() else base
        one, number = base, 2
        while one.lower() in (other.lower() for other in found):
            one, number = f"{base}_{number}", number + 1
        found.append(one)
    return found


def c_array(content: bytes) -> str:
    """The bytes as the numbers of an initializer."""
    rows = (content[start : start + PER_LINE] for start in range(0, len(content), PER_LINE))
    return "\n".join("  " + ",".join(map(str, row)) + "," for row in rows)


def c_string(text: str) -> str:
    """A string literal of C, in UTF-8."""
    return '"' + PLAIN.sub(lambda found: "".join(f"\\{byte:03o}" for byte in found[0].encode()), text) + '"'


def _write(kit: Kit, member: Member, name: str, need: Needs) -> dict[str, Any]:
    """The generated sources of one model -> its details."""
    content = member.model.read_bytes()
    cases = _fitting(member.golden)
    values = {
        "id": name,
        "bytes": str(len(content)),
        "sha256": file_sha256(member.model),
        "measured": str(need.arena),
        "arena": str(need.arena_bytes),
        "count": str(len(need.operators)),
        "operators": "\n".join(f"  TF_LITE_ENSURE_STATUS(operators.Add{one}());" for one in need.operators),
        "name": c_string(member.name),
        "cases": "\n".join(_cases(cases, need.places)),
        "inputs": str(len(member.source.inputs)),
        "outputs": str(len(member.source.outputs)),
    }
    for template, array in (
        ("model.h", b""),
        ("model.c", content),
        ("operators.h", b""),
        ("golden.cpp", cases.content()),
    ):
        kit.fill(f"templates/{template}", values | {"array": c_array(array)}, f"src/{name}_{template}")
    return {
        "identifier": name,
        "arena_bytes": need.arena_bytes,
        "arena_measured": need.arena,
        "operators": list(need.operators),
        "cases_in_firmware": len(cases.cases),
    }


def _fitting(golden: Golden) -> Golden:
    """The first cases, as many as the firmware takes."""
    count = 1
    while count < len(golden.cases) and len(_first(golden, count + 1).content()) <= GOLDEN_BYTES:
        count += 1
    return _first(golden, count)


def _first(golden: Golden, count: int) -> Golden:
    return Golden(golden.reference, golden.precision, golden.cases[:count])


def _cases(golden: Golden, places: Mapping[str, Mapping[str, int]]) -> Iterator[str]:
    """The tables of inputs, outputs and cases, in C++."""
    told = golden.to_json()["cases"]
    for number, case in enumerate(told):
        for side in ("inputs", "outputs"):
            yield f"const Array {side}_{number}[] = {{"
            for name, entry in case[side].items():
                size = int(np.dtype(entry["dtype"]).itemsize * np.prod(entry["shape"], dtype=np.int64))
                yield (
                    f"    {{{c_string(name)}, {places[side][name]}, {TYPES[entry['dtype']]}, {size}, "
                    f"golden + {entry['offset']}, {entry.get('allowed', 0.0)!r}}},"
                )
            yield "};"
    yield "const Case cases[] = {"
    yield from (
        f"    {{{c_string(case['name'])}, inputs_{number}, outputs_{number}}}," for number, case in enumerate(told)
    )
    yield "};"


def _tensors(member: Member, need: Needs) -> str:
    """Which input and output is which, as a comment."""
    source = member.source
    return "\n".join(
        f"// {side}({need.places[f'{side}s'][one.name]}): {PLAIN.sub('?', one.name)}, {one.dtype} {one.shape}"
        for side, tensors in (("input", source.inputs), ("output", source.outputs))
        for one in tensors
    )


def _memory(member: Member, details: Mapping[str, Any]) -> str:
    """A row of the README's table."""
    return (
        f"| `{details['identifier']}` | {member.model.stat().st_size:,} | {details['arena_bytes']:,} | "
        f"{details['arena_measured']:,} | {', '.join(details['operators'])} | "
        f"{details['cases_in_firmware']} of {len(member.golden.cases)} |"
    )
