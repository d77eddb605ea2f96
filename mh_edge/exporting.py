"""Keras model -> proven files: convert each format, write it out of sight, verify it there, then move all of them into
place at once.

Nothing at the target changes until every format is converted and proven; then everything changes in one commit
(mh_edge.commit).
"""

from __future__ import annotations

import importlib
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mh_edge import __version__
from mh_edge.artifact import FORMATS, Artifact, Converted, Manifest, file_sha256, manifest_path, unreferenced_data
from mh_edge.commit import Staging, staged, system_errors_named
from mh_edge.errors import ConversionError, InputError, NotEqualError, UsageError
from mh_edge.inspection import inspect
from mh_edge.models import require_model
from mh_edge.opsets import resolve_opset
from mh_edge.packages import require, versions
from mh_edge.progress import Progress, silent
from mh_edge.quiet import quiet
from mh_edge.repeating import command, proof_options
from mh_edge.signature import Signature

if TYPE_CHECKING:
    import keras
    import numpy as np

    from mh_edge.program import Program

MADE_BY = {
    "onnx": ("tensorflow", "keras", "tf2onnx", "onnx", "onnx-ir", "onnxscript"),
    "tflite": ("tensorflow", "keras"),
}
PROVEN_BY = {"onnx": ("onnxruntime", "onnxruntime-gpu"), "tflite": ("ai-edge-litert",)}
"""Distributions whose versions the manifest of each format records."""

FIXED_BATCH = {"tflite": 1}
"""Batch of the formats whose runtimes want a fixed one, unless another is asked for."""


@dataclass(frozen=True)
class ExportResult:
    """What an export wrote. model: as it was given. seconds: from the first step to the last rename."""

    model: str
    artifacts: tuple[Artifact, ...]
    seconds: float

    def to_json(self) -> dict[str, Any]:
        artifacts = [artifact.to_json() for artifact in self.artifacts]
        return {"command": "export", "model": self.model, "artifacts": artifacts, "seconds": round(self.seconds, 3)}


@quiet()
def export(
    model: keras.Model | str | Path,
    output: str | Path = ".",
    *,
    formats: str | Sequence[str] | None = None,
    opset: int | None = None,
    runtime: str = "cpu",
    batch: int | None = None,
    sequence: int | None = None,
    dims: Mapping[str, int] | None = None,
    merge: bool = True,
    state_io: bool = False,
    feeds: Mapping[str, np.ndarray] | None = None,
    verify: bool = True,
    atol: float | None = None,
    rtol: float | None = None,
    name: str | None = None,
    seed: int = 0,
    failures: str | Path | None = None,
    custom_modules: Sequence[str] = (),
    unsafe: bool = False,
    progress: Progress | None = None,
) -> ExportResult:
    """Convert a Keras model to files that compute the same, and prove it before anything is written at `output`.

    model: a keras.Model, a `.keras` or `.h5` file, or "package.module:function". output: a folder (files are named
    after the model, or `name`), or one file. formats: "onnx", "tflite" or several; without it what the output's name
    ends in, else "onnx". opset, runtime: see mh_edge.opsets. batch, sequence, dims: fix free sizes; `sequence` fixes
    "sequence" and every "..._sequence". TFLite's batch is 1 unless `batch` says otherwise. merge=False keeps parallel
    heads apart even where one operation for all of them is faster. state_io makes the states of recurrent layers inputs
    and outputs, for streaming (see mh_edge.streaming). feeds: real inputs by name,
    added to the generated ones, which are drawn from `seed`. verify=False writes without a proof, and the manifest says
    so. atol, rtol: allow |error| <= atol + rtol |expected| instead of what is measured. failures: the folder in which a
    feed that fails is saved. custom_modules: imported before loading, so that custom layers register; unsafe: load
    Lambda layers. progress: called with the name of each step as it begins.

    Raises UsageError for options that make no sense together, InputError for a model that cannot be read,
    ConversionError when a format cannot express it or the files cannot be written, NotEqualError when the proof fails;
    the target is then as it was.
    """
    started = time.monotonic()
    tell = progress or silent
    formats = _checked_formats(formats, Path(output))
    resolve_opset(opset, runtime)  # wrong usage is said before anything is loaded
    require_model(model)
    folder, names = _target(Path(output), formats, _default_name(model) if name is None else _checked_name(name))
    tell("loading the model")
    program, notes = _program(model, feeds, custom_modules, unsafe, state_io)
    sizes = {kind: _sizes(program.signature, kind, batch, sequence, dims or {}) for kind in formats}
    recipe = {
        "runtime": runtime,
        "merge": merge,
        "state_io": state_io,
        "seed": seed,
        "atol": atol,
        "rtol": rtol,
        "feeds": sorted(feeds) if feeds else [],
    }
    with staged(folder) as staging:
        manifests: dict[str, Manifest] = {}
        written: list[str] = []
        for kind in formats:
            tell(f"converting to {kind}")
            # Held by no name here: a converted model is as large as its weights, and the proof needs the memory.
            manifests[kind] = _write(
                _convert(kind, program, program.signature.pin(sizes[kind]), opset, runtime, merge),
                staging,
                names[kind],
                notes,
                recipe,
            )
            written += [*manifests[kind].data, names[kind], manifest_path(Path(names[kind])).name]
        if verify:
            tell("verifying")
            candidates = [staging.path / names[kind] for kind in formats]
            options = {"feeds": feeds, "atol": atol, "rtol": rtol, "seed": seed, "failures": failures}
            given = {
                "--opset": opset,
                "--runtime": None if runtime == "cpu" else runtime,
                "--no-merge": not merge,
                "--state-io": state_io,
                "--batch": batch,
                "--sequence": sequence,
                "--dim": tuple(f"{size}={length}" for size, length in (dims or {}).items()),
                **proof_options(atol, rtol, seed, failures, custom_modules, unsafe),
            }
            repeat = _Repeat(model, folder, given) if isinstance(model, str | Path) else None
            figures = _proven(program, candidates, _shown(model), options, repeat)
            with system_errors_named(folder):
                for kind, path, verified in zip(formats, candidates, figures, strict=True):
                    recorded = manifests[kind].versions | versions(PROVEN_BY[kind])
                    replace(manifests[kind], versions=recorded, verified=verified).write(path)
        artifacts = tuple(replace(inspect(staging.path / names[kind]), path=folder / names[kind]) for kind in formats)
        tell("writing")
        staging.commit(written, remove=lambda: unreferenced_data(folder, list(names.values()), written))
    return ExportResult(_shown(model), artifacts, time.monotonic() - started)


