"""Quantized artifacts: not equal to what they were made from, so judged by what they may lose on real data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from mh_edge.artifact import Manifest
from mh_edge.errors import InputError, UsageError
from mh_edge.quantization.data.sets import open_data
from mh_edge.quantization.data.sources import Given
from mh_edge.quantization.judging.gate import EXAMPLES, Gate
from mh_edge.quantization.judging.judge import Metric, judge, load_metric
from mh_edge.quantization.judging.verdict import Verdict, of_user
from mh_edge.runtimes.base import Session
from mh_edge.verification.reference import Arrays, Reference, Refused
from mh_edge.verification.report import Candidate


@dataclass(frozen=True)
class Gated:
    """The candidates that are judged by gates (by path), and on what. classes: see judge."""

    gates: Mapping[str, Gate]
    evaluation: Given
    metric: Metric | None
    classes: bool | None = None

    @classmethod
    def of(
        cls,
        manifests: Mapping[str, Manifest | None],
        evaluation: Given | None,
        max_drop: str | Gate | None,
        metric: str | Metric | None,
        classes: bool | None = None,
    ) -> Gated | None:
        """Those of the candidates that were quantized; None when there are none.

        Raises UsageError when one of them has no gate, nothing to be judged on or a gate in points of a metric that is
        not given, and when there is something to judge on and none of them.
        """
        asked = Gate.parse(max_drop) if isinstance(max_drop, str) else max_drop
        lossy = {path: manifest for path, manifest in manifests.items() if _is_lossy(manifest, asked)}
        if not lossy:
            if (evaluation, asked, metric, classes) != (None,) * 4:
                raise UsageError(
                    f"no candidate is quantized, as far as its manifest says: {', '.join(manifests)}.",
                    "A float file is proven to be equal, without --evaluation, --max-drop and --metric. For a file "
                    "without a manifest, which another tool quantized, give --max-drop.",
                )
            return None
        found = {path: asked or _own(path, manifest, metric is not None) for path, manifest in lossy.items()}
        if evaluation is None:
            raise UsageError(
                f"{next(iter(lossy))} is quantized, so it is judged by what it loses on real data, and none was given.",
                "Give --evaluation: an .npz, a folder of .npy or .npz, or package.module:function that yields feeds.",
            )
        return cls(found, evaluation, load_metric(metric) if isinstance(metric, str) else metric, classes)

    def compare(self, reference: Reference, sessions: Mapping[str, Session]) -> dict[str, Candidate]:
        """The verdicts by path. sessions: of all candidates."""
        data = open_data(self.evaluation, reference.signature, purpose="evaluation")
        data = replace(data, label=f"the evaluation data {data.label}")
        mine = {path: sessions[path] for path in self.gates}
        verdicts = judge(_Float(reference), mine, data, metric=self.metric, classes=self.classes)
        return {path: _candidate(path, self.gates[path], verdict) for path, verdict in verdicts.items()}


def _is_lossy(manifest: Manifest | None, asked: Gate | None) -> bool:
    """Of a file without a manifest nobody knows; whoever gives a gate says so."""
    return asked is not None if manifest is None else manifest.quantized is not None


def _own(path: str, manifest: Manifest | None, measured: bool) -> Gate:
    """The gate that the file was made with. measured: whether a metric is given."""
    record = {} if manifest is None or manifest.quantized is None else manifest.quantized
    kept, metric = record.get("gate"), (record.get("metrics") or {}).get("metric")
    if kept is None:
        raise UsageError(
            f"{path} was quantized without a gate, so nothing says what it may lose.", f"Give --max-drop. {EXAMPLES}"
        )
    gate = Gate.from_json(kept)
    if gate.kind == "points" and of_user(metric) and not measured:
        raise UsageError(
            f"the gate {gate} of {path} is in points of the metric {metric}, and no metric was given.",
            f"Give --metric {metric}, or another gate with --max-drop.",
        )
    return gate


class _Float:
    """The reference as a float model that is judged beside."""

    def __init__(self, reference: Reference) -> None:
        self.signature = reference.signature
        self._reference = reference

    def run(self, feeds: Arrays) -> Arrays:
        try:
            return self._reference.plain(feeds)
        except Refused as reason:
            raise InputError(f"the reference does not take the evaluation data: {reason}") from reason


def _candidate(path: str, gate: Gate, verdict: Verdict) -> Candidate:
    lost = gate.judge(verdict)
    return Candidate(
        path=path,
        passed=lost is None,
        feeds=verdict.samples,
        skipped=0,
        inconclusive=0,
        flips=0,
        required_tolerance=None,
        worst=None,
        classes=(),
        scale=None,
        reasons=() if lost is None else (f"{lost[0].upper()}{lost[1:]}.",),
        notes=verdict.notes + gate.notes(verdict),
        gate=gate,
        metrics=verdict,
    )
