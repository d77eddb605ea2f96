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
from mh_edge.quantization.data.sources import LABELS
from mh_edge.quantization.judging.classes import Reading, are_probabilities, read_classes
from mh_edge.quantization.judging.feeding import Counterpart, fixed_batch, in_calls
from mh_edge.quantization.judging.measures import THRESHOLDS, Answers, Errors, Spread, decisions
from mh_edge.quantization.judging.verdict import ACCURACY, Change, Verdict
from mh_edge.quantization.scheme import Arrays
from mh_edge.runtimes.base import Session
from mh_edge.signature import Signature

Metric = Callable[[dict[str, np.ndarray], Any], Any]
"""See load_metric."""

COLUMNS = 64
"""A fixed last axis of up to so many numbers that are no scores is read as that many quantities, each in its unit."""


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

    data: as it fits the reference; labels of one number per sample (per position), or one-hot, are compared with the
    output they are named after, else with the one they fit. metric: instead of the share of right answers, see
    load_metric. classes: True reads every float output as one score per class, False none; by default those are that
    labels fit ((batch, 1) fits labels of 0 and 1), and those that are probabilities in every sample: numbers in [0, 1],
    of which each row sums to 1, over a fixed axis of classes. Integer outputs are decisions themselves.

    Memory does not grow with the data. Raises InputError for data without samples, for labels that are no class, for a
    candidate whose inputs or outputs are others than the reference's, and for a metric that fails.
    """
    tell = progress or silent
    step = fixed_batch(reference.signature)
    trials = {name: _Trial(Counterpart.of(session, reference.signature)) for name, session in candidates.items()}
    scores = None if metric is None else _Scores(metric)
    seen: dict[str, _Seen] = {}
    samples, size, unread = 0, 0, list[str]()
    tell("judging")
    for batch in data.batches():
        feeds = {name: array[: batch.count] for name, array in batch.feeds.items()}
        expected = in_calls(reference.run, feeds, step)
        if not seen:
            labels, named = (batch.labels, batch.named) if scores is None else (None, {})
            readings = read_classes(reference.signature, expected, labels, named, classes)
            seen = {one.output: _Seen(one, _columns(expected[one.output], reference, one.output)) for one in readings}
            unread = _unread(readings, labels, named)
        ours = None if scores is None else scores.of(expected, batch)
        answers = {name: _answer(one.reading, expected[name], batch) for name, one in seen.items()}
        for name, one in seen.items():
            one.add(expected[name])
        for trial in trials.values():
            got = trial.counterpart.run(feeds)
            for name, one in seen.items():
                trial.compare(one, answers[name], expected[name], got[name])
            if scores is not None and ours is not None:
                trial.add(ours, scores.of(got, batch), batch.count)
        samples, size = samples + batch.count, max(size, batch.count)
        tell("judging", samples, data.samples)
    if not samples:
        raise InputError(f"{data.label} holds no sample.", "Give at least one.")
    verdicts = {name: trial.verdict(data.label, samples, size, seen, scores) for name, trial in trials.items()}
    return {name: replace(one, notes=(*one.notes, *unread)) for name, one in verdicts.items()}


def _unread(readings: Sequence[Reading], labels: np.ndarray | None, named: Arrays) -> list[str]:
    """A sentence for all labels that fit nothing."""
    read = {one.output for one in readings if one.labelled}
    unread = [
        f"The labels of {name!r} ({_form(of)}) are no classes of it" for name, of in named.items() if name not in read
    ]
    if labels is not None and not read - named.keys():
        unread.append(f"The labels ({_form(labels)}) are no classes of any output")
    return [
        f"{found}, so nothing is said of accuracy; --metric package.module:function measures anything else."
        for found in unread
    ]


def _form(labels: np.ndarray) -> str:
    return f"{labels.dtype} ({', '.join(('samples', *map(str, labels.shape[1:])))})"


def _columns(values: np.ndarray, reference: Float, name: str) -> int:
    """How many quantities an output holds, should it turn out to hold no scores."""
    (tensor,) = (tensor for tensor in reference.signature.outputs if tensor.name == name)
    last = tensor.shape[-1] if len(tensor.shape) > 1 and values.dtype.kind == "f" else None
    return last if isinstance(last, int) and 0 < last <= COLUMNS else 1


def load_metric(spec: str) -> Metric:
    """The function `package.module:function`: (outputs by name, labels) of one batch -> a number for each sample, or
    their mean.

    Higher is better. A gate in points needs numbers from 0 to 1, 1 for what could not be better: of an error e for
    instance 1 - min(e / worst, 1); with other numbers (-e) a metric is shown, and no such gate judges it. labels: the
    array `labels` of the set, None without one; a dict by output name where the set has `labels.<output>`, the array
    `labels` under that name.

    Raises InputError when it is not there.
    """
    return custom.function(spec, "takes outputs and labels, and returns one number per sample, higher for better ones")


class _Scores:
    """The user's metric, whatever goes wrong in it said with its name."""

    def __init__(self, metric: Metric) -> None:
        self._metric = metric
        named: Any = metric if inspect.isroutine(metric) else type(metric)
        self.name = f"{named.__module__}:{named.__qualname__}"
        self.share = True

    def of(self, outputs: Arrays, batch: Batch) -> np.ndarray:
        """A value for each sample, or their mean as one number."""
        with custom.blamed(f"the metric {self.name} raised"):
            values = np.asarray(
                self._metric({name: np.array(value) for name, value in outputs.items()}, _labels(batch)), np.float64
            )
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
        self.share &= bool(((values >= 0) & (values <= 1)).all())
        return values.reshape(-1) if values.size == batch.count else values.reshape(())


