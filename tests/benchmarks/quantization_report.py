"""Markdown of what was judged and timed: the targets, and a table for each model and format."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.figures import Ratio, interval
from benchmarks.machine import described
from benchmarks.quantization_candidates import CANDIDATES
from benchmarks.report import number, table

FLOAT, CONTROL = "float", "float, again"

TIMINGS = "time-*.json"

BATCHES = {"onnx": (1, 8, 32), "tflite": (1,)}
"""Samples a call, where latency is measured."""

PACKAGES = ("numpy", "onnxruntime", "litert-quantizer", "ai-edge-litert", "tensorflow", "keras", "tf2onnx", "onnx")

INTEGER = ("int8", "int8-dynamic", "int8-a16", "qnn-a16w8", "int16x8")
"""Schemes with 8-bit weights and integer products."""

READING = """\
The transformer is trained, stopped, calibrated and tested on four sets that share no sample; the digits models are
trained for a fixed number of epochs and have three, each test image cut in five ways. **accuracy** on the test set, the
mean over the training seeds; **change** in percentage points, the mean, and the worst of a single seed in brackets.
**top-1**: how often the class is the float file's. **error**: mean of |error| in % of the standard deviation of the
float output, and **SQNR**, each of the worst seed. **size**: bytes / bytes of our float file. **latency**: time / time
of our float file, 1 thread, at 1, 8 and 32 samples a call (TFLite files take one): CPU time, 20th percentile, all
files of a model in turn in one process, with the 95 % interval over processes and seeds. `float, again` is the same
float file once more: what the measurement itself is worth. `float, products as Gemm` is what our ONNX schemes start
from, without integers: it tells their part of the speed from that of rewriting the graph. A tool that fails is shown
with what it says. The entropy of `quantize_static` has 128 bins for 128 steps, so that it tries the whole range alone:
its files are min-max's."""


@dataclass(frozen=True)
class Trained:
    """One training of a model. number: of its task."""

    task: str
    number: int
    seed: int
    folder: Path


@dataclass(frozen=True)
class Result:
    """Of one training. judged: format and title -> figures. runs: of each process, format and batch -> title ->
    seconds.
    """

    task: str
    judged: Mapping[str, Mapping[str, Any]]
    runs: Sequence[Mapping[str, Mapping[str, float]]]


def timing(folder: Path, run: int) -> Path:
    return folder / TIMINGS.replace("*", str(run))


def load(trained: Sequence[Trained]) -> list[Result]:
    """What is there of them; timings of other files than those judged are left out."""
    results = []
    for one in trained:
        if not (one.folder / "judged.json").exists():
            continue
        judged = json.loads((one.folder / "judged.json").read_text())
        hashes = {key: entry["sha256"] for key, entry in judged.items() if entry["error"] is None}
        times = [json.loads(path.read_text()) for path in sorted(one.folder.glob(TIMINGS))]
        results.append(Result(one.task, judged, [time["seconds"] for time in times if time["files"] == hashes]))
    return results


class Row:
    """One candidate of one task over its seeds."""

    def __init__(self, results: Sequence[Result], format: str, title: str) -> None:
        self.results, self.format, self.title = results, format, title
        found = [result.judged.get(f"{format} {title}") for result in results]
        self.entries = [entry for entry in found if entry is not None and entry["error"] is None]
        self.errors = [entry["error"] for entry in found if entry is not None and entry["error"] is not None]

    @property
    def complete(self) -> bool:
        """Whether every seed has figures."""
        return bool(self.entries) and len(self.entries) == len(self.results)

    def changes(self) -> list[float]:
        """Percentage points of accuracy, for each seed."""
        return [
            100 * (entry["accuracy"] - result.judged[f"{self.format} {FLOAT}"]["accuracy"])
            for result, entry in zip(self.results, self.entries, strict=True)
        ]

    def all(self, key: str) -> list[float]:
        return [entry[key] for entry in self.entries]

    def latency(self, batch: int) -> Ratio | None:
        cell = f"{self.format} {batch}"
        ratios = [
            run[cell][self.title] / run[cell][FLOAT]
            for result in self.results
            for run in result.runs
            if self.title in run.get(cell, {})
        ]
        return interval(ratios) if ratios else None

    def cells(self) -> tuple[str, ...]:
        if not self.complete:
            told = self.errors[0] if self.errors else "not made"
            return (self.title, f"fails: {told}", *[""] * (5 + len(BATCHES[self.format])))
        changes, shown = self.changes(), [number(self.latency(batch)) for batch in BATCHES[self.format]]
        return (
            self.title,
            f"{100 * statistics.fmean(self.all('accuracy')):.2f}",
            f"{statistics.fmean(changes):+.2f} ({min(changes):+.2f})",
            f"{100 * min(self.all('agreement')):.2f}",
            f"{100 * max(self.all('mean_error_std')):.2f}",
            f"{min(self.all('sqnr_db')):.1f}",
            f"{max(self.all('size_ratio')):.3f}",
            *shown,
        )


