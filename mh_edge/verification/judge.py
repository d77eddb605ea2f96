"""The verdict on a trial: each deviation against what is allowed in its class of feeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mh_edge.signature import Tensor
from mh_edge.verification.compare import Deviation
from mh_edge.verification.feeds import Feed
from mh_edge.verification.noise import Allowance, Pool
from mh_edge.verification.reference import EXPLICIT
from mh_edge.verification.report import Candidate, ClassRow, Tolerance, Worst
from mh_edge.verification.trial import FloatRecord, Trial

MOST_INCONCLUSIVE = 0.1
"""Share of the feeds that may prove nothing before the whole comparison proves nothing."""

MOST_FLIPS = 1e-3
"""Share of integer and boolean elements that may flip because the reference is undecided there."""


@dataclass(frozen=True)
class Finding:
    """One output on one feed, judged. ratio: error / allowed of the worst column; above 1 it is wrong or, if explained,
    unsure.
    """

    feed: Feed
    output: Tensor
    deviation: Deviation
    column: int
    ratio: float
    failed: bool
    noise: float
    yardstick: str

    @property
    def inconclusive(self) -> bool:
        return self.ratio > 1 and not self.failed


def _ratio(error: np.ndarray, allowed: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(error == 0, 0.0, error / allowed)


def judge_float(record: FloatRecord, allowance: Allowance | None) -> Finding:
    """allowance: None when the tolerances are explicit; the record's errors are then ratios already."""
    if allowance is None:
        ratio = record.plain.error
        column = int(ratio.argmax())
        worst = float(ratio[column])
        return Finding(record.feed, record.output, record.plain, column, worst, worst > 1, 0.0, EXPLICIT)
    measured = record.truth if allowance.against_truth and record.truth is not None else record.plain
    ratios = _ratio(measured.error, allowance.allowed)
    column = int(ratios.argmax())
    failed = bool((measured.error > allowance.explained).any())
    return Finding(
        record.feed,
        record.output,
        measured,
        column,
        float(ratios[column]),
        failed,
        allowance.noise,
        allowance.yardstick,
    )


def findings(trial: Trial, pool: Pool | None) -> list[Finding]:
    """Every output on every feed, judged. pool: None when the tolerances are explicit."""
    judged = []
    allowances: dict[tuple[str, str], Allowance] = {}
    for record in trial.floats:
        key = (record.feed.kind, record.output.name)
        if pool is not None and key not in allowances:
            allowances[key] = pool.allowance(record.feed.kind, record.output)
        judged.append(judge_float(record, allowances.get(key)))
    for exact in trial.exacts:
        worst = exact.deviation
        column = int(worst.error.argmax())
        ratio = float("inf") if exact.wrong else 0.0
        judged.append(Finding(exact.feed, exact.output, worst, column, ratio, exact.wrong > 0, 0.0, "equal"))
    return judged


def worst_of(judged: Sequence[Finding]) -> Finding | None:
    """The finding furthest beyond (or nearest to) its allowance."""
    return max(judged, key=lambda finding: (finding.failed, finding.ratio), default=None)


def candidate(trial: Trial, judged: list[Finding], skipped: int, saved: str | None) -> Candidate:
    """The report on one candidate. saved: path of the failing feed."""
    feeds = {finding.feed.name for finding in judged} | {feed.name for feed, _ in trial.broken}
    unsure = {finding.feed.name for finding in judged if finding.inconclusive}
    flips = sum(exact.flips for exact in trial.exacts)
    reasons = _reasons(trial, judged, len(unsure), len(feeds))
    finding = worst_of(judged)
    return Candidate(
        path=trial.path,
        passed=not reasons,
        feeds=len(feeds),
        skipped=skipped,
        inconclusive=len(unsure),
        flips=flips,
        required_tolerance=Tolerance(
            max((finding.deviation.abs for finding in judged), default=0.0),
            max((finding.deviation.rel for finding in judged), default=0.0),
        ),
        worst=None if finding is None else _worst(finding),
        classes=_classes(trial, judged),
        reasons=tuple(reasons),
        scale=max((finding.deviation.scale for finding in judged), default=0.0),
        notes=(*trial.match.notes, *_left_out(len(feeds), skipped, len(unsure))),
        saved=saved,
    )


