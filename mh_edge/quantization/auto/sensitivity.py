"""Which layer costs how much: each quantized alone, all others in float, measured on calibration data and ranked.

Heads that are columns of a layer's weights are measured too: the weights of one head rounded to 8 bits (4 under int4),
with a scale for each output channel, and everything else in float. What can be kept in float is the layer; its heads
say where in it the harm comes from.
"""

from __future__ import annotations

import filecmp
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from mh_edge.artifact import Artifact
from mh_edge.errors import ConversionError
from mh_edge.progress import Progress, silent
from mh_edge.quantization.auto.parts import Part, Share, Weight, parts, rewrite, weights
from mh_edge.quantization.data.sets import Batch, Data
from mh_edge.quantization.judging.measuring import Measure
from mh_edge.quantization.judging.verdict import Verdict
from mh_edge.quantization.making import Made, make
from mh_edge.quantization.scheme import Options, Ranges, Scheme

SAMPLES = 128
"""Of the calibration data. More say the same: on a trained two-layer attention model 128 and 1000 samples rank all
layers and heads alike, and no SQNR differs by more than .6 dB.
"""

OPEN_BYTES = 2**30
"""Size of the candidates from which they are measured before more are made; each such lot is one pass over the data."""

FLOAT_BITS = 32
BITS = {"int4": 4}
"""Of a weight, by scheme; 8 otherwise."""


@dataclass(frozen=True)
class Sensitivity:
    """What is lost when one part alone is quantized. head: its number, None for the whole part. sqnr_db, error_std
    (mean error in units of the output's standard deviation), top1_agreement: of the worst output, see Change. bytes: by
    how much smaller the file becomes (of a head: what its weights lose in bits).
    """

    part: Part
    head: int | None
    sqnr_db: float
    error_std: float
    top1_agreement: float | None
    bytes: int

    @property
    def name(self) -> str:
        return self.part.name if self.head is None else f"{self.part.name}, head {self.head}"

    def to_json(self) -> dict[str, Any]:
        return {
            "part": self.part.name,
            "head": self.head,
            "sqnr_db": self.sqnr_db,
            "error_std": self.error_std,
            "top1_agreement": self.top1_agreement,
            "bytes": self.bytes,
        }


def sensitivity(
    source: Artifact, scheme: Scheme, ranges: Ranges, options: Options, data: Data, tell: Progress = silent
) -> tuple[Sensitivity, ...]:
    """The parts that the scheme can quantize and their heads, the most harmful first (lowest SQNR).

    data: calibration data, never the set that the gate is judged on; its first SAMPLES are used. A part of which the
    scheme quantizes nothing is left out. Costs one quantization per part, and one pass over the data for all of them
    (for every OPEN_BYTES of them).
    """
    measure = Measure(beginning(data, SAMPLES), threads=None)
    found: list[Sensitivity] = []
    with TemporaryDirectory(prefix="mh-edge-") as folder:
        for lot in _lots(_trials(source, scheme, ranges, options, Path(folder), tell)):
            verdicts = measure.verdicts(source, {str(number): trial.path for number, trial in enumerate(lot)}, tell)
            found += [trial.seen(verdicts[str(number)]) for number, trial in enumerate(lot)]
            for trial in lot:
                shutil.rmtree(trial.path.parent)
    return tuple(sorted(found, key=lambda one: (one.sqnr_db, one.name)))


def beginning(data: Data, samples: int) -> Data:
    """The batches of a set up to the one that completes so many samples."""

    def batches() -> Iterator[Batch]:
        for batch in data.batches():
            yield batch
            if batch.first + batch.count >= samples:
                return

    return replace(data, batches=batches, samples=samples if data.samples is None else min(samples, data.samples))


def keeping(options: Options, kept: Iterable[Part]) -> Options:
    """The options with more parts in float."""
    names = dict.fromkeys((*options.keep_float, *(name for part in kept for name in part.names)))
    return replace(options, keep_float=tuple(names))


@dataclass(frozen=True)
class _Trial:
    """A file in which one part, or one head of it, is quantized. saved: see Sensitivity.bytes."""

    part: Part
    head: int | None
    path: Path
    saved: int

    def seen(self, verdict: Verdict) -> Sensitivity:
        error, agreement = verdict.mean_error_std, verdict.top1_agreement
        return Sensitivity(self.part, self.head, verdict.sqnr_db, error, agreement, self.saved)


def _trials(
    source: Artifact, scheme: Scheme, ranges: Ranges, options: Options, folder: Path, tell: Progress
) -> Iterator[_Trial]:
    """Each in a folder of its own; heads come after the parts, as only heads of parts that are quantized count."""
    every = parts(source)
    baseline = _made(scheme, source, ranges, keeping(options, every), folder / "float")
    largest = source.bytes if baseline is None else _size(baseline.path)
    measured = []
    for number, part in enumerate(every):
        tell("quantizing each layer alone", number, len(every))
        alone = keeping(options, [other for other in every if other is not part])
        made = _made(scheme, source, ranges, alone, folder / str(number))
        if made is None or (baseline is not None and filecmp.cmp(made.path, baseline.path, shallow=False)):
            continue
        measured.append(part)
        yield _Trial(part, None, made.path, largest - _size(made.path))
    bits = BITS.get(scheme.name, 8)
    held = weights(source) if any(part.heads for part in measured) else {}
    for number, (part, head) in enumerate((one, head) for one in measured for head in range(len(one.heads))):
        path = _place(folder / f"head {number}", source)
        shares = part.heads[head]
        rewrite(source, {share.weight: _rounded(share, *held[share.weight], bits) for share in shares}, path)
        count = sum(held[share.weight][1].size for share in shares) // len(part.heads)
        yield _Trial(part, head, path, count * (FLOAT_BITS - bits) // 8)


def _made(scheme: Scheme, source: Artifact, ranges: Ranges, options: Options, folder: Path) -> Made | None:
    """None when the scheme finds nothing to quantize, or cannot quantize this part without the others."""
    try:
        return make(scheme, source, ranges, options, _place(folder, source))
    except ConversionError:
        return None


def _place(folder: Path, source: Artifact) -> Path:
    folder.mkdir()
    return folder / f"model{source.path.suffix}"


def _size(path: Path) -> int:
    """With its external data, which lies beside it."""
    return sum(file.stat().st_size for file in path.parent.iterdir())


def _rounded(share: Share, weight: Weight, value: np.ndarray, bits: int) -> np.ndarray:
    """The weight with a head's share in whole multiples of max |w| / (2^(bits-1) - 1) of each output channel."""
    others = tuple(axis for axis in range(value.ndim) if axis != weight.channels)
    scale = np.abs(value).max(axis=others, keepdims=True) / (2 ** (bits - 1) - 1)
    rounded = np.round(value / np.where(scale == 0, 1, scale)) * scale
    own = [slice(None)] * value.ndim
    own[share.axis] = slice(share.start, share.stop, share.step)
    changed = value.copy()
    changed[tuple(own)] = rounded[tuple(own)]
    return changed


def _lots(trials: Iterable[_Trial]) -> Iterator[list[_Trial]]:
    """The trials, in lots that may be open at once."""
    lot: list[_Trial] = []
    size = 0
    for trial in trials:
        lot.append(trial)
        size += _size(trial.path)
        if size > OPEN_BYTES:
            yield lot
            lot, size = [], 0
    if lot:
        yield lot
