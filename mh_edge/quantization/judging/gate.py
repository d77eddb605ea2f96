"""The gates of `--max-drop` and `--min-speedup`: what a quantized model has to be before it is written."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mh_edge.errors import InputError, UsageError
from mh_edge.quantization.judging.verdict import Verdict, of_user

UNITS = {"points": "%", "db": "dB"}
"""Kind of gate -> how its limit is written."""

EXAMPLES = 'Write "1%" (points of accuracy; without labels, of top-1 agreement), "30dB" (the least SQNR) or "1%,30dB".'

ROUNDING = 1e-9
"""Points by which a drop may pass the limit: 90.1 % − 89.1 % is 1.0000000000000142 in floats."""


@dataclass(frozen=True)
class Gate:
    """kind "points": accuracy (without labels, top-1 agreement) may be at most `limit` percentage points below the
    float model's (below 100 %). kind "db": the SQNR of every output must be at least `limit` decibels. least_db: that
    of a gate of points, which then asks for both.
    """

    kind: str
    limit: float
    least_db: float | None = None

    def __str__(self) -> str:
        also = "" if self.least_db is None else f",{self.least_db:g}{UNITS['db']}"
        return f"{self.limit:g}{UNITS[self.kind]}{also}"

    @classmethod
    def parse(cls, text: str) -> Gate:
        """`1%`, `0.5%`, `30dB`, or one of each: `1%,30dB`. Raises UsageError for anything else."""
        gates = sorted(map(cls._one, text.split(",")), key=lambda gate: gate.kind == "db")
        if len(gates) == 2 and gates[0].kind != gates[1].kind:
            return cls("points", gates[0].limit, gates[1].limit)
        if len(gates) > 1:
            raise UsageError(f"the gate {text!r} has two limits of a kind.", EXAMPLES)
        return gates[0]

    @classmethod
    def _one(cls, text: str) -> Gate:
        number = text.strip()
        unit = next((unit for unit in UNITS.values() if number.lower().endswith(unit.lower())), "")
        try:
            limit = float(number[: len(number) - len(unit)])
        except ValueError:
            raise UsageError(f"the gate {text!r} is no number with a unit.", EXAMPLES) from None
        if not unit:
            raise UsageError(f"the gate {text!r} has no unit.", EXAMPLES)
        if not math.isfinite(limit):
            raise UsageError(f"the gate {text!r} is no finite number.", EXAMPLES)
        if unit == "%" and not 0 <= limit <= 100:
            raise UsageError(f"the gate {text!r} is no share: nothing falls by that much.", EXAMPLES)
        return cls("points" if unit == "%" else "db", limit)

    def judge(self, verdict: Verdict) -> str | None:
        """None when the verdict passes, else what was lost, as a sentence without its full stop.

        Numbers that are NaN or infinite in the quantized model alone pass no gate. Raises UsageError when there is
        nothing to take points of: no labels, and no output that is like classes; or a metric that is no share.
        """
        for name, change in verdict.outputs.items():
            if change.not_finite:
                return f"{change.not_finite} of the numbers of {name!r} became NaN or infinite"
        points = self._points(verdict) if self.kind == "points" else None
        least = self.limit if self.kind == "db" else self.least_db
        decibels = None if least is None else _decibels(verdict, least)
        return "; ".join(filter(None, (points, decibels))) or None

    def notes(self, verdict: Verdict) -> tuple[str, ...]:
        """What the gate does not see: outputs of which it says nothing, and losses smaller than a sample."""
        if self.kind != "points":
            return ()
        notes = []
        labelled = verdict.accuracy is not None
        left = [
            repr(name)
            for name, one in verdict.outputs.items()
            if (one.accuracy if labelled else one.top1_agreement) is None
        ]
        if left and self.least_db is None and not of_user(verdict.metric):
            why = "came without labels of their own" if labelled else "are not known to be classes"
            notes.append(
                f"The gate {self} says nothing of {', '.join(left)}, which {why}; "
                f'"{self},30dB" asks for a least SQNR of every output too.'
            )
        if 0 < self.limit < 100 / verdict.samples:
            notes.append(
                f"One of {verdict.samples} samples weighs {100 / verdict.samples:.2g} points, more than the gate "
                f"{self} allows: it takes {math.ceil(100 / self.limit)} samples to tell such a loss."
            )
        return tuple(notes)

    def _points(self, verdict: Verdict) -> str | None:
        if not verdict.share:
            raise UsageError(
                f"the gate {self} asks for points, and the metric {verdict.metric} gives numbers outside 0 to 1 "
                f"(mean {verdict.accuracy_float:.4g} for float, {verdict.accuracy:.4g} quantized).",
                "Let it return 1 for what could not be better and 0 for the worst: of an error e, which is better when "
                'lower, 1 - min(e / worst, 1). Or give the least SQNR, "30dB".',
            )
        if verdict.accuracy is not None and verdict.accuracy_float is not None:
            what, before, after = verdict.metric, 100 * verdict.accuracy_float, 100 * verdict.accuracy
        elif verdict.top1_agreement is not None:
            what, before, after = "top-1 agreement with the float model", 100.0, 100 * verdict.top1_agreement
        else:
            raise UsageError(
                f"the gate {self} asks for points of accuracy, and nothing says that an output ("
                f"{', '.join(verdict.outputs)}) decides between classes: no labels fit, and no output holds "
                "probabilities.",
                "Give `labels` with the data, or --classes (classes=True) for outputs that are a score per class. For "
                'numbers that are no classes give the least SQNR, such as "30dB", or a --metric.',
            )
        drop = before - after
        if drop <= self.limit + ROUNDING:
            return None
        return (
            f"{what} fell by {drop:.{_digits(drop, self.limit)}f} points, from {before:.2f} % to {after:.2f} % on "
            f"{verdict.samples} samples; the gate allows {self.limit:g}"
        )

    def to_json(self) -> dict[str, Any]:
        also = {} if self.least_db is None else {"least_db": self.least_db}
        return {"kind": self.kind, "limit": self.limit, **also}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Gate:
        """Raises InputError when it is not what `to_json` writes."""
        kind, limit, least = data.get("kind"), data.get("limit"), data.get("least_db")
        both = kind == "points" and isinstance(least, int | float)
        if kind not in UNITS or not isinstance(limit, int | float) or not (least is None or both):
            raise InputError(f"{dict(data)!r} is no gate.", f"Give another one: --max-drop. {EXAMPLES}")
        return cls(kind, float(limit), None if least is None else float(least))


@dataclass(frozen=True)
class Asked:
    """What has to be true of a file before it is written."""

    gate: Gate | None
    min_speedup: float | None

    def lost(self, verdict: Verdict | None) -> str | None:
        """What the gate says against the verdict."""
        return None if self.gate is None or verdict is None else self.gate.judge(verdict)

    def notes(self, verdict: Verdict | None) -> tuple[str, ...]:
        """What the gate does not see."""
        return () if self.gate is None or verdict is None else self.gate.notes(verdict)

    def failed(self, verdict: Verdict) -> tuple[str, ...]:
        """A sentence for each gate that the verdict does not pass."""
        lost = self.lost(verdict)
        sentences = [] if lost is None else [lost]
        if self.min_speedup is not None and verdict.latency_ratio is not None:
            speedup = 1 / verdict.latency_ratio
            if speedup < self.min_speedup:
                sentences.append(f"it is {speedup:.2f} times as fast as float; asked for: {self.min_speedup:g}")
        return tuple(sentences)


def _decibels(verdict: Verdict, least: float) -> str | None:
    name, change = min(verdict.outputs.items(), key=lambda item: item[1].sqnr_db)
    if change.sqnr_db >= least:
        return None
    of = repr(name) if change.columns is None else f"column {change.columns[0]} of {name!r}"
    return (
        f"the SQNR of {of} is {change.sqnr_db:.{_digits(change.sqnr_db, least)}f} dB on {verdict.samples} samples; "
        f"the gate asks for {least:g}"
    )


def _digits(value: float, limit: float) -> int:
    """Decimals that tell the value from the limit: two, and more where these show it as the limit itself."""
    return next((digits for digits in range(2, 9) if round(value, digits) != round(limit, digits)), 9)
