"""judge(float model, quantized models, data) -> a Verdict on each: one pass, in which the float model runs once."""

from __future__ import annotations

import inspect
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, Protocol

import numpy as np

from mh_edge import custom
from mh_edge.errors import InputError
from mh_edge.progress import Progress, silent
from mh_edge.quantization.data.sets import Batch, Data
from mh_edge.quantization.judging.classes import Reading, read_classes
from mh_edge.quantization.judging.feeding import Counterpart, fixed_batch, in_calls
from mh_edge.quantization.judging.measures import THRESHOLDS, Answers, Errors, Spread, decisions
from mh_edge.quantization.judging.verdict import Verdict
from mh_edge.quantization.scheme import Arrays
from mh_edge.runtimes.base import Session
from mh_edge.signature import Signature

Metric = Callable[[dict[str, np.ndarray], np.ndarray | None], Any]
"""(outputs by name, labels) of one batch -> one value per sample, or their mean; higher is better."""


class Float(Protocol):
    """The float model: an open session, or a Keras model seen as one."""

    @property
    def signature(self) -> Signature: ...

    def run(self, feeds: Arrays) -> Arrays: ...


def judge(
    reference: Float,
    candidates: Mapping[str, Session],
    data: Data,
    *,
    metric: Metric | None = None,
    classes: bool | None = None,
    progress: Progress | None = None,
) -> dict[str, Verdict]:
    """The verdict on every candidate (by name), without sizes and times; see Verdict and Change for what is measured.

    data: as it fits the reference; labels of one number per sample, or one-hot, are compared with the first output
    they fit. metric: instead of the share of right answers. classes: True reads every float output as one score per
    class, False none; by default those of shape (batch, classes >= 2) are, (batch, time, classes) where the labels fit
    that, and (batch, 1) where the labels are 0 and 1. Integer outputs are decisions themselves.

    Memory does not grow with the data. Raises InputError for data without samples, for labels that are no class, for a
    candidate whose inputs or outputs are others than the reference's, and for a metric that fails.
    """
    tell = progress or silent
    step = fixed_batch(reference.signature)
    trials = {name: _Trial(Counterpart.of(session, reference.signature)) for name, session in candidates.items()}
    scores = None if metric is None else _Scores(metric)
    seen: dict[str, _Seen] = {}
    samples, unread = 0, ""
    tell("judging")
    for batch in data.batches():
        feeds = {name: array[: batch.count] for name, array in batch.feeds.items()}
        expected = in_calls(reference.run, feeds, step)
        if not seen:
            labels = batch.labels if scores is None else None
            seen = {one.output: _Seen(one) for one in read_classes(reference.signature, expected, labels, classes)}
            if labels is not None and not any(one.reading.labelled for one in seen.values()):
                unread = _UNREAD.format(labels.dtype, ", ".join(("samples", *map(str, labels.shape[1:]))))
        ours = None if scores is None else scores.of(expected, batch)
        answers = {name: _answer(one.reading, expected[name], batch) for name, one in seen.items()}
        for name, one in seen.items():
            one.spread.add(expected[name].astype(np.float64))
        for trial in trials.values():
            got = trial.counterpart.run(feeds)
            for name, one in seen.items():
                trial.compare(one.reading, answers[name], expected[name], got[name])
            if scores is not None and ours is not None:
                trial.add(ours, scores.of(got, batch), batch.count)
        samples += batch.count
        tell("judging", samples, data.samples)
    if not samples:
        raise InputError(f"{data.label} holds no sample.", "Give at least one.")
    on = f"{data.label}, {samples} samples"
    verdicts = {name: trial.verdict(on, samples, seen, scores) for name, trial in trials.items()}
    return {name: replace(one, notes=(*one.notes, unread)) if unread else one for name, one in verdicts.items()}


_UNREAD = (
    "The labels ({} ({})) are no classes of any output, so nothing is said of accuracy; "
    "--metric package.module:function measures anything else."
)


def load_metric(spec: str) -> Metric:
    """The function `package.module:function`. Raises InputError when it is not there."""
    return custom.function(spec, "takes outputs and labels, and returns one number per sample")


class _Scores:
    """The user's metric, whatever goes wrong in it said with its name."""

    def __init__(self, metric: Metric) -> None:
        self._metric = metric
        named = f"{metric.__module__}:{metric.__qualname__}" if inspect.isroutine(metric) else type(metric).__qualname__
        self.name = named

    def of(self, outputs: Arrays, batch: Batch) -> np.ndarray:
        """A value for each sample, or their mean as one number."""
        with custom.blamed(f"the metric {self.name} raised"):
            values = np.asarray(self._metric(dict(outputs), batch.labels), np.float64)
        if values.shape not in ((), (1,), (batch.count,), (batch.count, 1)):
            raise InputError(
                f"the metric {self.name} gives an array of shape {values.shape} for {batch.count} samples.",
                "Let it return one number for each sample, or their mean.",
            )
        if np.isnan(values).any():
            raise InputError(
                f"the metric {self.name} gives NaN for a sample from {batch.first} to {batch.first + batch.count - 1}.",
                "Let it return numbers.",
            )
        return values.reshape(-1) if values.size == batch.count else values.reshape(())


