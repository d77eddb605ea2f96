"""Markdown of what was timed: targets, means over groups, where we are slower, and every cell."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.figures import Ratio, interval, per_run
from benchmarks.machine import described
from benchmarks.models import GROUPS, Model, grid
from benchmarks.targets import Target, targets

TITLES = {
    "control": "control",
    "branches": "`--no-merge`",
    "beside": "ours, no mask",
    "floor": "bare products",
    "tf2onnx": "tf2onnx",
    "keras": "Keras export",
    "optimizer": "tf2onnx, ORT optimizer",
    "onnxslim": "tf2onnx, onnxslim",
    "openvino": "OpenVINO",
    "torch": "PyTorch",
    "function": "tf.function",
    "xla": "tf.function, XLA",
    "predict": "Keras predict",
    "converter": "tf.lite converter",
}
"""Candidates in the order of the tables. The first four are no peers: nobody would pick them instead."""

OWN = ("control", "branches", "beside", "floor")

Cells = Mapping[str, Mapping[str, float]]


@dataclass(frozen=True)
class Column:
    """What all processes of one kind measured, one mapping for each run."""

    side: str
    threads: int
    denormals: bool
    runs: tuple[Cells, ...]

    def ratio(self, cells: Sequence[str], peer: str, ours: str = "ours") -> Ratio | None:
        """Over the runs that measured the peer."""
        runs = [run for run in self.runs if any(peer in run.get(cell, {}) for cell in cells)]
        ratios = per_run(runs, cells, ours, peer)
        return interval(ratios) if ratios else None

    def seconds(self, cell: str, name: str = "ours") -> float | None:
        taken = [run[cell][name] for run in self.runs if name in run.get(cell, {})]
        return min(taken) if taken else None

    @property
    def cells(self) -> list[str]:
        return sorted({cell for run in self.runs for cell in run})


def load(timings: Path) -> list[Column]:
    found: dict[tuple[str, int, bool], list[tuple[int, Cells]]] = defaultdict(list)
    for file in sorted(timings.glob("*.json")):
        content = json.loads(file.read_text())
        plan = content["plan"]
        found[plan["side"], plan["threads"], plan["denormals"]].append((plan["run"], content["cells"]))
    return [
        Column(*key, tuple(cells for _, cells in sorted(runs, key=lambda run: run[0])))
        for key, runs in sorted(found.items())
    ]


def number(ratio: Ratio | None) -> str:
    """0.45 ±0.02, the half of the 95 % interval; a dash where nothing was measured."""
    if ratio is None:
        return "-"
    digits = 2 if ratio.mean >= 0.095 else 3
    shown = f"{ratio.mean:.{digits}f}"
    return shown if ratio.runs == 1 else f"{shown} ±{ratio.mean * ratio.spread:.{digits}f}"


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(header)} |", f"|{'---|' * len(header)}"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    return f"{seconds * 1e6:.0f} µs" if seconds < 1e-3 else f"{seconds * 1e3:.2f} ms"


def _column(columns: Sequence[Column], side: str, threads: int, denormals: bool) -> Column:
    for column in columns:
        if (column.side, column.threads, column.denormals) == (side, threads, denormals):
            return column
    return Column(side, threads, denormals, ())


def target_row(target: Target, columns: Sequence[Column]) -> tuple[str, ...]:
    """title, limit, mean, interval, verdict: met when the interval reaches the limit."""
    column = _column(columns, "runtimes", 1, target.denormals)
    ratio = column.ratio([cell for cell in column.cells if target.takes(cell)], target.peer, target.ours)
    limit = "" if target.limit is None else f"{target.limit:.2g}"
    if ratio is None:
        return target.title, limit, "-", "-", "not measured"
    span = f"{ratio.low:.3g} to {ratio.high:.3g}" if ratio.runs > 1 else "one run"
    if target.limit is None:
        verdict = "shown"
    else:
        verdict = "met" if ratio.low <= target.limit else f"missed by {ratio.low / target.limit - 1:.0%}"
    return target.title, limit, f"{ratio.mean:.3g}", span, verdict


def slower(columns: Sequence[Column]) -> list[tuple[str, ...]]:
    """(cell, column, peer, ratio, control) wherever ours takes longer than a peer, beyond what the control differs."""
    rows = []
    for column in columns:
        for cell in column.cells:
            control = column.ratio([cell], "control")
            bound = max(control.high, 1 / control.low) if control else 1.0
            for peer in TITLES:
                ratio = column.ratio([cell], peer)
                lost = peer not in OWN or peer == "branches"
                if ratio is not None and lost and ratio.low > bound:
                    rows.append((cell.replace(" | ", ", "), _named(column), TITLES[peer], number(ratio), f"{bound:.2f}"))
    return rows


def _named(column: Column) -> str:
    threads = f"{column.threads} thread{'s' * (column.threads > 1)}"
    return f"{threads}, {'denormals as zero' if column.denormals else 'plain'}"


def means(columns: Sequence[Column]) -> list[tuple[str, ...]]:
    """Each group and format against each peer, geometric mean over the cells: plain / denormals as zero."""
    rows = []
    for group, models in GROUPS.items():
        names = {model.name for model in models()}
        for kind in ("onnx", "tflite"):
            for peer, title in TITLES.items():
                shown = []
                for side, threads, zero in (
                    ("runtimes", 1, False), ("runtimes", 1, True), ("runtimes", 2, False), ("runtimes", 2, True),
                ):  # fmt: skip
                    column = _side(columns, side, threads, zero, peer)
                    cells = [cell for cell in column.cells if _of(cell) in {(name, kind) for name in names}]
                    # A peer that failed somewhere is averaged over the rest.
                    cells = [cell for cell in cells if column.ratio([cell], peer)]
                    shown.append((column.ratio(cells, peer) if cells else None, len(cells)))
                if any(ratio for ratio, _ in shown):
                    count = str(max(cells for _, cells in shown))
                    rows.append((group, kind, title, count, *(number(ratio) for ratio, _ in shown)))
    return rows


def _side(columns: Sequence[Column], side: str, threads: int, zero: bool, peer: str) -> Column:
    return _column(columns, "tensorflow" if peer in ("predict", "function", "xla") else side, threads, zero)


def _of(cell: str) -> tuple[str, str]:
    name, kind, _ = cell.split(" | ")
    return name, kind


def cells_table(columns: Sequence[Column], models: Sequence[Model], kind: str, threads: int) -> str:
    """Every model and point: our time, and ours / peer for each, plain / denormals as zero."""
    pair = [_column(columns, "runtimes", threads, zero) for zero in (False, True)]
    names = {model.name for model in models}
    cells = [cell for model in models for cell in pair[0].cells if _of(cell) == (model.name, kind) and _of(cell)[0] in names]
    peers = [
        peer
        for peer in TITLES
        if any(_side(columns, "runtimes", threads, zero, peer).ratio([cell], peer) for cell in cells for zero in (False, True))
    ]
    if not cells:
        return ""
    rows = []
    for cell in cells:
        name, _, point = cell.split(" | ")
        times = " / ".join(_duration(column.seconds(cell)) for column in pair)
        shown = [
            " / ".join(
                number(_side(columns, "runtimes", threads, zero, peer).ratio([cell], peer)) for zero in (False, True)
            )
            for peer in peers
        ]
        rows.append((name, point, times, *(text if text != "- / -" else "-" for text in shown)))
    return table(("model", "fed", "ours", *(TITLES[peer] for peer in peers)), rows)


def failures(cache: Path, models: Sequence[Model]) -> list[tuple[str, ...]]:
    """(candidate, reason, models) of everything that could not be made, opened, or does not compute the same."""
    found: dict[tuple[str, str], list[str]] = defaultdict(list)
    for model in models:
        for key, entry in _meta(cache, model).items():
            name = " ".join(key.split()[:2]) if key.startswith("tflite") else key
            if entry["error"]:
                found[name, entry["error"]].append(model.name)
            for label, why in entry["points"].items():
                if why:
                    found[name, why].append(f"{model.name} {label}")
    return [
        (name, why, f"{len(where)}: {', '.join(where[:3])}{', ...' if len(where) > 3 else ''}")
        for (name, why), where in sorted(found.items())
    ]


def _meta(cache: Path, model: Model) -> dict[str, Any]:
    path = cache / model.folder / "meta.json"
    return json.loads(path.read_text()) if path.exists() else {}  # type: ignore[no-any-return]


def partitions(cache: Path, models: Sequence[Model]) -> list[tuple[str, ...]]:
    """(model, point, XNNPACK partitions, operations outside of them) of our TFLite attention."""
    from ai_edge_litert.interpreter import Interpreter

    rows = []
    for model in models:
        for key, entry in _meta(cache, model).items():
            if key.startswith("tflite ours") and not entry["error"] and model.group in ("attention", "encoders"):
                interpreter = Interpreter(model_path=str(cache / model.folder / entry["file"]), num_threads=1)
                interpreter.allocate_tensors()
                # Once a delegate has taken operations, those that remain and its partitions are at the end of the list.
                kinds = [item["op_name"] for item in interpreter._get_ops_details()]
                rows.append((model.name, key.partition("ours ")[2], str(kinds.count("DELEGATE"))))
    return rows


HOW = """\
Ratios are time of our artifact / time of the peer: below 1 ours is faster. Each is measured within the rounds of one
process, the candidates of a model in turn and in a new random order each round; a run is a process, its figure the
20th percentile of its samples, and `±` half of the 95 % interval over the runs ({runs}). 1 thread is CPU time of the
process. 2 threads is wall time, because a waiting worker spins; workers may spin within a run and not beyond it. The
control is our artifact opened a second time. Two figures, `a / b`: a plain session / denormals as zero, each in processes
of its own (ONNX Runtime's `session.set_denormal_as_zero` holds for the process, so all candidates have it). OpenVINO
computes in float32 as the others do. TensorFlow is measured in processes of its own, with our artifact beside it, plain
and with 1 thread. A candidate whose outputs are not those of Keras is not timed. ONNX files have free batch and time,
TFLite files fixed ones. The bare products are the model's matrix products alone in one ONNX graph.
"""


def write(cache: Path, output: Path) -> list[Path]:
    """The result files -> their paths."""
    columns = load(cache / "timings")
    models = grid()
    output.mkdir(parents=True, exist_ok=True)
    counts = ", ".join(f"{len(column.runs)} of {_named(column)}, {column.side}" for column in columns)
    hashes = sorted(
        {entry["converters"] for model in models for entry in _meta(cache, model).values() if "converters" in entry}
    )
    if len(hashes) > 1:
        hashes.append("**not one state of the converters: prepare with `--again ours,branches`**")
    heading = f"Made by `make bench`. {described()}\nConverters {', '.join(hashes)}.\n"
    sections = [
        "# Speed\n",
        heading,
        HOW.format(runs=counts),
        "## Targets\n\nMet when the 95 % interval reaches the limit. 1 thread, geometric means over times and batches.\n",
        table(
            ("target", "at most", "measured", "95 % interval", ""), [target_row(row, columns) for row in targets()]
        ),
        "\n## Merges of parallel heads that lose, and peers that are faster\n\n"
        "Wherever the interval lies above what the control differs from itself.\n",
        table(("model, format, fed", "column", "faster", "ours / it", "control within"), slower(columns)),
        "\n## Means over the groups\n",
        table(
            ("group", "format", "ours /", "cells", "1 thread", "1 thread, zero", "2 threads", "2 threads, zero"),
            means(columns),
        ),
        "\n## TFLite: partitions of XNNPACK\n",
        table(("model", "fed", "partitions"), partitions(cache, models)),
        "\n## What could not be measured\n",
        table(("candidate", "why", "models"), failures(cache, models)),
    ]
    files = {output / "speed.md": sections}
    for group, of in GROUPS.items():
        parts = [f"# Speed: {group}\n", heading, "How it is measured: [speed.md](speed.md).\n"]
        for kind in ("onnx", "tflite"):
            for threads in (1, 2):
                if text := cells_table(columns, of(), kind, threads):
                    parts += [f"## {kind}, {threads} thread{'s' * (threads > 1)}\n", f"{text}\n"]
        files[output / f"speed_{group}.md"] = parts
    for path, parts in files.items():
        path.write_text("\n".join(parts) + "\n", encoding="utf-8")
    return list(files)
