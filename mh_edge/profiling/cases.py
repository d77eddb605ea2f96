"""An artifact ready to be compared and timed: its feeds as files, and what the CPU makes of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from mh_edge.arrayfiles import read_npz, write_npz
from mh_edge.artifact import read_manifest
from mh_edge.packages import version
from mh_edge.profiling.agreement import compare
from mh_edge.profiling.feeding import Arrays, Sizes, drawn, given
from mh_edge.profiling.result import Agreement
from mh_edge.runtimes import REFERENCES, SUFFIXES, adapter
from mh_edge.runtimes.apart import Apart, Opened
from mh_edge.runtimes.base import PRECISIONS
from mh_edge.runtimes.ort.contents import files_beside
from mh_edge.signature import Signature


@dataclass(frozen=True)
class Asked:
    """What the feeds are to be like. arrays: the user's, from the file `source`; None to draw them."""

    sizes: Sizes = field(default_factory=Sizes)
    arrays: Arrays | None = None
    source: str = ""


@dataclass(frozen=True)
class Case:
    """files: .npz of the feeds in the order in which they are run, the timed one first, and once more at the end: what
    a device keeps from call to call shows then. sizes: free size -> number. expected: what `reference` gave for each.
    batch: samples in a feed, None where inputs have no axis in common. source: of the feeds, in words.
    """

    artifact: Path
    files: tuple[Path, ...]
    sizes: Mapping[str, int]
    batch: int | None
    source: str
    reference: str
    opened: Opened
    expected: tuple[Arrays, ...]
    bytes: int
    quantized: Mapping[str, Any] | None

    def compare(self, session: Apart, opened: Opened, allowed: float | None) -> Agreement:
        """The outputs of a session beside those of the reference."""
        return self.judge([_outputs(session, file) for file in self.files], opened.precision, allowed)

    def judge(self, got: Sequence[Arrays], precision: str, allowed: float | None) -> Agreement:
        """What a device that computes in that precision gave for the first of the files, beside what the reference did;
        nothing where the reference itself gave something else for the same feed at the end.
        """
        coarsest = max(precision, self.opened.precision, key=PRECISIONS.index)

        def beside(expected: Sequence[Arrays], got: Sequence[Arrays]) -> Agreement:
            return compare(expected, got, self.opened.output_scales, coarsest, self.reference, allowed)

        repeated = beside(self.expected[:1], self.expected[-1:])
        if repeated.equal is False:
            return Agreement(
                None, self.reference, why=f"it gives other numbers at every call, on {self.reference!r}, too"
            )
        return replace(beside(self.expected[: len(got)], got), feeds=len(set(self.files[: len(got)])))


def prepare(artifact: Path, asked: Asked, threads: int | None, folder: Path) -> Case:
    """Open the artifact on its reference device, make its feeds, and run them there. folder: for the files.

    Raises what the reference device raises, InputError or UsageError for feeds and sizes that do not fit.
    """
    reference = reference_device(SUFFIXES[artifact.suffix.lower()])
    with Apart(reference) as session:
        manifest = read_manifest(artifact)
        opened = session.open(artifact, threads=threads)
        signature = opened.signature if manifest is None else named(opened.signature, manifest.signature)
        scales = opened.input_scales
        if asked.arrays is None:
            feeds = drawn(signature, asked.sizes, scales)
        else:
            feeds = given(asked.arrays, signature, asked.sizes, scales, asked.source)
        checks = _telling(feeds.checks, feeds.batch)
        files = tuple(folder / f"feed-{number}.npz" for number in range(len(checks)))
        for file, arrays in zip(files, checks, strict=True):
            write_npz(file, arrays)
        files += files[:1]
        expected = tuple(_outputs(session, file) for file in files)
    return Case(
        artifact=artifact,
        files=files,
        sizes=feeds.sizes,
        batch=feeds.batch,
        source=feeds.source,
        reference=reference,
        opened=opened,
        expected=expected,
        bytes=sum(path.stat().st_size for path in (artifact, *files_beside(artifact))),
        quantized=None if manifest is None else manifest.quantized,
    )


def reference_device(kind: str) -> str:
    """Of the devices of REFERENCES for a format, the first that is installed; the first one where none is."""
    known = REFERENCES[kind]
    here = (name for name in known if any(version(package) for package in adapter(name).packages))
    return next(here, known[0])


def named(found: Signature, manifest: Signature) -> Signature:
    """The manifest's signature, which knows which free sizes are one and which values ids may take, where it is that of
    the file.
    """

    def kinds(signature: Signature) -> list[tuple[str, str, int]]:
        return [(one.name, one.dtype, len(one.shape)) for one in signature.inputs]

    return manifest if kinds(manifest) == kinds(found) else found


def _outputs(session: Apart, feeds: Path) -> Arrays:
    outputs = feeds.with_name(f"{feeds.stem}-{session.device}.npz")
    session.run(feeds, outputs)
    return read_npz(outputs)


def _telling(feeds: Sequence[Arrays], batch: int | None) -> tuple[Arrays, ...]:
    """The feeds, and another one where none differs from the first in every sample: outputs that a device keeps from
    the call before would pass for its own. It is the first one backwards in all axes but that of the samples, its
    floats halved: numbers, ids and masks stay such as the file takes.
    """
    first = feeds[0]

    def other(feed: Arrays) -> bool:
        changed = [(feed[name] != one).reshape(batch or 1, -1).any(axis=1) for name, one in first.items()]
        return bool(np.any(changed, axis=0).all())

    if any(map(other, feeds[1:])):
        return tuple(feeds)
    backwards = {name: np.flip(one, tuple(range(1, one.ndim))) for name, one in first.items()}
    made = {name: one / one.dtype.type(2) if one.dtype.kind == "f" else one for name, one in backwards.items()}
    return (*feeds, made)
