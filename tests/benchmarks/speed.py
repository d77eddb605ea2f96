"""Our artifacts against what a user would pick instead: prepare all candidates, time them, write the tables.

    python -m benchmarks.speed prepare [--fresh]         # slow, may run on a busy machine, goes on where it stopped
    python -m benchmarks.speed time [--quick]            # only opens files; wants a quiet machine
    python -m benchmarks.speed report                    # tables from what was timed last

with tests/ on PYTHONPATH. `--cache` holds the files, `--only WORD,WORD` picks models by name.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks.models import QUICK, grid
from benchmarks.timing import Plan

RESULTS = Path(__file__).parent / "results"
AT_ONCE = 8
"""Models prepared by one process: tf2onnx never gives its memory back."""

RUNS, PEER_RUNS = 5, 1
"""Processes for each column of 1 thread, and how many of them measure all peers and not only what the targets need."""

REPEATS = 1
"""How often the one process of a column of 2 threads, or with TensorFlow, measures each point."""

BUDGET = 0.1
"""Seconds for all candidates of one model at one point in one process; a round of slow ones takes longer."""

ENVIRONMENT = {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1", "OPENVINO_TELEMETRY_OPT_OUT": "1"}


def plans(names: tuple[str, ...], runs: int) -> Iterator[tuple[Plan, ...]]:
    """The processes of one measurement, those that run side by side together.

    With 1 thread the two columns have a core each: their figures are CPU time, and ratios come from within a process.
    Columns take turns, so that a slow minute of the machine hits all of them.
    """
    for run in range(runs):
        yield tuple(
            Plan(run, 1, zero, "runtimes", run >= PEER_RUNS, 1, BUDGET, names, core=index)
            for index, zero in enumerate((False, True))
        )
        if run == 0:
            for zero in (False, True):
                yield (Plan(run, 2, zero, "runtimes", False, REPEATS, BUDGET, names),)
        if run == min(1, runs - 1):
            yield (Plan(0, 1, False, "tensorflow", False, REPEATS, BUDGET, names),)


def started(*arguments: str, log: Path) -> subprocess.Popen[bytes]:
    """This module in a process of its own, what it prints in the log."""
    command = [sys.executable, "-m", "benchmarks.speed", *arguments]
    with log.open("a", encoding="utf-8") as out:
        return subprocess.Popen(command, env=os.environ | ENVIRONMENT, stdout=out, stderr=out)


def prepare(options: argparse.Namespace) -> None:
    names = _names(options)
    if options.here:
        from benchmarks.engines import tensorflow_threads
        from benchmarks.prepare import Preparation

        tensorflow_threads(1)
        for model in (model for model in grid() if model.name in names):
            Preparation(model, options.cache).run(options.fresh)
        return

    def batch(start: int) -> str:
        begun, named = time.perf_counter(), ",".join(names[start : start + AT_ONCE])
        shared = ["--cache", str(options.cache), "--names", named, *(["--fresh"] if options.fresh else [])]
        status = started("prepare", "--here", *shared, log=options.cache / "prepare.log").wait()
        end = min(start + AT_ONCE, len(names))
        return f"{start + 1} to {end} of {len(names)}: {time.perf_counter() - begun:.0f} s, status {status}"

    with ThreadPoolExecutor(options.jobs) as pool:
        for said in pool.map(batch, range(0, len(names), AT_ONCE)):
            print(said, flush=True)


def measure(options: argparse.Namespace) -> None:
    timings = options.cache / "timings"
    if timings.exists():
        for file in timings.glob("*.json"):
            file.unlink()
    begun = time.perf_counter()
    for together in plans(tuple(_names(options)), options.runs):
        children = [
            started(
                "child", "--cache", str(options.cache), json.dumps(dataclasses.asdict(plan)),
                log=options.cache / "time.log",
            )
            for plan in together
        ]  # fmt: skip
        for plan, process in zip(together, children, strict=True):
            print(f"{plan.file}: status {process.wait()}, at {time.perf_counter() - begun:.0f} s", flush=True)
    report(options)


def report(options: argparse.Namespace) -> None:
    from benchmarks.report import write

    for path in write(options.cache, options.output, REPEATS):
        print(path)


def _names(options: argparse.Namespace) -> list[str]:
    if options.names:
        return options.names.split(",")
    quick = [name for name in QUICK if options.quick]
    return [
        model.name for model in grid(options.only) if not quick or any(model.name.startswith(name) for name in quick)
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    default = Path(os.environ.get("MH_EDGE_BENCH", ".bench"))
    for name, function in (("prepare", prepare), ("time", measure), ("report", report)):
        command = commands.add_parser(name)
        command.set_defaults(function=function)
        command.add_argument("--cache", type=Path, default=default)
        command.add_argument("--output", type=Path, default=RESULTS)
        command.add_argument("--only", default="", help="words, one of which is in the name of a model")
        command.add_argument("--names", default="", help=argparse.SUPPRESS)
        command.add_argument("--quick", action="store_true", help="a few models of every group")
        command.add_argument("--runs", type=int, default=RUNS)
        if name == "prepare":
            command.add_argument("--fresh", action="store_true", help="make ours again if the converters have changed")
            command.add_argument("--jobs", type=int, default=1)
            command.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    command = commands.add_parser("child")
    command.add_argument("--cache", type=Path)
    command.add_argument("plan")
    command.set_defaults(function=_child)
    options = parser.parse_args(arguments)
    options.cache.mkdir(parents=True, exist_ok=True)
    options.function(options)


def _child(options: argparse.Namespace) -> None:
    from benchmarks.timing import run

    fields = json.loads(options.plan)
    run(Plan(**fields | {"names": tuple(fields["names"])}), options.cache, options.cache / "timings")


if __name__ == "__main__":
    main()
