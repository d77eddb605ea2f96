"""An artifact ready to be compared and timed: its feeds as files, and what the CPU makes of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mh_edge.arrayfiles import read_npz
from mh_edge.artifact import read_manifest
from mh_edge.packages import version
from mh_edge.profiling.agreement import compare
from mh_edge.profiling.feeding import Arrays, Sizes, drawn, given
from mh_edge.profiling.result import Agreement
from mh_edge.runtimes import SUFFIXES, adapter
from mh_edge.runtimes.apart import Apart, Opened
from mh_edge.runtimes.base import PRECISIONS
from mh_edge.signature import Signature

REFERENCES = {"onnx": ("cpu",), "tflite": ("litert-builtin", "tflite-runtime", "tflite-micro")}
"""The devices with whose numbers others are compared: of those that are installed the first. For TFLite it is the one
without a delegate.
"""


@dataclass(frozen=True)
class Asked:
    """What the feeds are to be like. arrays: the user's, from the file `source`; None to draw them."""

    sizes: Sizes = field(default_factory=Sizes)
    arrays: Arrays | None = None
    source: str = ""


@dataclass(frozen=True)
class Case:
    """files: .npz of the feeds, the timed one first. sizes: free size -> number. expected: what `reference` gave for
    each. batch: samples in a feed, None where inputs have no axis in common. source: of the feeds, in words.
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
        """What a device that computes in that precision gave for the first feeds, beside what the reference did."""
        coarsest = max(precision, self.opened.precision, key=PRECISIONS.index)
        expected = self.expected[: len(got)]
        return compare(expected, got, self.opened.output_scales, coarsest, self.reference, allowed)


def prepare(artifact: Path, asked: Asked, threads: int | None, folder: Path) -> Case:
    """Open the artifact on its reference device, make its feeds, and run them there. folder: for the files.

    Raises what the reference device raises, InputError or UsageError for feeds and sizes that do not fit.
    """
    known = REFERENCES[SUFFIXES[artifact.suffix.lower()]]
    here = (name for name in known if any(version(package) for package in adapter(name).packages))
    reference = next(here, known[0])
    with Apart(reference) as session:
        manifest = read_manifest(artifact)
        opened = session.open(artifact, threads=threads)
        signature = opened.signature if manifest is None else _named(opened.signature, manifest.signature)
        scales = opened.input_scales
        if asked.arrays is None:
            feeds = drawn(signature, asked.sizes, scales)
        else:
            feeds = given(asked.arrays, signature, asked.sizes, scales, asked.source)
        files = tuple(folder / f"feed-{number}.npz" for number in range(len(feeds.checks)))
        for file, arrays in zip(files, feeds.checks, strict=True):
            np.savez(file, **arrays)  # type: ignore[arg-type]
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
        bytes=_bytes(artifact, () if manifest is None else manifest.data),
        quantized=None if manifest is None else manifest.quantized,
    )


def _named(found: Signature, manifest: Signature) -> Signature:
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


def _bytes(artifact: Path, data: tuple[str, ...]) -> int:
    """Of the file with its external data."""
    beside = (artifact.parent / name for name in data)
    return artifact.stat().st_size + sum(path.stat().st_size for path in beside if path.is_file())