def _checked_formats(formats: str | Sequence[str] | None, output: Path) -> tuple[str, ...]:
    if formats is None:
        suffix = output.suffix.removeprefix(".")
        formats = suffix if suffix in FORMATS and not output.is_dir() else "onnx"
    formats = (formats,) if isinstance(formats, str) else formats
    if not formats:
        raise UsageError("no format was asked for.", f"Known are {', '.join(FORMATS)}.")
    for kind in formats:
        if kind not in FORMATS:
            raise UsageError(f"format {kind!r} is not known.", f"Known are {', '.join(FORMATS)}.")
    return tuple(dict.fromkeys(formats))


def _checked_name(name: str) -> str:
    if name in ("", ".", "..") or Path(name).name != name:
        raise UsageError(
            f"the name {name!r} is not one of a file.", "Give a name without folders; `output` is the folder."
        )
    return name


def _target(output: Path, formats: Sequence[str], stem: str) -> tuple[Path, dict[str, str]]:
    """The folder to write in, and each format's file name in it."""
    suffix = output.suffix.removeprefix(".")
    if suffix not in FORMATS or output.is_dir():
        return output, {kind: f"{stem}.{kind}" for kind in formats}
    if list(formats) != [suffix]:
        raise UsageError(
            f"the output {str(output)!r} is one {suffix} file, but the formats asked for are {', '.join(formats)}.",
            "Give a folder with -o.",
        )
    return output.parent, {suffix: output.name}


def _default_name(model: keras.Model | str | Path) -> str:
    """The stem of the model file, the function's name of "module:function", or the Keras model's own name."""
    if isinstance(model, str | Path):
        return Path(str(model).rpartition(":")[2]).stem
    return str(model.name).replace("/", "_")


def _shown(model: keras.Model | str | Path) -> str:
    return str(model) if isinstance(model, str | Path) else str(model.name)


def _program(
    model: keras.Model | str | Path,
    feeds: Mapping[str, np.ndarray] | None,
    custom_modules: Sequence[str],
    unsafe: bool,
    state_io: bool,
) -> tuple[Program, tuple[str, ...]]:
    """The model to export, and what a user should know of the way it was taken."""
    keras = require("keras", "export", "an export")
    from mh_edge.models import resolve_model
    from mh_edge.policy import is_float32, with_policy
    from mh_edge.program import program
    from mh_edge.streaming import Stream, stream, stream_notes
    from mh_edge.verification.domains import derive

    if (backend := keras.backend.backend()) != "tensorflow":
        raise UsageError(
            f"Keras runs on {backend} here, and only TensorFlow's graphs can be converted.",
            "Set KERAS_BACKEND=tensorflow before Keras is imported; a saved model loads in any backend.",
        )
    if isinstance(model, str | Path):
        model = resolve_model(model, custom_modules=custom_modules, unsafe=unsafe)
    program_of = stream if state_io else program
    found = program_of(model, feeds)
    notes: tuple[str, ...] = ()
    if not is_float32(model):  # asked after `program_of`, which builds what was never called
        policy = model.dtype_policy.name
        notes = (f"the model's policy is {policy}; it was exported, and is compared, in float32",)
        found = program_of(with_policy(model, "float32"), feeds)
    found = derive(found)
    return found, (*notes, *(stream_notes(found) if isinstance(found, Stream) else ()))


