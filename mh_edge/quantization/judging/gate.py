"""The gate of `--max-drop`: how much a quantized model may lose before it is refused."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mh_edge.errors import InputError, UsageError
from mh_edge.quantization.judging.verdict import Verdict

UNITS = {"points": "%", "db": "dB"}
"""Kind of gate -> how its limit is written."""

EXAMPLES = 'Write "1%" (points of accuracy; without labels, of top-1 agreement) or "30dB" (the least SQNR).'

ROUNDING = 1e-9
"""Points by which a drop may pass the limit: 90.1 % − 89.1 % is 1.0000000000000142 in floats."""


@dataclass(frozen=True)
class Gate:
    """kind "points": accuracy (without labels, top-1 agreement) may be at most `limit` percentage points below the
    float model's (below 100 %). kind "db": the SQNR of every output must be at least `limit` decibels.
    """

    kind: str
    limit: float

    def __str__(self) -> str:
        return f"{self.limit:g}{UNITS[self.kind]}"

    @classmethod
    def parse(cls, text: str) -> Gate:
        """`1%`, `0.5%`, `30dB`. Raises UsageError for anything else."""
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
        nothing to take points of: no labels, and no output that is like classes.
        """
        for name, change in verdict.outputs.items():
            if change.not_finite:
                return f"{change.not_finite} of the numbers of {name!r} became NaN or infinite"
        return self._points(verdict) if self.kind == "points" else self._decibels(verdict)

    def _points(self, verdict: Verdict) -> str | None:
        if verdict.accuracy is not None and verdict.accuracy_float is not None:
            what, before, after = verdict.metric, 100 * verdict.accuracy_float, 100 * verdict.accuracy
        elif verdict.top1_agreement is not None:
            what, before, after = "top-1 agreement with the float model", 100.0, 100 * verdict.top1_agreement
        else:
            raise UsageError(
                f"the gate {self} asks for points of accuracy, and the outputs ({', '.join(verdict.outputs)}) are no "
                "classes that came with labels.",
                'For numbers that are no classes give the least SQNR instead, such as "30dB", or a --metric.',
            )
        drop = before - after
        if drop <= self.limit + ROUNDING:
            return None
        return (
            f"{what} fell by {drop:.{_digits(drop, self.limit)}f} points, from {before:.2f} % to {after:.2f} % on "
            f"{verdict.samples} samples; the gate allows {self.limit:g}"
        )

    def _decibels(self, verdict: Verdict) -> str | None:
        name, change = min(verdict.outputs.items(), key=lambda item: item[1].sqnr_db)
        if change.sqnr_db >= self.limit:
            return None
        return (
            f"the SQNR of {name!r} is {change.sqnr_db:.{_digits(change.sqnr_db, self.limit)}f} dB on {verdict.samples} "
            f"samples; the gate asks for {self.limit:g}"
        )

    def to_json(self) -> dict[str, Any]:
        return {"kind": self.kind, "limit": self.limit}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Gate:
        """Raises InputError when it is not what `to_json` writes."""
        kind, limit = data.get("kind"), data.get("limit")
        if kind not in UNITS or not isinstance(limit, int | float):
            raise InputError(f"{dict(data)!r} is no gate.", f"Give another one: --max-drop. {EXAMPLES}")
        return cls(kind, float(limit))


def _digits(value: float, limit: float) -> int:
    """Decimals that tell the value from the limit: two, and more where these show it as the limit itself."""
    return next((digits for digits in range(2, 9) if round(value, digits) != round(limit, digits)), 9)
