"""How a profile is shown to people."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mh_edge.commands import tables
from mh_edge.units import digits, duration, human_bytes, percent, portion

if TYPE_CHECKING:
    from rich.console import Console

    from mh_edge.profiling import Profile
    from mh_edge.profiling.result import Agreement, Failure, Row

SPEED = ("file", "device", "p50", "p90", "p99", "ratio to the first", "samples/s")
PROOF = ("file", "device", "ran there", "numbers", "size", "load", "first run", "memory")

NOTHING = "-"

WIDE = 100
"""Columns that the tables need."""

FINE = 1e-3
"""What float32 may differ by; a larger allowance is shown."""


def show(console: Console, found: Profile) -> None:
    """How fast, then where and whether right, then what failed and what else must be known."""
    timed = [row for row in found.rows if row.latency is not None or row.mean_ms is not None]
    _table(console, SPEED, [_speed(row) for row in timed])
    _table(console, PROOF, [_proof(row) for row in found.rows])
    for row in found.rows:
        for line in _remarks(row):
            console.print(f"{row.artifact} on {row.device}: {line}")
        if row.failure is not None and row.failure.hint:
            console.out(f"  {row.failure.hint}", highlight=False)  # a line to be copied is not broken
    for line in _circumstances(found):
        console.print(line)
    for row in found.rows:
        if row.ops:
            console.print()
            show_ops(console, row)


def _table(console: Console, headers: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table, or on a narrow terminal the rows one below another."""
    if not rows:
        return
    if console.width >= WIDE:
        tables.show(console, headers, rows, whole=("device",))
    else:
        for name, device, *values in rows:
            console.print(f"{name} on {device}")
            for header, value in zip(headers[2:], values, strict=True):
                if value != NOTHING:
                    console.print(f"  {header:<18} {value}")
    console.print()


def show_ops(console: Console, row: Row) -> None:
    """The time of a row's operations by what they are, by rule, and by head where there is a MultiHead."""
    from mh_edge.artifact import read_manifest
    from mh_edge.profiling.operations import by_head, by_op, by_rule

    manifest = read_manifest(Path(row.artifact))
    console.print(f"{row.artifact} on {row.device}: {_between(row)}")
    for title, shares in (
        ("operation", by_op(row.ops)),
        ("rule", by_rule(row.ops)),
        ("head", by_head(row.ops, () if manifest is None else manifest.choices)),
    ):
        if shares:
            console.print()
            rows = [(one.name, one.time, portion(one.share), str(one.count)) for one in shares]
            tables.show(console, (title, "time", "share", "operations"), rows)


def _between(row: Row) -> str:
    """What the operations take of a call."""
    total = sum(one.ms for one in row.ops)
    said = f"{len(row.ops)} operations take {duration(total)} of a call"
    ms = row.mean_ms if row.latency is None else row.latency.p50
    if ms is None:
        return f"{said}."
    if total <= ms:
        return f"{said} of {duration(ms)}; {duration(ms - total)} pass between operations."
    return f"{said}, timed apart, which slows them down: a whole call without that takes {duration(ms)}."


def _speed(row: Row) -> tuple[str, ...]:
    latency, rate = row.latency, NOTHING if row.throughput is None else digits(row.throughput)
    if latency is None:
        mean = NOTHING if row.mean_ms is None else f"mean {duration(row.mean_ms)}"
        return (row.artifact, row.device, mean, *[NOTHING] * 3, rate)
    low, high = latency.interval
    return (
        row.artifact,
        row.device,
        f"{duration(latency.p50)} ±{percent((high - low) / (2 * latency.p50))}",
        NOTHING if latency.p90 is None else duration(latency.p90),
        NOTHING if latency.p99 is None else duration(latency.p99),
        _ratio(row),
        rate,
    )


