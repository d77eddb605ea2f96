"""What `verify` found: figures for people and for programs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mh_edge.errors import NotEqualError

if TYPE_CHECKING:
    from mh_edge.quantization.judging.gate import Gate
    from mh_edge.quantization.judging.verdict import Verdict


def number(value: float) -> float | str:
    """A float as JSON can hold it: NaN and infinity become "nan", "inf" and "-inf"."""
    return value if math.isfinite(value) else str(value)


@dataclass(frozen=True)
class Worst:
    """The element that comes nearest to (or goes furthest beyond) what is allowed."""

    feed: str
    output: str
    index: tuple[int, ...]
    expected: float
    got: float
    abs: float
    rel: float

    def to_json(self) -> dict[str, Any]:
        return {
            "feed": self.feed,
            "output": self.output,
            "index": list(self.index),
            "expected": number(self.expected),
            "got": number(self.got),
            "abs": number(self.abs),
            "rel": number(self.rel),
        }


@dataclass(frozen=True)
class ClassRow:
    """One class of feeds: yardstick, noise of float32 in it, the least margin (allowed / error; below 1 fails), and the
    counts.
    """

    kind: str
    feeds: int
    yardstick: str
    noise: float
    abs: float
    margin: float
    failed: int
    inconclusive: int

    def to_json(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "feeds": self.feeds,
            "yardstick": self.yardstick,
            "noise": number(self.noise),
            "abs": number(self.abs),
            "margin": number(self.margin),
            "failed": self.failed,
            "inconclusive": self.inconclusive,
        }


@dataclass(frozen=True)
class Tolerance:
    """abs: the least atol (with rtol 0), rel: the least rtol (with atol 0), under which everything is equal."""

    abs: float
    rel: float

    def to_json(self) -> dict[str, Any]:
        return {"abs": number(self.abs), "rel": number(self.rel)}


@dataclass(frozen=True)
class Candidate:
    """The verdict on one artifact.

    scale: the greatest number expected of it. reasons: why it did not pass, in sentences. notes: what else to know.
    saved: where the failing feed is. repeat: the command that fails with it again, where a command can name the
    reference. gate, metrics: of a quantized artifact, which need not be equal: what it may lose and what it lost; feeds
    are samples then, and there is neither a tolerance nor a scale.
    """

    path: str
    passed: bool
    feeds: int
    skipped: int
    inconclusive: int
    flips: int
    required_tolerance: Tolerance | None
    worst: Worst | None
    classes: tuple[ClassRow, ...]
    scale: float | None
    reasons: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    saved: str | None = None
    repeat: str | None = None
    gate: Gate | None = None
    metrics: Verdict | None = None

    @property
    def again(self) -> str:
        """How to see the failure again, in a sentence; empty when nothing was saved."""
        if self.repeat is not None:
            return f"Repeat it with: {self.repeat}"
        return "" if self.saved is None else f"The feed that fails is saved in {self.saved}."

    def to_json(self) -> dict[str, Any]:
        return {
            "path": self.path,
            "passed": self.passed,
            "feeds": self.feeds,
            "skipped": self.skipped,
            "inconclusive": self.inconclusive,
            "flips": self.flips,
            "required_tolerance": None if self.required_tolerance is None else self.required_tolerance.to_json(),
            "scale": None if self.scale is None else number(self.scale),
            "worst": None if self.worst is None else self.worst.to_json(),
            "classes": [row.to_json() for row in self.classes],
            "reasons": list(self.reasons),
            "notes": list(self.notes),
            "saved": self.saved,
            "repeat": self.repeat,
            "gate": None if self.gate is None else self.gate.to_json(),
            "metrics": None if self.metrics is None else self.metrics.to_json(),
        }


@dataclass(frozen=True)
class Verification:
    """The verdicts on all candidates against one reference; `yardstick` names what the errors were measured with."""

    reference: str
    yardstick: str
    candidates: tuple[Candidate, ...]
    notes: tuple[str, ...] = field(default=())

    @property
    def passed(self) -> bool:
        return all(candidate.passed for candidate in self.candidates)

    def candidate(self, path: str) -> Candidate:
        """The verdict on one artifact, by its path as it was given."""
        return next(candidate for candidate in self.candidates if candidate.path == path)

    def to_json(self) -> dict[str, Any]:
        """Plain data for JSON; NaN and infinity are strings."""
        return {
            "passed": self.passed,
            "reference": self.reference,
            "yardstick": self.yardstick,
            "candidates": [candidate.to_json() for candidate in self.candidates],
            "notes": list(self.notes),
        }

    def rows(self) -> list[Mapping[str, str]]:
        """One row of text per class of feeds for a table with all candidates side by side; the last row is the
        verdict.
        """
        kinds = dict.fromkeys(row.kind for candidate in self.candidates for row in candidate.classes)
        table = []
        for kind in kinds:
            cells = {candidate.path: _cell(candidate, kind) for candidate in self.candidates}
            table.append({"feeds": kind, **cells})
        verdicts = {candidate.path: _verdict(candidate) for candidate in self.candidates}
        return [*table, {"feeds": "verdict", **verdicts}]

    def require(self) -> None:
        """Raise NotEqualError with the reasons unless every candidate passed."""
        failed = [candidate for candidate in self.candidates if not candidate.passed]
        if failed:
            sentences = [
                f"{candidate.path} {_fault(candidate)} {self.reference}: {' '.join(candidate.reasons)}"
                for candidate in failed
            ]
            again = [candidate.again for candidate in failed if candidate.again]
            raise NotEqualError(" ".join(sentences), "\n".join(again))


def _fault(candidate: Candidate) -> str:
    return "is not equal to" if candidate.gate is None else f"does not pass its gate of {candidate.gate} beside"


def _verdict(candidate: Candidate) -> str:
    if candidate.gate is not None:
        return f"{'passes' if candidate.passed else 'FAILS'} {candidate.gate}"
    word = "equal" if candidate.passed else "NOT EQUAL"
    skipped = f", {candidate.skipped} feeds skipped" if candidate.skipped else ""
    unsure = f", {candidate.inconclusive} unsure" if candidate.inconclusive else ""
    return f"{word}{skipped}{unsure}"


def _cell(candidate: Candidate, kind: str) -> str:
    for row in candidate.classes:
        if row.kind == kind:
            state = f"{row.failed} of {row.feeds} differ" if row.failed else f"{row.feeds} equal"
            unsure = f", {row.inconclusive} unsure" if row.inconclusive else ""
            return f"{state}{unsure}, error {row.abs:.1e}"
    return "-"