class _Answer(NamedTuple):
    """What the float model decides on a batch, and what is right."""

    decided: np.ndarray
    right: np.ndarray | None


def _answer(reading: Reading, expected: np.ndarray, batch: Batch) -> _Answer | None:
    if reading.kind is None:
        return None
    right = reading.right(batch.labels, batch.first) if reading.labelled and batch.labels is not None else None
    return _Answer(decisions(reading.kind, expected), right)


@dataclass
class _Trial:
    """A candidate while the batches go through it."""

    counterpart: Counterpart
    errors: dict[str, Errors] = field(default_factory=lambda: defaultdict(Errors))
    answers: dict[str, Answers] = field(default_factory=lambda: defaultdict(Answers))
    score_float: float = 0.0
    score: float = 0.0
    worse: int | None = 0
    better: int | None = 0

    def compare(self, reading: Reading, answer: _Answer | None, expected: np.ndarray, got: np.ndarray) -> None:
        if got.shape != expected.shape:
            raise InputError(
                f"{self.counterpart.session.path} gives {reading.output!r} the shape {got.shape}, where the float "
                f"model gives {expected.shape}."
            )
        samples = len(expected) if expected.ndim else 1
        r, y = (array.reshape(samples, -1).astype(np.float64) for array in (expected, got))
        self.errors[reading.output].add(r, y)
        if answer is not None and reading.kind is not None:
            self.answers[reading.output].add(answer.decided, decisions(reading.kind, got), answer.right)

    def add(self, ours: np.ndarray, theirs: np.ndarray, count: int) -> None:
        """The metric of the float model and of this one on a batch."""
        self.score_float += float(ours.sum()) * count / ours.size
        self.score += float(theirs.sum()) * count / theirs.size
        if ours.shape != (count,) or theirs.shape != (count,) or self.worse is None or self.better is None:
            self.worse = self.better = None
        else:
            self.worse += int((ours > theirs).sum())
            self.better += int((theirs > ours).sum())

    def verdict(self, on: str, samples: int, seen: Mapping[str, _Seen], scores: _Scores | None) -> Verdict:
        changes = {}
        accuracy: dict[str, Any] = {}
        notes = list(self.counterpart.notes)
        for name, one in seen.items():
            answers, way = self.answers[name], one.way
            agreement = answers.number("agree", way) / answers.count if answers.count else None
            changes[name] = self.errors[name].change(one.spread, agreement)
            notes += one.notes
            if broken := changes[name].not_finite:
                notes.append(
                    f"{broken} of {self.errors[name].count} numbers of {name!r} are NaN or infinite in the quantized "
                    "model and finite in the float model."
                )
            if one.reading.labelled:
                accuracy = {
                    "metric": "accuracy",
                    "accuracy_float": answers.number("right_float", way) / answers.labelled,
                    "accuracy": answers.number("right", way) / answers.labelled,
                    "worse": answers.number("worse", way),
                    "better": answers.number("better", way),
                }
        if scores is not None:
            accuracy = {
                "metric": scores.name,
                "accuracy_float": self.score_float / samples,
                "accuracy": self.score / samples,
                "worse": self.worse,
                "better": self.better,
            }
        return Verdict(on=on, samples=samples, outputs=changes, notes=tuple(notes), **accuracy)


@dataclass
class _Seen:
    """An output of the float model over all samples."""

    reading: Reading
    spread: Spread = field(default_factory=Spread)

    @property
    def way(self) -> int:
        """Which of THRESHOLDS a single number is read by: that of a probability where all of them can be one."""
        probable = self.reading.kind == "binary" and self.spread.low >= 0 and self.spread.high <= 1
        return 0 if probable or self.reading.kind != "binary" else len(THRESHOLDS) - 1

    @property
    def notes(self) -> Sequence[str]:
        notes, name = [], self.reading.output
        if self.spread.left_out:
            notes.append(
                f"{self.spread.left_out} of the numbers of {name!r} are NaN or infinite in the float model already; "
                "they were left out."
            )
        if not self.spread.deviation:
            notes.append(
                f"{name!r} is {self.spread.mean:g} in every sample of the float model, so an error has no standard "
                "deviation to be measured by: it counts as 0 or infinite."
            )
        return notes
