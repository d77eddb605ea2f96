"""Timing rows in turn: in each of several openings every file is opened in a process of its own, and all are called in
short bursts, one after the other, in an order that is drawn anew each time.

So whatever happens to the machine happens to all of them; one process runs at a time, and the first row runs twice, as
its own control.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from mh_edge.errors import InputError, MhEdgeError, NotEqualError, UnavailableError
from mh_edge.openings import OPENINGS
from mh_edge.profiling.result import Agreement, Failure
from mh_edge.runtimes.apart import Apart, Opened
from mh_edge.runtimes.placement import OpTime, Placement

BURSTS = 10
"""In how many bursts the calls of an opening are made, where there are so many calls."""

WARM_SECONDS = 0.5
"""The longest warm-up of a row in each opening."""

SETTLE_SECONDS = 0.02
"""The threads of a runtime go on looking for work for a while after a call; so long is waited before the next row runs
where there are several.
"""

OP_CALLS = 500
OP_SECONDS = 1.0
"""Operations are timed in so many calls, or as many as take so long; runtimes give the mean of the faster half."""


MENDS = (
    "mh-edge export --runtime plugins, with --batch and --sequence, writes what most devices take whole; what a device "
    "leaves of such a file, it lacks."
)
"""What to do about an .onnx file that a device does not take, or computes wrongly."""

Stamp = tuple[int, int, int]


@dataclass(frozen=True)
class Job:
    """A row to time. sizes: free sizes, fixed. settings: the device's own. feeds: .npz of the feed that is timed.
    fallback: whether what does not run on the device whole is timed. compare(session, opened): whether its numbers are
    right. again(session, opened): whether those of the calls that are timed are. stamp: the artifact's, before anything
    was run. ops: whether its operations are timed, too.
    """

    device: str
    artifact: Path
    threads: int | None
    sizes: Mapping[str, int]
    settings: Mapping[str, str]
    feeds: Path
    fallback: bool
    compare: Callable[[Apart, Opened], Agreement]
    again: Callable[[Apart, Opened], Agreement]
    stamp: Stamp
    ops: bool


@dataclass
class Times:
    """What the openings of a row gave, one entry each. ms: of each call. control: the same of its second session, of
    the first row alone.
    """

    runtime: str = ""
    notes: tuple[str, ...] = ()
    load_ms: list[float] = field(default_factory=list)
    first_ms: list[float] = field(default_factory=list)
    memory: list[int | None] = field(default_factory=list)
    ms: list[list[float]] = field(default_factory=list)
    control: list[list[float]] = field(default_factory=list)
    steady: bool | None = None
    placement: Placement | None = None
    agreement: Agreement | None = None
    ops: tuple[OpTime, ...] = ()
    failure: Failure | None = None


@dataclass
class _Live:
    """A row in an opening. ms: of a call when it was warm."""

    job: Job
    times: Times
    session: Apart
    control: bool
    opened: Opened | None = None
    ms: float = 0.0
    found: list[float] = field(default_factory=list)


def measure(jobs: Sequence[Job], *, seconds: float, runs: int | None, on_opening: Callable[[int], None]) -> list[Times]:
    """Time the jobs. seconds: of timed calls for each, in all openings together. runs: so many calls instead.
    on_opening: is told the number of each opening.
    """
    order = random.Random(0)  # noqa: S311 - an order, no secret
    found = [Times() for _ in jobs]
    for opening in range(OPENINGS):
        on_opening(opening)
        with ExitStack() as stack:
            live = list(_opened(jobs, found, order, opening, stack))
            for one in live:
                _guarded(one, _warm)
            share = None if runs is None else runs * (opening + 1) // OPENINGS - runs * opening // OPENINGS
            _calls([one for one in live if one.times.failure is None], order, seconds / OPENINGS, share)
            for one in live:
                if one.times.failure is None:
                    _guarded(one, partial(_finish, last=opening == OPENINGS - 1))
    return found


def failure(error: MhEdgeError) -> Failure:
    """The error as a row shows it."""
    return Failure(error.kind, error.message, error.hint, error.exit_code)


def _opened(
    jobs: Sequence[Job], found: Sequence[Times], order: random.Random, opening: int, stack: ExitStack
) -> Iterator[_Live]:
    """The rows that can be timed, each opened; the first of them twice."""
    rows = [(job, times) for job, times in zip(jobs, found, strict=True) if times.failure is None]
    # All import their runtimes now, at once; none is opened before that is over.
    started = [_Live(job, times, stack.enter_context(Apart(job.device)), False) for job, times in rows]
    for one in order.sample(started, len(started)):
        _guarded(one, _load)
    for one in order.sample(started, len(started)):
        _guarded(one, partial(_open, check=opening == 0))
    working = [one for one in started if one.times.failure is None]
    yield from working
    if working:
        first = working[0]
        control = _Live(first.job, first.times, stack.enter_context(Apart(first.job.device)), True)
        _guarded(control, partial(_open, check=False))
        yield control


def _guarded(one: _Live, do: Callable[[_Live], None]) -> None:
    """An error is that row's, and the others go on."""
    if one.times.failure is not None:
        return
    try:
        do(one)
    except MhEdgeError as error:
        one.times.failure = failure(error)


