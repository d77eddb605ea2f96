"""`--scheme auto`: try the schemes of a format, keep in float what costs too much, and choose.

1. Every scheme of RUNGS is tried on the whole model and judged on the evaluation set, all in one pass.
2. Where a scheme fails the gate, its layers are ranked by what each costs alone (`sensitivity`, on calibration data),
   and the fewest of the most harmful that have to stay in float are looked for by bisection: log2(layers) trials.
3. All that was made is timed in one interleaved run.
4. Of those that pass the gate and `min_speedup`, and are smaller or faster than float, the best has the smallest
   size ratio × latency ratio; of equals, the first that was tried.

All but the timing is deterministic. The choice can so depend on how fast this machine was at the moment; the recipe of
the best then fixes it: with it the same file comes out anywhere.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from mh_edge.artifact import Artifact, file_sha256, read_manifest
from mh_edge.errors import ConversionError, UnavailableError, UsageError
from mh_edge.progress import Progress, silent
from mh_edge.quantization.auto.sensitivity import Sensitivity, keeping, sensitivity
from mh_edge.quantization.data.sets import Data
from mh_edge.quantization.judging.gate import Asked, Gate
from mh_edge.quantization.judging.measuring import Measure
from mh_edge.quantization.judging.verdict import Verdict
from mh_edge.quantization.making import calibrated, make
from mh_edge.quantization.recipe import Recipe
from mh_edge.quantization.scheme import AUTO, Calibrate, Options, Ranges, Scheme, schemes_for

RUNGS = ("int8", "int8-dynamic", "int4", "fp16")
"""In this order. Schemes with 16-bit activations are for devices: the CPU runtimes have no kernels for them (TFLite's
int16x8 took 27 times float's time), so they are only made when they are named.
"""


@dataclass(frozen=True)
class Step:
    """One file that was tried. kept: parts that stay in float by the ladder, the most harmful first; of: how many the
    scheme quantizes. failed: a sentence for each gate that it does not pass. on_front: whether no other step is as good
    in loss, size and time, and better in one.
    """

    recipe: Recipe
    kept: tuple[str, ...]
    of: int
    verdict: Verdict
    failed: tuple[str, ...] = ()
    on_front: bool = False

    @property
    def label(self) -> str:
        return (
            f"{self.recipe.scheme}, {len(self.kept)} of {self.of} layers in float" if self.kept else self.recipe.scheme
        )

    def to_json(self) -> dict[str, Any]:
        return {
            "label": self.label,
            "scheme": self.recipe.scheme,
            "kept_float": list(self.kept),
            "metrics": self.verdict.to_json(),
            "passed": not self.failed,
            "failed": list(self.failed),
            "on_front": self.on_front,
        }


@dataclass(frozen=True)
class Ladder:
    """What was tried. best: None when nothing passes. nearest: the best, else the fastest of those that pass the gate,
    else the one that lost least. sensitivities: by scheme, for each that failed on the whole model. notes: what was not
    tried, and why.
    """

    steps: tuple[Step, ...]
    best: Step | None
    nearest: Step
    sensitivities: Mapping[str, tuple[Sensitivity, ...]]
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return {
            "steps": [step.to_json() for step in self.steps],
            "best": None if self.best is None else self.best.label,
            "nearest": self.nearest.label,
            "sensitivities": {scheme: [one.to_json() for one in found] for scheme, found in self.sensitivities.items()},
            "notes": list(self.notes),
        }


def climb(
    source: Artifact,
    options: Options,
    calibration: Data | None,
    measure: Measure,
    asked: Asked,
    folder: Path,
    tell: Progress = silent,
) -> Ladder:
    """Try the schemes of the source's format; see the module.

    options: of all schemes, each takes those that it reads. calibration: for ranges and sensitivities; without it,
    static schemes are not tried and nothing is kept in float. measure: of the evaluation data. folder: candidates are
    written into a folder in it that is gone afterwards.

    Raises ConversionError when no scheme could be tried at all.
    """
    with TemporaryDirectory(prefix="auto-", dir=folder) as scratch:
        bench = _Bench(source, measure, asked, Path(scratch), tell)
        tried, notes = _whole(bench, options, calibration)
        sensitivities: dict[str, tuple[Sensitivity, ...]] = {}
        steps: list[_Tried] = []
        for one in tried:
            steps.append(one)
            if one.lost and "keep_float" in one.scheme.options and calibration is not None:
                tell(f"looking for what {one.scheme.name} harms")
                ranked = sensitivity(source, one.scheme, one.ranges, one.options, calibration, tell)
                sensitivities[one.scheme.name] = ranked
                steps += _bisected(bench, one, [layer for layer in ranked if layer.head is None])
        return _chosen(bench.finished(steps), asked.gate, sensitivities, notes)


@dataclass(frozen=True)
class _Tried:
    """A file that was made and judged. lost: what the gate says against it."""

    scheme: Scheme
    options: Options
    ranges: Ranges
    kept: tuple[str, ...]
    of: int
    path: Path
    verdict: Verdict
    lost: tuple[str, ...]


@dataclass(frozen=True)
class _Bench:
    """Where candidates are made, judged and timed."""

    source: Artifact
    measure: Measure
    asked: Asked
    folder: Path
    tell: Progress

    def made(self, scheme: Scheme, ranges: Ranges, options: Options) -> Path:
        """The candidate's file, with the session options that the float file runs with."""
        name = f"{len(list(self.folder.iterdir()))}"
        (self.folder / name).mkdir()
        made = make(scheme, self.source, ranges, options, self.folder / name / f"model{self.source.path.suffix}")
        manifest = read_manifest(self.source.path, self.source.sha256)
        if manifest is not None:
            replace(manifest, sha256=file_sha256(made.path)).write(made.path)
        return made.path

    def judged(self, files: Mapping[str, Path]) -> dict[str, Verdict]:
        return replace(self.measure, threads=None).verdicts(self.source, files, self.tell)

    def finished(self, tried: Sequence[_Tried]) -> list[Step]:
        """The steps with their times and what they fail at."""
        files = {str(number): one.path for number, one in enumerate(tried)}
        judged = {str(number): one.verdict for number, one in enumerate(tried)}
        timed = self.measure.timed(self.source, files, judged, self.tell)
        steps = []
        for one, verdict in zip(tried, timed.values(), strict=True):
            recipe = Recipe.of(one.scheme, self.source, one.options, one.ranges)
            step = Step(recipe, one.kept, one.of, verdict)
            useless = _size(verdict) >= 1 and _time(verdict) >= 1
            sentence = ("it is neither smaller nor faster than float",) if useless else ()
            steps.append(replace(step, failed=self.asked.failed(verdict) + sentence))
        return steps


def _whole(bench: _Bench, options: Options, calibration: Data | None) -> tuple[list[_Tried], tuple[str, ...]]:
    """Every scheme on the whole model; a sentence for each that cannot take it."""
    known = schemes_for(bench.source.format)
    ranges: dict[Calibrate | None, Ranges] = {None: {}}
    made: dict[str, tuple[Scheme, Options, Path]] = {}
    notes = []
    rungs = [known[name] for name in RUNGS if name in known]
    for name, value in vars(options).items():
        if value != vars(Options())[name] and not any(name in scheme.options for scheme in rungs):
            raise UsageError(f"no scheme that {AUTO} tries on .{bench.source.format} files has the option {name}.")
    for scheme in rungs:
        bench.tell(f"trying {scheme.name}")
        own = Options(**{name: value for name, value in vars(options).items() if name in scheme.options})
        if scheme.calibrate is not None and calibration is None:
            notes.append(f"{scheme.name} was not tried: it needs calibration data (--calibration)")
            continue
        try:
            if scheme.calibrate not in ranges:
                ranges[scheme.calibrate] = calibrated(scheme, bench.source, own, calibration, bench.tell)
            made[scheme.name] = scheme, own, bench.made(scheme, ranges[scheme.calibrate], own)
        except (ConversionError, UnavailableError) as error:
            notes.append(f"{scheme.name} was not tried: {error.message.rstrip('.')}")
    if not made:
        raise ConversionError(f"no scheme takes this model: {'; '.join(notes) or 'none is known'}.")
    verdicts = bench.judged({name: path for name, (_, _, path) in made.items()})
    tried = [
        _Tried(scheme, own, ranges[scheme.calibrate], (), 0, path, verdicts[name], bench.asked.failed(verdicts[name]))
        for name, (scheme, own, path) in made.items()
    ]
    return tried, tuple(notes)


def _bisected(bench: _Bench, whole: _Tried, ranked: Sequence[Sensitivity]) -> list[_Tried]:
    """The trials with the k most harmful layers in float, by rising k: that more of them lose less is taken for
    granted. At least one layer stays quantized.
    """
    trials: list[_Tried] = []
    fails, passes = 0, len(ranked)
    while passes - fails > 1:
        kept = (fails + passes) // 2
        parts = [one.part for one in ranked[:kept]]
        options = keeping(whole.options, parts)
        bench.tell(f"{whole.scheme.name}: {kept} of {len(ranked)} layers in float")
        path = bench.made(whole.scheme, whole.ranges, options)
        verdict = bench.judged({"": path})[""]
        lost = bench.asked.failed(verdict)
        names = tuple(part.name for part in parts)
        trials.append(_Tried(whole.scheme, options, whole.ranges, names, len(ranked), path, verdict, lost))
        fails, passes = (kept, passes) if lost else (fails, kept)
    return sorted(trials, key=lambda one: len(one.kept))


def _chosen(
    steps: Sequence[Step],
    gate: Gate | None,
    sensitivities: Mapping[str, tuple[Sensitivity, ...]],
    notes: tuple[str, ...],
) -> Ladder:
    costs = [(_loss(step.verdict, gate), _size(step.verdict), _time(step.verdict)) for step in steps]
    steps = tuple(
        replace(step, on_front=not any(_dominates(other, cost) for other in costs))
        for step, cost in zip(steps, costs, strict=True)
    )
    passing = [step for step in steps if not step.failed]
    best = min(passing, key=lambda step: _size(step.verdict) * _time(step.verdict), default=None)
    accurate = [step for step in steps if gate is None or gate.judge(step.verdict) is None]
    fastest = min(accurate, key=lambda step: _time(step.verdict), default=None)
    nearest = best or fastest or min(steps, key=lambda step: _loss(step.verdict, gate))
    return Ladder(steps, best, nearest, sensitivities, notes)


def _dominates(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return one != other and all(mine <= theirs for mine, theirs in zip(one, other, strict=True))


def _loss(verdict: Verdict, gate: Gate | None) -> float:
    """What the gate looks at, so that less is better: accuracy lost, without labels top-1 agreement; or decibels, the
    other way round. Infinite when numbers became NaN.
    """
    if any(change.not_finite for change in verdict.outputs.values()):
        return math.inf
    if gate is None or gate.kind != "db":
        if verdict.accuracy is not None and verdict.accuracy_float is not None:
            return verdict.accuracy_float - verdict.accuracy
        if verdict.top1_agreement is not None:
            return 1 - verdict.top1_agreement
    return -verdict.sqnr_db


def _size(verdict: Verdict) -> float:
    return math.nan if verdict.size_ratio is None else verdict.size_ratio


def _time(verdict: Verdict) -> float:
    """1 where nothing was timed: then all are the same."""
    return 1.0 if verdict.latency_ratio is None else verdict.latency_ratio