def _left_out(feeds: int, skipped: int, unsure: int) -> list[str]:
    """What the verdict does not rest on."""
    notes = []
    if skipped:
        notes.append(f"{skipped} of {feeds + skipped} feeds were skipped: the reference itself refuses them.")
    if unsure:
        notes.append(f"{unsure} of {feeds} feeds prove nothing: float32 itself is too uncertain there.")
    return notes


def _reasons(trial: Trial, judged: list[Finding], unsure: int, feeds: int) -> list[str]:
    reasons = []
    if trial.broken:
        feed, reason = trial.broken[0]
        reasons.append(f"On {len(trial.broken)} of {feeds} feeds it fails outright; first on [{feed.name}]: {reason}")
    failed = {finding.feed.name for finding in judged if finding.failed}
    finding = worst_of(judged)
    if failed and finding is not None:
        worst = _worst(finding)
        reasons.append(
            f"{len(failed)} of {feeds} feeds differ; worst: {worst.output}{list(worst.index)} is {worst.got:.9g} "
            f"instead of {worst.expected:.9g} on [{worst.feed}], {finding.ratio:.3g} times what is allowed."
        )
    elif unsure > MOST_INCONCLUSIVE * feeds:
        reasons.append(
            f"{unsure} of {feeds} feeds prove nothing: float32 itself is uncertain there by more than a thousandth. "
            "Give real feeds (--feeds) or an explicit tolerance (--atol or --rtol)."
        )
    flips, size = sum(exact.flips for exact in trial.exacts), sum(exact.size for exact in trial.exacts)
    if flips > MOST_FLIPS * size:
        reasons.append(f"{flips} of {size} integer or boolean elements flip, which is more than {MOST_FLIPS:.1%}.")
    return reasons


def _worst(finding: Finding) -> Worst:
    deviation, column = finding.deviation, finding.column
    expected, got = float(deviation.expected[column]), float(deviation.got[column])
    with np.errstate(invalid="ignore", divide="ignore"):
        error = float(np.abs(np.float64(got) - np.float64(expected)))
        relative = 0.0 if error == 0 else float(np.float64(error) / np.abs(np.float64(expected)))
    return Worst(finding.feed.name, finding.output.name, deviation.index(column), expected, got, error, relative)


def _classes(trial: Trial, judged: list[Finding]) -> tuple[ClassRow, ...]:
    feeds = [*(finding.feed for finding in judged), *(feed for feed, _ in trial.broken)]
    kinds = dict.fromkeys(feed.kind for feed in sorted(feeds, key=_grid_order))
    return tuple(
        _class_row(kind, [finding for finding in judged if finding.feed.kind == kind], trial) for kind in kinds
    )


def _grid_order(feed: Feed) -> tuple[int, int]:
    """The user's feeds first, then as the grid was laid out."""
    return (-1, -1) if feed.spec is None else feed.spec.seed


def _class_row(kind: str, judged: list[Finding], trial: Trial) -> ClassRow:
    broken = {feed.name for feed, _ in trial.broken if feed.kind == kind}
    ratio = max((finding.ratio for finding in judged), default=0.0)
    failed = broken | {finding.feed.name for finding in judged if finding.failed}
    unsure = {finding.feed.name for finding in judged if finding.inconclusive} - failed
    return ClassRow(
        kind=kind,
        feeds=len(broken | {finding.feed.name for finding in judged}),
        yardstick=", ".join(dict.fromkeys(finding.yardstick for finding in judged)),
        noise=max((finding.noise for finding in judged), default=0.0),
        abs=max((finding.deviation.abs for finding in judged), default=0.0),
        margin=1 / ratio if ratio else float("inf"),
        failed=len(failed),
        inconclusive=len(unsure),
    )