def _float_cells(results: Sequence[Result], format: str, title: str) -> tuple[str, ...]:
    right = [100 * result.judged[f"{format} {FLOAT}"]["accuracy"] for result in results]
    latency = [number(Row(results, format, title).latency(batch)) for batch in BATCHES[format]]
    return title, f"{statistics.fmean(right):.2f}", "", "", "", "", "1", *latency


def model_table(results: Sequence[Result], format: str) -> str:
    header = ("file", "accuracy, %", "change (worst)", "top-1, %", "error, %", "SQNR, dB", "size")
    header = (*header, *(f"latency, {batch}" for batch in BATCHES[format]))
    rows = [_float_cells(results, format, FLOAT), _float_cells(results, format, CONTROL)]
    rows += [Row(results, format, one.title).cells() for one in CANDIDATES if one.format == format]
    return table(header, rows)


@dataclass(frozen=True)
class Target:
    """value(row) is at most limit (at least, where `least`); the row is that of one scheme of mh-edge."""

    title: str
    task: str
    format: str
    scheme: str
    limit: float
    value: Callable[[Row], float | Ratio | None]
    least: bool = False

    def cells(self, results: Sequence[Result]) -> tuple[str, str, str, str]:
        chosen = [result for result in results if result.task == self.task]
        row = Row(chosen, self.format, f"mh-edge {self.scheme}")
        value = self.value(row) if row.complete else None
        limit = f"{'≥' if self.least else '≤'} {self.limit:g}"
        if value is None:
            return self.title, limit, "-", "MISSED: " + (row.errors[0] if row.errors else "not measured")
        figure, shown = (value.mean, number(value)) if isinstance(value, Ratio) else (value, f"{value:.3g}")
        met = figure >= self.limit if self.least else figure <= self.limit
        return self.title, limit, shown, "met" if met else "MISSED"


def _float_accuracy(worst: Callable[[list[float]], float]) -> Callable[[Row], float]:
    return lambda row: 100 * worst([result.judged[f"{row.format} {FLOAT}"]["accuracy"] for result in row.results])


def _drop(row: Row) -> float:
    return min(row.changes())


def _error(row: Row) -> float:
    return 100 * max(row.all("mean_error_std"))


def _size(row: Row) -> float:
    return max(row.all("size_ratio"))


def _latency(batch: int) -> Callable[[Row], Ratio | None]:
    return lambda row: row.latency(batch)


def targets(results: Sequence[Result]) -> list[Target]:
    """What was set as a goal, for every seed: the worst counts."""
    name = "transformer"
    found = [
        Target("accuracy of the float model, %, at least", name, "onnx", "int8", 90, _float_accuracy(min), least=True),
        Target("accuracy of the float model, %, at most", name, "onnx", "int8", 97, _float_accuracy(max)),
        Target("ONNX int8: change of accuracy, points", name, "onnx", "int8", -0.5, _drop, least=True),
        Target("ONNX int8: mean error, % of the standard deviation", name, "onnx", "int8", 1.5, _error),
        Target("ONNX int8: size", name, "onnx", "int8", 0.37, _size),
        *(
            Target(f"ONNX int8: latency at batch {batch}", name, "onnx", "int8", 0.75, _latency(batch))
            for batch in BATCHES["onnx"]
        ),
        Target(
            "ONNX int8-dynamic: mean error, % of the standard deviation", name, "onnx", "int8-dynamic", 0.75, _error
        ),
        Target("TFLite int8: change of accuracy, points", name, "tflite", "int8", -0.5, _drop, least=True),
        Target("ONNX int4: change of accuracy, points", name, "onnx", "int4", -1.0, _drop, least=True),
        Target("TFLite int4: change of accuracy, points", name, "tflite", "int4", -1.0, _drop, least=True),
    ]
    digits = dict.fromkeys(result.task for result in results if result.task != name)
    found += [
        Target(f"{task}, {one.format} {one.scheme}: change of accuracy, points",
               task, one.format, one.scheme, -0.5, _drop, least=True)
        for task in digits for one in CANDIDATES if one.scheme in INTEGER
    ]  # fmt: skip
    return found


def written(results: Sequence[Result]) -> str:
    """The whole page."""
    titles = [f"{one.format} {one.title}" for one in CANDIDATES if one.scheme]
    quantizers = sorted({result.judged[title]["made_by"] for result in results for title in titles})
    tasks = dict.fromkeys(result.task for result in results)
    lines = [
        "# Quantization",
        "",
        f"Made by `python -m benchmarks.quantization`. {described(PACKAGES)}",
        f"Quantizers: {', '.join(quantizers)}.",
        "",
        READING,
        "",
        "## Targets",
        "",
        table(
            ("target", "limit", "worst seed", "verdict"),
            [one.cells(results) for one in targets(results) if one.task in tasks],
        ),
    ]
    for task in tasks:
        chosen = [result for result in results if result.task == task]
        runs = sum(len(result.runs) for result in chosen)
        lines += ["", f"## {task}", "", f"Training seeds: {len(chosen)}. Processes that timed: {runs}."]
        for format in BATCHES:
            lines += ["", f"### {task}, {format}", "", model_table(chosen, format)]
    return "\n".join(lines) + "\n"
