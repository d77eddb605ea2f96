"""ONNX Runtime's own converters, as a program: `python -m mh_edge.bundling.ort_format TARGET.ort MODEL.onnx`, or
`... TARGET.config MODEL.ort ...` for the operators and types that files of this format need. They print, and set up
Python's logging as they are imported, so they get a process of their own.

Fixed: all optimizations for the CPU are made here and written down, but for those that depend on the processor (the
layout NCHWc, which the converter leaves out for every target but amd64). The other style, Runtime, keeps the nodes as
NNAPI and CoreML know them, and plays fusions back only where `session.enable_saved_runtime_optimizations` is set.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mh_edge.errors import ConversionError
from mh_edge.runtimes.apart import ROOT
from mh_edge.runtimes.base import first_line

STYLE, PLATFORM = "Fixed", "arm"
"""What the converter is asked for. Of its target platforms, "arm" leaves int8 as it is, and differs in nothing else."""

LEVEL = "ORT_CONVERT_ONNX_MODELS_TO_ORT_OPTIMIZATION_LEVEL"
"""A variable of the environment that the converter reads: files must not depend on it."""

ALIGNMENT = 16
"""Of what FlatBuffers aligns at most."""


def made(target: Path, *sources: Path) -> Path:
    """Run the converter for a target -> the target. Raises ConversionError with what it says."""
    done = subprocess.run(  # noqa: S603 - our own program
        [sys.executable, "-P", "-m", "mh_edge.bundling.ort_format", str(target), *map(str, sources)],
        capture_output=True,
        text=True,
        errors="replace",
        env={name: value for name, value in os.environ.items() if name != LEVEL}
        | {"PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), *sys.path)))},
        check=False,
    )
    if done.returncode:
        said = done.stderr.strip().splitlines() or ["without a word"]
        raise ConversionError(
            f"ONNX Runtime's converter cannot write {target.name!r}: {first_line(said[-1])}",
            "mh-edge profile --device cpu says if ONNX Runtime opens the artifact.",
        )
    return target


def convert(source: Path, target: Path) -> None:
    """An .onnx file -> an .ort file; the same bytes each time."""
    from onnxruntime.tools import convert_onnx_models_to_ort as tool

    with tempfile.TemporaryDirectory(prefix="mh-edge-") as folder:
        tool.convert_onnx_models_to_ort(
            source,
            output_dir=Path(folder),
            optimization_styles=[tool.OptimizationStyle[STYLE]],
            target_platform=PLATFORM,
            enable_type_reduction=True,
        )
        (found,) = Path(folder).glob("*.ort")
        target.write_bytes(ordered(found.read_bytes()))


def configure(target: Path, files: Sequence[Path]) -> None:
    """The operators and types of .ort files; named by their names, where the tool writes their paths."""
    from onnxruntime.tools.ort_format_model import create_config_from_models

    create_config_from_models(files, target, True)
    lines = target.read_text(encoding="utf-8").splitlines()
    told = ["# Generated from:", *(f"# - {file.name}" for file in files)]
    target.write_text(
        "\n".join([*told, *(line for line in lines if not line.startswith("#"))]) + "\n", encoding="utf-8"
    )


def ordered(content: bytes) -> bytes:
    """An .ort file whose table of kernels is written in the order of their names.

    ONNX Runtime sorts the references to its entries, but writes the entries themselves as a hash table gives them,
    which is another order in each process. They lie before the model, and nothing in the model refers to them.
    """
    import flatbuffers
    import onnxruntime.tools.ort_format_model  # noqa: F401 - makes the next line find its module
    from ort_flatbuffers_py.fbs import (
        ArgTypeAndIndex,
        InferenceSession,
        KernelTypeStrArgsEntry,
        KernelTypeStrResolver,
        OpIdKernelTypeStrArgsEntry,
    )

    session = InferenceSession.InferenceSession.GetRootAs(content, 0)
    table = session.Model()._tab
    names = table.Pos - flatbuffers.encode.Get(flatbuffers.packer.soffset, content, table.Pos)
    model = content[min(table.Pos, names) :]
    builder = flatbuffers.Builder(len(content) + ALIGNMENT)
    builder.CreateByteVector(bytes(-len(model) % ALIGNMENT) + model)  # FlatBuffers grow towards the front

    def vector(start: Callable[[Any, int], Any], items: Sequence[int]) -> int:
        start(builder, len(items))
        for item in reversed(items):
            builder.PrependUOffsetTRelative(item)
        return int(builder.EndVector())

    def argument(entry: Any) -> int:
        ArgTypeAndIndex.Start(builder)
        ArgTypeAndIndex.AddArgType(builder, entry.ArgType())
        ArgTypeAndIndex.AddIndex(builder, entry.Index())
        return int(ArgTypeAndIndex.End(builder))

    def kind(entry: Any) -> int:
        module = KernelTypeStrArgsEntry
        arguments = vector(module.StartArgsVector, [argument(entry.Args(i)) for i in range(entry.ArgsLength())])
        name = builder.CreateString(entry.KernelTypeStr())
        module.Start(builder)
        module.AddKernelTypeStr(builder, name)
        module.AddArgs(builder, arguments)
        return int(module.End(builder))

    def operator(entry: Any) -> int:
        module = OpIdKernelTypeStrArgsEntry
        kinds = [kind(entry.KernelTypeStrArgs(i)) for i in range(entry.KernelTypeStrArgsLength())]
        types = vector(module.StartKernelTypeStrArgsVector, kinds)
        name = builder.CreateString(entry.OpId())
        module.Start(builder)
        module.AddOpId(builder, name)
        module.AddKernelTypeStrArgs(builder, types)
        return int(module.End(builder))

    kernels = session.KernelTypeStrResolver()
    operators = [operator(kernels.OpKernelTypeStrArgs(i)) for i in range(kernels.OpKernelTypeStrArgsLength())]
    entries = vector(KernelTypeStrResolver.StartOpKernelTypeStrArgsVector, operators)
    KernelTypeStrResolver.Start(builder)
    KernelTypeStrResolver.AddOpKernelTypeStrArgs(builder, entries)
    resolver = KernelTypeStrResolver.End(builder)
    version = builder.CreateString(session.OrtVersion())
    InferenceSession.Start(builder)
    InferenceSession.AddOrtVersion(builder, version)
    InferenceSession.AddModel(builder, len(content) - table.Pos)
    InferenceSession.AddKernelTypeStrResolver(builder, resolver)
    root = InferenceSession.End(builder)
    builder.Prep(ALIGNMENT, 0)
    builder.Finish(root, file_identifier=b"ORTM")
    return bytes(builder.Output())


if __name__ == "__main__":
    target, *sources = map(Path, sys.argv[1:])
    if target.suffix == ".ort":
        convert(sources[0], target)
    else:
        configure(target, sources)
