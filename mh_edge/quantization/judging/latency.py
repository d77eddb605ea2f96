"""Time of quantized files beside the float one's, in one process: each round runs all of them in a new random order.

The float file is opened twice. What the second session seems to gain or lose is this machine's noise: a difference
inside it is none. Wall time, because a call that uses several threads is waited for.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from mh_edge.errors import InputError
from mh_edge.quantization.judging.feeding import Counterpart, fixed_batch, rows
from mh_edge.quantization.scheme import Arrays
from mh_edge.runtimes import open_session

SECONDS = 2.0
"""Of measuring, for all files together."""

SAMPLE = 4e-4
"""Seconds that one sample lasts at least, in as many calls as that takes: the clock and Python's own work around a call
count for a thousandth then.
"""

WARM = 0.25
"""Share of the time that warming up may take."""

STEADY = 0.05
"""Warm is when a round takes no longer than this more or less than the one before."""

ROUNDS = (5, 400)
"""Least and most rounds."""

PERCENTILE = 20
"""Of the rounds: other programs only ever make a call slower, so the lower times are the file's own."""

LEAST_NOISE = 1.02
"""Sessions of one file differ by that factor through where their memory lies, which two of them need not show."""

RESAMPLES = 1000
"""Of the rounds, for the interval."""


@dataclass(frozen=True)
class Latency:
    """ratio: time of the quantized file / time of the float one, each the 20th percentile of the rounds. interval: that
    ratio's 95 %, by resampling the rounds. ms: milliseconds a call, float's first. noise: the factor by which the float
    file seems to differ from itself. batch: samples a call. threads: of the runtime.
    """

    ratio: float
    interval: tuple[float, float]
    ms: tuple[float, float]
    noise: float
    batch: int
    threads: int | None
    rounds: int

    @property
    def slower(self) -> bool:
        """Whether the quantized file is slower than float beyond the noise."""
        return self.interval[0] > self.noise

    @property
    def faster(self) -> bool:
        """Whether the quantized file is faster than float beyond the noise."""
        return self.interval[1] < 1 / self.noise

    @property
    def sentence(self) -> str:
        """The result in plain words."""
        if self.slower:
            found = f"It is SLOWER than the float model here, {self.ratio:.2f} times its time"
        elif self.faster:
            found = f"It is faster than the float model here, {self.ratio:.2f} of its time"
        else:
            found = f"It takes as long as the float model within the noise, {self.ratio:.2f} of its time"
        low, high = self.interval
        threads = {None: "as many threads as the runtime likes", 1: "1 thread"}.get(
            self.threads, f"{self.threads} threads"
        )
        return (
            f"{found} (95 %: {low:.2f} to {high:.2f}; noise up to a factor of {self.noise:.2f}): {self.ms[1]:.3g} ms "
            f"against {self.ms[0]:.3g} ms a call at batch {self.batch}, {threads}."
        )


def compare_latency(
    reference: Path,
    candidates: Mapping[str, Path],
    feeds: Arrays,
    *,
    batch: int = 1,
    threads: int | None = 1,
    seconds: float = SECONDS,
) -> dict[str, Latency]:
    """How long each candidate (by name) takes beside the reference.

    feeds: real ones of the reference, of at least one sample. batch: samples a call, unless a file fixes another
    number.
    Raises InputError when two files fix different numbers, or one does not run.
    """
    with ExitStack() as stack:
        float_model, control = (stack.enter_context(open_session(reference, threads=threads)) for _ in range(2))
        sessions = {name: stack.enter_context(open_session(path, threads=threads)) for name, path in candidates.items()}
        fixed = {size for one in (float_model, *sessions.values()) if (size := fixed_batch(one.signature)) is not None}
        if len(fixed) > 1:
            raise InputError(
                f"the files take {', '.join(map(str, sorted(fixed)))} samples a call, so their times do not compare.",
                "Fix the same batch in all of them.",
            )
        batch = next(iter(fixed), batch)
        taken = rows(feeds, batch)
        parts = {name: Counterpart.of(session, float_model.signature) for name, session in sessions.items()}
        calls: list[Call] = [partial(float_model.run, taken), partial(control.run, taken)]
        calls += [partial(part.session.run, part.feeds(taken)) for part in parts.values()]
        times = _times(calls, seconds)
    ratios, low, high = _ratios(times)
    noise = max(LEAST_NOISE, math.exp(max(abs(math.log(end)) for end in (low[1], high[1]))))
    typical = 1e3 * np.percentile(times, PERCENTILE, axis=0)
    return {
        name: Latency(
            ratio=float(ratios[column]),
            interval=(float(low[column]), float(high[column])),
            ms=(float(typical[0]), float(typical[column])),
            noise=noise,
            batch=batch,
            threads=threads,
            rounds=len(times),
        )
        for column, name in enumerate(candidates, 2)
    }


Call = Callable[[], object]


def _times(calls: list[Call], seconds: float) -> np.ndarray:
    """Seconds of one call, (rounds, calls)."""
    order = random.Random(0)  # noqa: S311 - an order, no secret
    repeats, turn = _warm(calls, seconds * WARM)
    least, most = ROUNDS
    rounds = max(least, min(most, int(seconds * (1 - WARM) / turn)))
    times = np.empty((rounds, len(calls)))
    columns = list(range(len(calls)))
    for row in times:
        order.shuffle(columns)
        for column in columns:
            calls[column]()  # finds its own data in the caches again
            row[column] = _timed(calls[column], repeats[column])
    return times


def _warm(calls: list[Call], seconds: float) -> tuple[list[int], float]:
    """Run all until their times are steady or the time is up -> how often to call each for one sample, and the seconds
    of a round.
    """
    end = time.perf_counter() + seconds
    for call in calls:
        call()
    before = [_timed(call, 1) for call in calls]
    while True:
        repeats = [max(1, math.ceil(SAMPLE / max(cost, 1e-7))) for cost in before]
        now = [_timed(call, count) for call, count in zip(calls, repeats, strict=True)]
        steady = all(abs(a / b - 1) < STEADY for a, b in zip(now, before, strict=True))
        if steady or time.perf_counter() > end:
            return repeats, sum(cost * (count + 1) for cost, count in zip(now, repeats, strict=True))
        before = now


def _timed(call: Call, repeats: int) -> float:
    started = time.perf_counter()
    for _ in range(repeats):
        call()
    return (time.perf_counter() - started) / repeats


def _ratios(times: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of each column to the first -> the ratios, and the ends of their 95 % intervals."""
    typical = np.percentile(times, PERCENTILE, axis=0)
    picked = np.random.default_rng(0).integers(len(times), size=(RESAMPLES, len(times)))
    resampled = np.stack([np.percentile(column[picked], PERCENTILE, axis=1) for column in times.T], axis=1)
    low, high = np.percentile(resampled / resampled[:, :1], (2.5, 97.5), axis=0)
    return typical / typical[0], low, high
