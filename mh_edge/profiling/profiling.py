"""`profile`: every artifact on every device that takes it, in one run: first whether it ran there and gave the right
numbers, then how fast.
"""

from __future__ import annotations

import os
import platform
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from mh_edge.arrayfiles import read_npz
from mh_edge.artifact import MODEL_SUFFIXES
from mh_edge.errors import InputError, MhEdgeError, UsageError
from mh_edge.openings import OPENINGS, differs, noise, typical
from mh_edge.profiling.cases import Asked, Case, prepare
from mh_edge.profiling.feeding import Sizes
from mh_edge.profiling.measuring import Job, Times, failure, measure
from mh_edge.profiling.plan import Pair, pairs
from mh_edge.profiling.result import QUANTILES, Agreement, Latency, Profile, Ratio, Row
from mh_edge.progress import Progress, silent
from mh_edge.runtimes import BASELINE
from mh_edge.runtimes.apart import Apart, Opened

SECONDS = 1.0
"""Of timed calls for each row."""

ENOUGH = {50: 1, 90: 10, 99: 100}
"""In how many calls a percentile can be told."""

CPU_INFO = Path("/proc/cpuinfo")


def profile(
    artifacts: Sequence[str | Path],
    devices: Sequence[str] = (),
    *,
    baseline: str | Path | None = None,
    threads: int | None = 1,
    batch: int | None = None,
    sequence: int | None = None,
    dims: Mapping[str, int] | None = None,
    feeds: str | Path | None = None,
    runs: int | None = None,
    seconds: float = SECONDS,
    rtol: float | None = None,
    allow_fallback: bool = False,
    ops: bool = False,
    settings: Mapping[str, Mapping[str, str]] | None = None,
    on_step: Progress = silent,
) -> Profile:
    """Latency, placement and numbers of artifacts (.onnx, .tflite) on devices (`mh_edge.devices` lists them).

    Before a row is timed, it is asked where its nodes ran, and its outputs are compared with the CPU's on the same
    feeds: max |device - cpu| / max |cpu| <= rtol for each output. What is wrong is not timed, and what ran
    elsewhere, wholly or in part, only where allow_fallback is true or no device was named. All rows are timed in turn,
    in several openings of the files (`mh_edge.openings` says why).

    devices: names; the plain CPU runtime of each file's format where there are none. baseline: a Keras model file to
    time beside them. threads: of each runtime, None for its own choice. batch, sequence, dims: free sizes. feeds: .npz
    of real inputs by name, in place of drawn ones. runs: timed calls of each row, in place of `seconds` of them.
    rtol: instead of what `mh_edge.profiling.agreement.ALLOWED` says. ops: time the operations, too. settings:
    {device: {key: value}}.

    Raises UsageError and InputError for what cannot be begun; what goes wrong with one row is in that row.
    """
    asked = pairs([Path(path) for path in artifacts], devices)
    if baseline is not None:
        _require_model(Path(baseline))
    arrays = None if feeds is None else read_npz(Path(feeds))
    wanted = Asked(Sizes(batch, sequence, dims or {}), arrays, str(feeds))
    with tempfile.TemporaryDirectory(prefix="mh-edge-") as folder:
        cases = _cases(asked, wanted, threads, Path(folder), on_step)
        jobs = {
            pair: _job(pair, case, threads, settings or {}, rtol, allow_fallback, ops)
            for pair in asked
            if isinstance(case := cases[pair.artifact], Case)
        }
        ready = [case for case in cases.values() if isinstance(case, Case)]
        if baseline is not None and ready:
            pair = Pair(Path(baseline), BASELINE, True)
            cases[pair.artifact] = replace(ready[0], bytes=pair.artifact.stat().st_size, quantized=None)
            jobs[pair] = replace(
                _job(pair, ready[0], threads, settings or {}, rtol, allow_fallback, ops), compare=_not_compared
            )
            asked += (pair,)
        measured = measure(
            list(jobs.values()),
            seconds=seconds,
            runs=runs,
            on_opening=lambda number: on_step("timing", number, OPENINGS),
        )
    times = dict(zip(jobs, measured, strict=True))
    rows = tuple(_row(pair, cases[pair.artifact], times.get(pair), ops) for pair in asked)
    first = next((pair for pair in asked if (one := times.get(pair)) is not None and one.failure is None), None)
    return Profile(
        rows=_with_ratios(rows, [times.get(pair) for pair in asked]),
        noise=None if first is None else _noise(times[first]),
        machine=_machine(),
        sizes={name: size for case in ready for name, size in case.sizes.items()},
        threads=threads,
        feeds=ready[0].source if ready else "",
        openings=OPENINGS,
    )


def _require_model(path: Path) -> None:
    if path.suffix.lower() not in MODEL_SUFFIXES:
        raise UsageError(
            f"the baseline {str(path)!r} is no Keras model.", f"Its name ends in {', '.join(MODEL_SUFFIXES)}."
        )
    if not path.is_file():
        raise InputError(f"there is no file {str(path)!r}.")