def _labels(batch: Batch) -> Any:
    if not batch.named:
        return batch.labels
    return dict(batch.named) | ({} if batch.labels is None else {LABELS: batch.labels})


class _Answer(NamedTuple):
    """What the float model decides on a batch, and what is right."""

    decided: np.ndarray
    right: np.ndarray | None


def _answer(reading: Reading, expected: np.ndarray, batch: Batch) -> _Answer | None:
    if reading.kind is None:
        return None
    decided, labels = decisions(reading.kind, expected), batch.named.get(reading.output, batch.labels)
    if labels is None or not reading.labelled:
        return _Answer(decided, None)
    right = reading.right(labels, batch.first)
    if len(right) != decided.shape[1]:
        raise InputError(
            f"the labels of {reading.output!r} from sample {batch.first} to {batch.first + batch.count - 1} are of "
            f"another form than those before: {_form(labels)}, not one-hot.",
            "Give one right answer for each, --no-classes (classes=False), or a --metric.",
        )
    return _Answer(decided, right)


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

    def compare(self, seen: _Seen, answer: _Answer | None, expected: np.ndarray, got: np.ndarray) -> None:
        reading = seen.reading
        if got.shape != expected.shape:
            raise InputError(
                f"{self.counterpart.session.path} gives {reading.output!r} the shape {got.shape}, where the float "
                f"model gives {expected.shape}."
            )
        samples = len(expected) if expected.ndim else 1
        r, y = (array.reshape(samples, -1).astype(np.float64) for array in (expected, got))
        self.errors[reading.output].add(r, y, seen.columns)
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

    def verdict(
        self, label: str, samples: int, size: int, seen: Mapping[str, _Seen], scores: _Scores | None
    ) -> Verdict:
        """size: samples of the largest batch."""
        changes: dict[str, Change] = {}
        accuracy: dict[str, Any] = {}
        notes = list(self.counterpart.notes)
        several = sum(one.reading.labelled for one in seen.values()) > 1
        for name, one in seen.items():
            answers, way = self.answers[name], one.way
            agreement = answers.number("agree", way) / answers.count if one.decides and answers.count else None
            changes[name] = self.errors[name].change(one.spread, agreement, apart=not one.decides and one.columns > 1)
            notes += one.notes
            if broken := changes[name].not_finite:
                of = f"{broken} of {self.errors[name].count.sum():.0f} numbers of {name!r}"
                notes.append(f"{of} are NaN or infinite in the quantized model and finite in the float model.")
            if one.reading.labelled:
                before, after = (answers.number(which, way) / answers.labelled for which in ("right_float", "right"))
                changes[name] = replace(changes[name], accuracy_float=before, accuracy=after)
                if accuracy and before - after <= accuracy["accuracy_float"] - accuracy["accuracy"]:
                    continue
                accuracy = {
                    "metric": f"{ACCURACY} of {name!r}" if several else ACCURACY,
                    "accuracy_float": before,
                    "accuracy": after,
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
                "share": scores.share,
            }
        batch = fixed_batch(self.counterpart.session.signature) or size
        on = f"{label}, {samples} samples at batch {batch}"
        return Verdict(on=on, samples=samples, outputs=changes, batch=batch, notes=tuple(notes), **accuracy)


@dataclass
class _Seen:
    """An output of the float model over all samples. probable: whether all that was seen are probabilities."""

    reading: Reading
    columns: int
    spread: Spread = field(default_factory=Spread)
    probable: bool = True

    def add(self, values: np.ndarray) -> None:
        self.spread.add(values.astype(np.float64).reshape(-1, self.columns))
        if self.probable and not self.reading.known:
            rows = values.reshape(-1, values.shape[-1])
            self.probable = are_probabilities(rows[np.isfinite(rows).all(1)])

    @property
    def decides(self) -> bool:
        """Whether it is known to be scores of classes, or decisions."""
        return self.reading.kind is not None and (self.reading.known or self.probable)

    @property
    def way(self) -> int:
        """Which of THRESHOLDS a single number is read by: that of a probability where all of them can be one."""
        within = self.spread.low.min() >= 0 and self.spread.high.max() <= 1
        return 0 if within or self.reading.kind != "binary" else len(THRESHOLDS) - 1

    @property
    def notes(self) -> Sequence[str]:
        notes, name = [], self.reading.output
        if self.spread.left_out:
            notes.append(
                f"{self.spread.left_out} of the numbers of {name!r} are NaN or infinite in the float model already; "
                "they were left out."
            )
        pooled, constant = self.spread.pooled(), self.spread.constant
        if not pooled.deviation:
            notes.append(
                f"{name!r} is {pooled.mean[0]:g} in every sample of the float model, so an error has no standard "
                "deviation to be measured by: it counts as 0 or infinite."
            )
        elif not self.decides and constant.any() and not constant.all():
            which = ", ".join(map(str, np.flatnonzero(constant)))
            notes.append(
                f"The same in every sample of the float model, so measured by the deviation of the whole of {name!r}: "
                f"column {which}."
            )
        return notes
