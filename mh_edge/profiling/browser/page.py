"""The page that is served: that of the platform `web`, with the feeds of a profile as its golden cases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mh_edge.arrayfiles import read_npz
from mh_edge.bundling import golden
from mh_edge.bundling.bundling import packed
from mh_edge.bundling.platform import MODELS, Member, place_manifest
from mh_edge.bundling.web import Web
from mh_edge.errors import InputError, MhEdgeError, UnavailableError, UsageError
from mh_edge.inspection import inspect
from mh_edge.profiling.agreement import ALLOWED
from mh_edge.profiling.browser.frames import DTYPES
from mh_edge.profiling.cases import Case

INDEX = "/index.html"


@dataclass(frozen=True)
class Page:
    """files: path in an URL -> file. backends: of each artifact that is in it, as its format has them. nodes: of each.
    refused: why the others are not.
    """

    files: Mapping[str, Path]
    backends: Mapping[Path, Sequence[str]]
    nodes: Mapping[Path, int]
    refused: Mapping[Path, MhEdgeError]


def made(cases: Sequence[Case], settings: Mapping[str, str], folder: Path) -> Page:
    """Make it in that folder, which is empty. settings: of the platform.

    Raises UsageError for settings that it does not have.
    """
    web = Web(settings)
    members: list[Member] = []
    refused: dict[Path, MhEdgeError] = {}
    backends: dict[Path, Sequence[str]] = {}
    nodes: dict[Path, int] = {}
    (folder / MODELS).mkdir(parents=True)
    for case in cases:
        try:
            if any(one.name.lower() == case.artifact.name.lower() for one in members):
                raise UsageError(f"a page holds one file of the name {case.artifact.name!r}.", "Rename one of them.")
            source = inspect(case.artifact)
            web.require(source)
            cut = _golden(case)
            members.append(Member(source, web.place(source, folder / MODELS), cut))
            place_manifest(source, folder / MODELS)
        except MhEdgeError as error:
            refused[case.artifact] = _worded(error)
            continue
        backends[case.artifact] = web.backends(source.format)
        nodes[case.artifact] = sum(source.ops.values())
    if members:
        packed(web, folder, members, ())
    files = {f"/{path.relative_to(folder).as_posix()}": path for path in folder.rglob("*") if path.is_file()}
    return Page(files | ({"/": files[INDEX]} if members else {}), backends, nodes, refused)


def _golden(case: Case) -> golden.Golden:
    """Its feeds, and what the reference gives for them. The page shows what it makes of them; the verdict is ours."""
    inputs = [read_npz(file) for file in case.files[:-1]]
    outputs = case.expected[:-1]
    if odd := [name for name, array in outputs[0].items() if str(array.dtype) not in DTYPES]:
        raise InputError(f"{str(case.artifact)!r} gives no numbers for {odd[0]!r}, but {outputs[0][odd[0]].dtype}.")
    precision = case.opened.precision
    allowed = golden.allowances(outputs, case.opened.output_scales, ALLOWED[precision])
    names = [f"feed {number}" for number in range(len(inputs))]
    found = tuple(golden.Case(*one) for one in zip(names, inputs, outputs, allowed, strict=True))
    return golden.Golden(case.reference, precision, found)


def _worded(error: MhEdgeError) -> MhEdgeError:
    """With the option that the command has for it."""
    if isinstance(error, UnavailableError):
        return UnavailableError(error.message, error.hint.replace("--platform-option ", "--device-option browser."))
    return error