def _load(one: _Live) -> None:
    one.times.runtime = one.session.load()


def _open(one: _Live, *, check: bool) -> None:
    job, session = one.job, one.session
    _require_same(job)
    opened = one.opened = session.open(job.artifact, threads=job.threads, sizes=job.sizes, settings=job.settings)
    one.times.notes = opened.notes
    first = session.prepare(job.feeds)
    if check:
        one.times.placement = session.placement()
        if not job.fallback:
            require_placed(job.artifact, job.device, one.times.placement)
        one.times.agreement = job.compare(session, opened)
        require_equal(job.artifact, job.device, one.times.agreement)
    if not one.control:
        one.times.load_ms.append(opened.load_ms)
        one.times.first_ms.append(first)


def stamp(artifact: Path) -> Stamp:
    """What is another one once the file was written again."""
    found = artifact.stat()
    return found.st_ino, found.st_size, found.st_mtime_ns


def _require_same(job: Job) -> None:
    if not job.artifact.is_file() or stamp(job.artifact) != job.stamp:
        raise InputError(f"{str(job.artifact)!r} was changed while it was measured.", "Measure it again.")


def require_placed(artifact: Path, device: str, placement: Placement) -> None:
    """Raise UnavailableError where not all of an artifact ran on the device."""
    if placement.whole:
        return
    left = placement.nodes - placement.on_device
    part = f"{left} of its {placement.nodes} nodes" if placement.on_device else "all of it"
    where = "; ".join(f"on {place}: {what}" for place, what in placement.elsewhere.items()) or "elsewhere"
    mends = f" {MENDS}" if artifact.suffix.lower() == ".onnx" else ""
    raise UnavailableError(
        f"{str(artifact)!r} fell back from {device!r}: {part} ran {where}.",
        f"It is not timed. --allow-fallback times it all the same, and says so.{mends}",
    )


def require_equal(artifact: Path, device: str, found: Agreement) -> None:
    """Raise NotEqualError where a device's numbers are wrong."""
    if found.equal is not False:
        return
    if found.error is None:
        what = found.why
    else:
        what = (
            f"{found.at} is {found.got:.6g}, expected {found.expected:.6g} as {found.reference!r} gives it; "
            f"the difference is {found.error:.2g} of the largest number, and {found.allowed:.2g} is allowed"
        )
    raise NotEqualError(
        f"the numbers of {str(artifact)!r} on {device!r} are wrong: {what}.",
        f"It is not timed. {MENDS if artifact.suffix.lower() == '.onnx' else 'Fixed sizes may mend it.'}",
    )


def _warm(one: _Live) -> None:
    one.ms, steady = one.session.warm(WARM_SECONDS)
    if steady is not None:
        one.times.steady = steady and one.times.steady is not False


def _calls(live: Sequence[_Live], order: random.Random, seconds: float, runs: int | None) -> None:
    """The timed calls of an opening: so many, or as many as fit into the seconds."""
    wanted = {id(one): max(1, int(1e3 * seconds / one.ms)) if runs is None else runs for one in live}
    for turn in range(BURSTS):
        for one in order.sample(list(live), len(live)):
            total = wanted[id(one)]
            count = total * (turn + 1) // BURSTS - total * turn // BURSTS
            if count:
                if one.job.threads != 1:
                    time.sleep(SETTLE_SECONDS)
                _guarded(one, partial(_burst, count=count))


def _burst(one: _Live, count: int) -> None:
    one.found.extend(one.session.calls(count))


def _finish(one: _Live, *, last: bool) -> None:
    _require_same(one.job)
    if one.opened is not None:
        found = one.job.again(one.session, one.opened)
        if found.equal is False:
            one.times.agreement = found
        require_equal(one.job.artifact, one.job.device, found)
    if one.control:
        one.times.control.append(one.found)
        return
    one.times.ms.append(one.found)
    one.times.memory.append(one.session.memory())
    if last and (one.job.ops or not (one.times.placement and one.times.placement.whole)):
        one.times.ops = one.session.op_times(max(1, min(OP_CALLS, int(1e3 * OP_SECONDS / one.ms))))
