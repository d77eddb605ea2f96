"""`bundle`: artifacts -> a folder, or a .zip of one, for one platform. Nothing is written at the target before the
placed files have given their golden numbers here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mh_edge import __version__
from mh_edge.arrayfiles import read_npz
from mh_edge.artifact import Artifact, file_sha256
from mh_edge.bundling import golden
from mh_edge.bundling.layout import BUNDLE_FILE, BUNDLE_LAYOUT, listed, render
from mh_edge.bundling.platform import MODELS, Kit, Member, Platform, place_manifest, platform
from mh_edge.bundling.writing import written
from mh_edge.errors import UsageError
from mh_edge.inspection import inspect
from mh_edge.packages import versions
from mh_edge.progress import Progress, silent
from mh_edge.runtimes.ort.hints import hints

PACKAGES = ("onnxruntime", "onnxruntime-gpu", "ai-edge-litert", "tflite-runtime", "tflite-micro", "onnxruntime-qnn")
"""Distributions whose versions a bundle records: what its golden numbers were made and checked with."""


@dataclass(frozen=True)
class Bundled:
    """An artifact of a bundle. path: in the bundle. cases: how many golden ones. worst: what the placed file gave here,
    nearest to what is allowed; `device` gave it.
    """

    name: str
    path: str
    bytes: int
    cases: int
    device: str
    worst: golden.Worst

    def to_json(self) -> dict[str, Any]:
        return {**vars(self), "worst": self.worst.to_json()}


@dataclass(frozen=True)
class Bundle:
    """What `bundle` wrote. bytes: of all its files; of the archive, for a .zip. next_step: what to do with it."""

    path: Path
    platform: str
    bytes: int
    files: int
    artifacts: tuple[Bundled, ...]
    notes: tuple[str, ...]
    next_step: str

    def to_json(self) -> dict[str, Any]:
        return {
            "path": str(self.path),
            "platform": self.platform,
            "bytes": self.bytes,
            "files": self.files,
            "artifacts": [one.to_json() for one in self.artifacts],
            "notes": list(self.notes),
        }


def bundle(
    artifacts: Sequence[str | Path],
    platform_name: str,
    output: str | Path,
    *,
    feeds: str | Path | None = None,
    rtol: float | None = None,
    settings: Mapping[str, str] | None = None,
    on_step: Progress = silent,
) -> Bundle:
    """Write a bundle of artifacts (.onnx, .tflite) for a platform of `mh_edge.bundling.PLATFORMS`.

    output: a folder, or a file that ends in .zip; an existing bundle there is replaced, anything else is left alone.
    feeds: .npz of real inputs by name; the first samples become golden cases beside those that are drawn. rtol: what a
    number may differ by, as a share of the largest of its output, in place of what `mh_edge.bundling.golden` says.
    settings: the platform's own options.

    Raises UsageError for options that make no sense, InputError for artifacts that cannot be read, ConversionError
    for those that the platform cannot take and for a target that cannot be written, UnavailableError where a package is
    missing, NotEqualError where a placed file does not give its golden numbers here.
    """
    if rtol is not None and not 0 <= rtol < math.inf:
        raise UsageError(f"--rtol is {rtol}.", "Give a share of the largest number, such as 0.001.")
    made = platform(platform_name, settings)
    sources = _sources(artifacts)
    arrays = None if feeds is None else read_npz(Path(feeds))
    for source in sources:
        made.require(source)
    with written(Path(output)) as folder:
        (folder / MODELS).mkdir()
        members, found, notes = [], [], []
        for source in sources:
            on_step(f"bundling {source.path}")
            cases = made.cases(source, golden.make(source, arrays, str(feeds), rtol, made.precision))
            placed = made.place(source, folder / MODELS)
            place_manifest(source, folder / MODELS)
            members.append(Member(source, placed, cases))
            found.append(_checked(made, members[-1], folder))
            notes += _notes(members[-1])
        files = packed(made, folder, members, notes)
    path = Path(output)
    size = path.stat().st_size if path.is_file() else sum(one.stat().st_size for one in path.rglob("*"))
    return Bundle(path, made.name, size, files, tuple(found), tuple(notes), made.next_step)


def packed(made: Platform, folder: Path, members: Sequence[Member], notes: Sequence[str]) -> int:
    """Write what a bundle holds beside the models, which are placed in the folder already -> how many files it has."""
    kit = Kit(made.name, folder, tuple(members))
    for member in members:
        kit.write(member.golden_file, member.golden.content())
    details = made.finish(kit)
    entries = [_entry(member, folder, details.get(member.name, {})) for member in members]
    files = listed(folder)
    told = {
        "mh_edge_bundle": BUNDLE_LAYOUT,
        "platform": made.name,
        "artifacts": entries,
        "notes": list(notes),
        "versions": {"mh-edge": __version__} | versions(PACKAGES),
        "files": files,
    }
    kit.write(BUNDLE_FILE, render(told))
    return len(files) + 1


def _sources(artifacts: Sequence[str | Path]) -> list[Artifact]:
    """The artifacts, no two of one name. Raises UsageError where there are."""
    if not artifacts:
        raise UsageError("no artifact is given.", "Name one or more .onnx or .tflite files.")
    sources = [inspect(path) for path in artifacts]
    names: dict[str, Path] = {}
    for source in sources:
        other = names.setdefault(source.path.name.lower(), source.path)
        if other is not source.path:
            raise UsageError(
                f"two artifacts have the same name: {str(other)!r} and {str(source.path)!r}.", "Rename one of them."
            )
    return sources


def _checked(made: Platform, member: Member, folder: Path) -> Bundled:
    """The placed file, run here. Raises NotEqualError where it does not give its golden numbers."""
    device = made.device(member.source.format)
    worst = golden.run(member.golden, member.model, device)
    golden.require_right(worst, member.model, f"the device {device!r}")
    size = sum(path.stat().st_size for path in member.files)
    place = member.model.relative_to(folder).as_posix()
    return Bundled(member.name, place, size, len(member.golden.cases), device, worst)


def _entry(member: Member, folder: Path, details: Mapping[str, Any]) -> dict[str, Any]:
    """What bundle.json says of an artifact."""
    source = member.source
    places = [path.relative_to(folder).as_posix() for path in member.files]
    manifest = folder / MODELS / f"{source.path.name}.json"
    return {
        "name": member.name,
        "format": source.format,
        "path": places[0],
        "data": places[1:],
        "manifest": manifest.relative_to(folder).as_posix() if manifest.exists() else None,
        "sha256": file_sha256(member.model),
        "source_sha256": source.sha256,
        "opset": source.opset,
        "signature": source.signature.to_json(),
        "session_options": hints(source.session_options),
        "verified": source.verified,
        "quantized": source.quantized,
        "golden": {"path": member.golden_file, **member.golden.to_json()},
        "details": dict(details),
    }


def _notes(member: Member) -> list[str]:
    """What a user should know of it."""
    notes = [f"{member.name}: {note}" for note in member.source.notes]
    if member.source.verified is None and member.source.quantized is None:
        notes.append(
            f"{member.name}: no manifest says that it was proven; its golden numbers are what "
            f"{member.golden.reference} gives here."
        )
    if golden.idle(member.golden):
        notes.append(
            f"{member.name}: every output is one and the same number in all golden cases, which proves nothing; "
            "give real inputs with --feeds."
        )
    return notes