def _ratio(row: Row) -> str:
    ratio = row.ratio
    if ratio is None:
        return NOTHING
    if ratio.interval == (1.0, 1.0):
        return "1"
    low, high = ratio.interval
    word = "within the noise" if not ratio.differs else "slower" if ratio.ratio > 1 else "faster"
    return f"{digits(ratio.ratio)} ({digits(low)}-{digits(high)}) {word}"


def _proof(row: Row) -> tuple[str, ...]:
    return (
        row.artifact,
        row.device,
        _placed(row),
        _numbers(row.agreement, row.device),
        NOTHING if row.bytes is None else human_bytes(row.bytes),
        NOTHING if row.load_ms is None else duration(row.load_ms),
        NOTHING if row.first_ms is None else duration(row.first_ms),
        NOTHING if row.memory is None else human_bytes(row.memory),
    )


def _placed(row: Row) -> str:
    """`85 of 89 nodes, 1 partition, 97% of the time`."""
    placement = row.placement
    if placement is None:
        return NOTHING
    if not placement.nodes:
        return "no node is left to run"
    if placement.whole and placement.partitions <= 1:
        return "all of it"
    parts = [f"{placement.on_device} of {placement.nodes} nodes"]
    if placement.on_device:
        parts.append(f"{placement.partitions} partition{'s' if placement.partitions > 1 else ''}")
    if row.time_share is not None and row.fell_back:
        parts.append(f"{portion(row.time_share)} of the time")
    return ", ".join(parts)


def _numbers(agreement: Agreement | None, device: str) -> str:
    if agreement is None:
        return NOTHING
    if agreement.equal is None:
        return "not compared"
    if agreement.error is None or not agreement.equal:
        return "WRONG"
    if agreement.reference == device:
        return "the reference"
    if agreement.error > FINE:
        return f"{percent(agreement.error)} off {agreement.reference} ({percent(agreement.allowed or 0.0)} allowed)"
    return f"as {agreement.reference}" + (f", to {agreement.error:.1e}" if agreement.error else "")


def failures(found: Profile) -> tuple[str, ...]:
    """A line for each row that failed."""
    failed = [(row, row.failure) for row in found.rows if row.failure is not None]
    return tuple(f"{row.artifact} on {row.device}: {_failed(why)} {why.hint}".rstrip() for row, why in failed)


def _failed(failure: Failure) -> str:
    return f"FAILED: {failure.message.rstrip('.')}."


def _remarks(row: Row) -> list[str]:
    lines = []
    if row.failure is not None:
        lines.append(_failed(row.failure))
    elif row.fell_back and row.placement is not None:
        lines += [f"on {where} instead: {what}" for where, what in row.placement.elsewhere.items()]
    if row.agreement is not None and row.agreement.equal is None and row.agreement.why:
        lines.append(f"its numbers are not compared: {row.agreement.why}")
    return [*lines, *row.notes]


def _circumstances(found: Profile) -> list[str]:
    """What the figures hold for."""
    threads = {None: "as many threads as each runtime likes", 1: "1 thread"}.get(
        found.threads, f"{found.threads} threads"
    )
    sizes = "".join(f", {name} {size}" for name, size in found.sizes.items())
    calls = sum(row.latency.calls for row in found.rows if row.latency is not None)
    lines = (
        [f"{threads}{sizes}; inputs {found.feeds}; {calls} calls in {found.openings} openings of each file."]
        if calls
        else []
    )
    if found.noise is not None:
        lines.append(
            f"Noise: the first row, run twice in turn with the others, differed from itself by up to a factor of "
            f"{found.noise:.2f}; a smaller difference is none. Intervals are of 95 %."
        )
    machine = found.machine
    busy = "load" in machine and float(machine["load"]) > int(machine["cores"])
    lines.append(
        f"Wall-clock times on {machine['processor']}, {machine['cores']} cores, {machine['system']}"
        + (f", load {machine['load']} at the start" if "load" in machine else "")
        + (": other programs were running, and p90 and p99 are theirs, too." if busy else ".")
    )
    return lines