def _sizes(
    signature: Signature, kind: str, batch: int | None, sequence: int | None, dims: Mapping[str, int]
) -> dict[str, int]:
    """The sizes to fix for one format. Raises UsageError for a name that is not free, or a size below 1."""
    free = signature.free_dims()
    asked: dict[str, int] = {}
    if sequence is not None:
        lengths = [name for name in free if name == "sequence" or name.endswith("_sequence")]
        asked |= dict.fromkeys(lengths or ["sequence"], sequence)
    if batch is not None:
        asked["batch"] = batch
    asked |= dims  # a size asked for by its own name wins
    for name, size in asked.items():
        if name not in free:
            listed = f"Free are {', '.join(free)}." if free else "Every size of its inputs is fixed."
            raise UsageError(f"the model has no free size {name!r}.", listed)
        if size < 1:
            raise UsageError(f"the size {name}={size} is below 1.")
    return {"batch": FIXED_BATCH[kind]} | asked if kind in FIXED_BATCH else asked


def _convert(
    kind: str, program: Program, signature: Signature, opset: int | None, runtime: str, merge: bool
) -> Converted:
    """The converter is found by name, so that only the one asked for is imported."""
    convert = importlib.import_module(FORMATS[kind]).convert
    options = {"opset": opset, "runtime": runtime} if kind == "onnx" else {}
    converted: Converted = convert(program, signature, merge=merge, **options)
    return converted


def _write(
    converted: Converted, staging: Staging, name: str, notes: tuple[str, ...], recipe: Mapping[str, Any]
) -> Manifest:
    """Save the model and a manifest that does not yet speak of a proof -> the manifest."""
    path = staging.path / name
    with system_errors_named(staging.target):
        model, *data = converted.save(path)
        manifest = Manifest(
            format=converted.format,
            sha256=file_sha256(model),
            opset=converted.opset,
            signature=converted.signature,
            rules=converted.rules,
            notes=notes + converted.notes,
            choices=converted.choices,
            session_options=converted.session_options,
            data=tuple(sorted(file.name for file in data)),
            versions={"mh-edge": __version__} | versions(MADE_BY[converted.format]),
            verified=None,
            recipe=recipe,
        )
        manifest.write(path)
    return manifest


@dataclass(frozen=True)
class _Repeat:
    """What the command that repeats a failed export is made of; options: by flag, as they were given."""

    model: str | Path
    folder: Path
    options: Mapping[str, object]

    def command(self, name: str, feed: str) -> str:
        return command("export", self.model, options={"-o": self.folder / name, "--feeds": feed, **self.options})


def _proven(
    program: Program,
    staged_files: Sequence[Path],
    label: str,
    options: Mapping[str, Any],
    repeat: _Repeat | None,
) -> list[Mapping[str, Any]]:
    """What the manifests record of the proof. Raises NotEqualError when a file is not equal, with where the failing
    feed is.
    """
    from mh_edge.verification import verify

    folder = f"{staged_files[0].parent}{os.sep}"
    try:
        verification = verify(program, staged_files, label=label, **options)
    except InputError as error:
        if folder not in error.message:
            raise
        # About the file just written, not about what the user gave.
        raise ConversionError(error.message.replace(folder, ""), error.hint) from error
    for file, candidate in zip(staged_files, verification.candidates, strict=True):
        if not candidate.passed:
            reasons = " ".join(candidate.reasons).replace(folder, "")
            if candidate.saved is None:
                again = ""
            elif repeat is None:
                again = f"The feed that fails is saved in {candidate.saved}."
            else:
                again = f"Repeat it with: {repeat.command(file.name, candidate.saved)}"
            raise NotEqualError(
                f"{file.name} does not compute what {label} computes, so nothing was written: {reasons}", again
            )
    return [_recorded(candidate.to_json()) for candidate in verification.candidates]


def _recorded(figures: dict[str, Any]) -> dict[str, Any]:
    """Without paths: the same export writes the same manifest wherever it is run."""
    return {key: value for key, value in figures.items() if key not in ("path", "saved", "repeat")}
