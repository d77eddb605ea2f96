"""Rows of a profile, from what the openings of each gave."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from mh_edge.errors import MhEdgeError
from mh_edge.openings import differs, noise, typical
from mh_edge.profiling.cases import Case
from mh_edge.profiling.measuring import Times, failure
from mh_edge.profiling.operations import TICK_MS
from mh_edge.profiling.plan import Pair
from mh_edge.profiling.result import QUANTILES, Latency, Ratio, Row
from mh_edge.runtimes import BASELINE

ENOUGH = {50: 1, 90: 10, 99: 100}
"""In how many calls a percentile can be told."""

MOST_TIMES = 2.0
"""Where the operations add up to more than so many times a whole call, the profiler takes longer than they do."""

VAGUE = 0.1
"""By how much the device's share of the time may be off for what the clock did not see."""

UNSTEADY = "its times did not become steady while it warmed up"


def row(pair: Pair, case: Case | MhEdgeError, times: Times | None, ops: bool) -> Row:
    """A row of what was measured; of why nothing was, where the case is an error. ops: whether they were asked for."""
    bare = Row(str(pair.artifact), pair.device)
    if isinstance(case, MhEdgeError):
        return replace(bare, failure=failure(case))
    found = replace(bare, bytes=case.bytes, batch=case.batch, quantized=case.quantized)
    if times is None:
        return found
    placement = None if pair.device == BASELINE else times.placement
    found = replace(found, runtime=times.runtime, placement=placement, agreement=times.agreement, failure=times.failure)
    if times.failure is not None:
        return found
    grown = [one for one in times.memory if one is not None]
    return replace(
        found,
        latency=_latency(times),
        load_ms=float(np.median(times.load_ms)),
        first_ms=float(np.median(times.first_ms)),
        memory=int(np.median(grown)) if grown else None,
        time_share=_time_share(times),
        ops=times.ops if ops else (),
        notes=(*times.notes, *([UNSTEADY] if times.steady is False else []), *_overtimed(times)),
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
    here, away = (sum(one.ms for one in times.ops if one.on_device is on) for on in (True, False))
    # Each that the clock did not see may have taken a tick.
    more, less = (TICK_MS * sum(not one.ms for one in times.ops if one.on_device is on) for on in (True, False))
    if not here + away or _overtimed(times):
        return None
    known = (here + more) / (here + more + away) - here / (here + away + less) <= VAGUE
    return here / (here + away) if known else None


def _overtimed(times: Times) -> tuple[str, ...]:
    """A note where the profiler slows the operations down so much that they tell nothing of a call."""
    total, call = sum(one.ms for one in times.ops), float(np.median(np.concatenate(times.ms)))
    if total <= MOST_TIMES * call:
        return ()
    return (f"its operations add up to {total / call:.2g} times a whole call, so their shares of the time tell little",)


def _medians(times: Times) -> np.ndarray:
    return np.array([np.median(one) for one in times.ms])


def control_noise(first: Times) -> float:
    """By what factor the two sessions of the first row differ."""
    return noise(_medians(first), [float(np.median(one)) for one in first.control])


def with_ratios(rows: Sequence[Row], times: Sequence[Times | None]) -> tuple[Row, ...]:
    """Each row with its time beside that of the first one that was timed, both of whose sessions count; the time of a
    sample where their batches differ, and then a note.
    """
    timed = [(row, one) for row, one in zip(rows, times, strict=True) if one is not None and one.failure is None]
    if not timed:
        return tuple(rows)
    head, first = timed[0]
    found, base = control_noise(first), np.sqrt(_medians(first) * [np.median(one) for one in first.control])
    ratios = {}
    for row, one in timed:
        samples = (row.batch or 1) / (head.batch or 1)
        middle, interval = typical(_medians(one) / base / samples)
        ratios[id(row)] = (
            Ratio(1.0, (1.0, 1.0), False) if one is first else Ratio(middle, interval, differs(interval, found))
        )
    several = len({row.batch for row, _ in timed}) > 1

    def batch(row: Row) -> tuple[str, ...]:
        if not several or id(row) not in ratios:
            return ()
        return (f"{row.batch or 1} samples a call; the ratio is that of the time of a sample",)

    return tuple(replace(row, ratio=ratios.get(id(row)), notes=(*row.notes, *batch(row))) for row in rows)
