"""Time of quantized files beside the float one's, in one process, in blocks: each opens all files anew and runs them in
rounds, each in a new random order (`mh_edge.openings` says why). Wall time, because a call that uses several threads is
waited for.
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
from mh_edge.openings import OPENINGS, differs, noise, typical
from mh_edge.quantization.judging.feeding import Counterpart, fixed_batch, rows
from mh_edge.quantization.scheme import Arrays
from mh_edge.runtimes import open_session

SECONDS = 2.0
"""Of measuring, for all files together."""

MOVED = 2**16
"""Bytes, at most, by which the memory of each session is moved: sessions opened in turn would lie where those before
did.
"""

SAMPLE = 4e-4
"""Seconds that one sample lasts at least, in as many calls as that takes: the clock and Python's own work around a call
count for a thousandth then.
"""

WARM = 0.25
"""Share of the time that warming up may take."""

STEADY = 0.05
"""Warm is when a round takes no longer than this more or less than the one before."""

ROUNDS = (1, 100)
"""Least and most rounds of a block."""

PERCENTILE = 20
"""Of the rounds: other programs only ever make a call slower, so the lower times are the file's own."""


@dataclass(frozen=True)
class Latency:
    """ratio: time of the quantized file / time of the float one, in each block the 20th percentile of the rounds, over
    the blocks the geometric mean. interval: where the ratio of another such run lies in 95 of 100, by how the blocks
    differ. ms: milliseconds a call, float's first. noise: the greatest factor by which the two sessions of the float
    file differ in a block. batch: samples a call. threads: of the runtime. rounds: of all blocks.
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
        return self.ratio > 1 and differs(self.interval, self.noise)

    @property
    def faster(self) -> bool:
        """Whether the quantized file is faster than float beyond the noise."""
        return self.ratio < 1 and differs(self.interval, self.noise)

    @property
    def sentence(self) -> str:
        """The result in plain words."""
        if self.slower:
            found = f"In this run it was SLOWER than the float model, {self.ratio:.2f} times its time"
        elif self.faster:
            found = f"In this run it was faster than the float model, {self.ratio:.2f} of its time"
        else:
            found = f"In this run it took as long as the float model within the noise, {self.ratio:.2f} of its time"
        low, high = self.interval
        threads = {None: "as many threads as the runtime likes", 1: "1 thread"}.get(
            self.threads, f"{self.threads} threads"
        )
        return (
            f"{found} (95 %: {low:.2f} to {high:.2f} over {OPENINGS} openings of the files; noise up to a factor of "
            f"{self.noise:.2f}): {self.ms[1]:.3g} ms against {self.ms[0]:.3g} ms a call at batch {self.batch}, "
            f"{threads}."
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
    order = random.Random(0)  # noqa: S311 - an order, no secret
    files = [reference, reference, *candidates.values()]
    blocks, taken = [], batch
    for _ in range(OPENINGS):
        with ExitStack() as stack:
            calls, taken = _opened(files, feeds, batch, threads, order, stack)
            blocks.append(_times(calls, seconds / OPENINGS, order))
    seconds_of = np.stack([np.percentile(times, PERCENTILE, axis=0) for times in blocks])
    found = noise(seconds_of[:, 0], seconds_of[:, 1])
    base = np.sqrt(seconds_of[:, 0] * seconds_of[:, 1])
    return {
        name: _latency(base, seconds_of[:, column], found, taken, threads, sum(map(len, blocks)))
        for column, name in enumerate(candidates, 2)
    }


def _latency(base: np.ndarray, own: np.ndarray, factor: float, batch: int, threads: int | None, rounds: int) -> Latency:
    """base, own: seconds of a call of the float model and of the other one, (blocks,)."""
    ratio, interval = typical(own / base)
    ms = 1e3 * typical(base)[0], 1e3 * typical(own)[0]
    return Latency(ratio, interval, ms, factor, batch, threads, rounds)


Call = Callable[[], object]


def _opened(
    files: list[Path], feeds: Arrays, batch: int, threads: int | None, order: random.Random, stack: ExitStack
) -> tuple[list[Call], int]:
    """Sessions of all files, opened in a random order with gaps between -> a call of each, and its samples."""
    sessions, gaps = {}, []
    for column in order.sample(range(len(files)), len(files)):
        gaps.append(bytearray(order.randrange(MOVED)))
        sessions[column] = stack.enter_context(open_session(files[column], threads=threads))
    fixed = {size for one in sessions.values() if (size := fixed_batch(one.signature)) is not None}
    if len(fixed) > 1:
        raise InputError(
            f"the files take {', '.join(map(str, sorted(fixed)))} samples a call, so their times do not compare.",
            "Fix the same batch in all of them.",
        )
    batch = next(iter(fixed), batch)
    taken = rows(feeds, batch)
    parts = [Counterpart.of(sessions[column], sessions[0].signature) for column in range(len(files))]
    return [partial(part.session.run, part.feeds(taken)) for part in parts], batch


def _times(calls: list[Call], seconds: float, order: random.Random) -> np.ndarray:
    """Seconds of one call, (rounds, calls)."""
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