def _cases(
    asked: Sequence[Pair], wanted: Asked, threads: int | None, folder: Path, on_step: Progress
) -> dict[Path, Case | MhEdgeError]:
    """Each artifact, or why it cannot be run even on the CPU."""
    cases: dict[Path, Case | MhEdgeError] = {}
    for path in dict.fromkeys(pair.artifact for pair in asked):
        on_step(f"running {path} on the CPU")
        room = folder / str(len(cases))
        room.mkdir()
        try:
            cases[path] = prepare(path, wanted, threads, room)
        except MhEdgeError as error:
            cases[path] = error
    return cases


def _job(
    pair: Pair,
    case: Case,
    threads: int | None,
    settings: Mapping[str, Mapping[str, str]],
    rtol: float | None,
    allow_fallback: bool,
    ops: bool,
) -> Job:
    return Job(
        device=pair.device,
        artifact=pair.artifact,
        threads=threads,
        sizes=case.sizes,
        settings=settings.get(pair.device, {}),
        feeds=case.files[0],
        fallback=allow_fallback or not pair.named,
        compare=partial(_compared, case, rtol),
        ops=ops,
    )


def _compared(case: Case, rtol: float | None, session: Apart, opened: Opened) -> Agreement:
    return case.compare(session, opened, rtol)


def _not_compared(session: Apart, opened: Opened) -> Agreement:
    del session, opened
    return Agreement(None, "", why="it is the baseline; mh-edge verify compares with it")


def _row(pair: Pair, case: Case | MhEdgeError, times: Times | None, ops: bool) -> Row:
    bare = Row(str(pair.artifact), pair.device)
    if isinstance(case, MhEdgeError):
        return replace(bare, failure=failure(case))
    row = replace(bare, bytes=case.bytes, batch=case.batch, quantized=case.quantized)
    if times is None:
        return row
    placement = None if pair.device == BASELINE else times.placement
    row = replace(row, runtime=times.runtime, placement=placement, agreement=times.agreement, failure=times.failure)
    if times.failure is not None:
        return row
    grown = [one for one in times.memory if one is not None]
    return replace(
        row,
        latency=_latency(times),
        load_ms=float(np.median(times.load_ms)),
        first_ms=float(np.median(times.first_ms)),
        memory=int(np.median(grown)) if grown else None,
        time_share=_time_share(times),
        ops=times.ops if ops else (),
        notes=times.notes if times.steady else (*times.notes, "its times did not become steady while it warmed up",),
    )


def _latency(times: Times) -> Latency:
    calls = np.concatenate(times.ms)
    told = {
        share: float(np.percentile(calls, share)) if len(calls) >= least else None for share, least in ENOUGH.items()
    }
    middle = float(np.median(calls))
    return Latency(
        p50=middle,
        p90=told[90],
        p99=told[99],
        interval=typical([np.median(one) for one in times.ms])[1],
        quantiles=tuple(map(float, np.percentile(calls, np.linspace(0, 100, QUANTILES)))),
        calls=len(calls),
        steady=times.steady,
    )


def _time_share(times: Times) -> float | None:
    """Of the time of all operations, what the device took; None where that cannot be told."""
    if times.placement is None:
        return None
    if times.placement.whole or not times.placement.on_device:
        return float(times.placement.whole)
    total = sum(one.ms for one in times.ops)
    return sum(one.ms for one in times.ops if one.on_device) / total if total else None


def _medians(times: Times) -> np.ndarray:
    return np.array([np.median(one) for one in times.ms])


def _noise(first: Times) -> float:
    return noise(_medians(first), [float(np.median(one)) for one in first.control])


def _with_ratios(rows: Sequence[Row], times: Sequence[Times | None]) -> tuple[Row, ...]:
    """Each row with its time beside that of the first one that was timed, both of whose sessions count."""
    first = next((one for one in times if one is not None and one.failure is None), None)
    if first is None:
        return tuple(rows)
    found, base = _noise(first), np.sqrt(_medians(first) * [np.median(one) for one in first.control])

    def ratio(one: Times | None) -> Ratio | None:
        if one is None or one.failure is not None:
            return None
        if one is first:
            return Ratio(1.0, (1.0, 1.0), False)
        middle, interval = typical(_medians(one) / base)
        return Ratio(middle, interval, differs(interval, found))

    return tuple(replace(row, ratio=ratio(one)) for row, one in zip(rows, times, strict=True))


def _machine() -> dict[str, str]:
    """What the figures were taken on; the load is how many other programs wanted to run."""
    found = {"system": f"{platform.system()} {platform.release()}", "processor": _processor()}
    found["cores"] = str(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count())
    if hasattr(os, "getloadavg"):
        found["load"] = f"{os.getloadavg()[0]:.1f}"
    return found


def _processor() -> str:
    if CPU_INFO.exists():
        for line in CPU_INFO.read_text(encoding="utf-8").splitlines():
            if line.startswith(("model name", "Model")):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
