"""What `profile` found: for each artifact on each device how fast it ran, where, and whether its numbers were right."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mh_edge.runtimes.placement import OpTime, Placement

QUANTILES = 101
"""How many quantiles of the latency are kept for charts: 0 %, 1 %, ... 100 %."""


@dataclass(frozen=True)
class Latency:
    """Milliseconds of a call. p50, p90, p99: over all calls; None where there were too few calls to tell. interval:
    where p50 of another such run lies in 95 of 100, by how the openings of the file differ. quantiles: 0 %, 1 %,
    ... 100 %; empty where they are not known. calls: how many were timed. steady: whether the warm-up ended because
    times were steady; None where that is not known.
    """

    p50: float
    p90: float | None
    p99: float | None
    interval: tuple[float, float]
    quantiles: tuple[float, ...]
    calls: int
    steady: bool | None

    def to_json(self) -> dict[str, Any]:
        return {"p50": self.p50, "p90": self.p90, "p99": self.p99}


@dataclass(frozen=True)
class Agreement:
    """error: the largest difference from the reference device, as a share of the largest number of that output.
    allowed: how much may be. at: where the largest is ("logits[0, 3]"). reference: the device compared with. feeds: how
    many. equal: the verdict; None where nothing could be compared, for the reason `why`.
    """

    equal: bool | None
    reference: str
    error: float | None = None
    allowed: float | None = None
    at: str = ""
    expected: float | None = None
    got: float | None = None
    feeds: int = 0
    why: str = ""

    def to_json(self) -> dict[str, Any]:
        return dict(vars(self))


@dataclass(frozen=True)
class Ratio:
    """Time / time of the first row. interval: where it lies in 95 of 100 such runs. differs: whether that is beyond the
    noise of the machine.
    """

    ratio: float
    interval: tuple[float, float]
    differs: bool


@dataclass(frozen=True)
class Failure:
    """Why an artifact was not measured on a device, as an error says it."""

    kind: str
    message: str
    hint: str
    exit_code: int

    def to_json(self) -> dict[str, str]:
        return {"kind": self.kind, "message": self.message, "hint": self.hint}


@dataclass(frozen=True)
class Row:
    """One artifact on one device. What is None was not measured: of a failure most, of a device that does not tell it
    some.

    batch: samples a call. throughput: samples a second, at that batch, one call after the other. bytes: of the file
    with its external data. mean_ms: of all calls, from a device that may tell no percentiles. memory: bytes by which
    the process grew at most while it opened and ran the file, without the import of the runtime. time_share: of the
    time of all operations, that the device took. fell_back: not all of it ran on the device. quantized: figures of
    `quantize` from the manifest. notes: what else must be known.
    """

    artifact: str
    device: str
    runtime: str = ""
    bytes: int | None = None
    batch: int | None = None
    latency: Latency | None = None
    mean_ms: float | None = None
    ratio: Ratio | None = None
    load_ms: float | None = None
    first_ms: float | None = None
    memory: int | None = None
    placement: Placement | None = None
    time_share: float | None = None
    agreement: Agreement | None = None
    ops: tuple[OpTime, ...] = ()
    quantized: Mapping[str, Any] | None = None
    failure: Failure | None = None
    notes: tuple[str, ...] = ()

    @property
    def fell_back(self) -> bool:
        return self.placement is not None and not self.placement.whole

    @property
    def throughput(self) -> float | None:
        ms = self.mean_ms if self.latency is None else self.latency.p50
        return None if ms is None or self.batch is None else 1e3 * self.batch / ms

    def to_json(self) -> dict[str, Any]:
        latency, ratio, placement = self.latency, self.ratio, self.placement
        return {
            "artifact": self.artifact,
            "device": self.device,
            "runtime": self.runtime,
            "bytes": self.bytes,
            "batch": self.batch,
            "latency_ms": None if latency is None else latency.to_json(),
            "latency_interval_ms": None if latency is None else list(latency.interval),
            "latency_quantiles_ms": None if latency is None else list(latency.quantiles),
            "mean_ms": self.mean_ms,
            "calls": None if latency is None else latency.calls,
            "steady": None if latency is None else latency.steady,
            "ratio": None if ratio is None else ratio.ratio,
            "ratio_interval": None if ratio is None else list(ratio.interval),
            "differs": None if ratio is None else ratio.differs,
            "throughput_per_s": self.throughput,
            "load_ms": self.load_ms,
            "first_ms": self.first_ms,
            "peak_memory_bytes": self.memory,
            "placement": None if placement is None else placement.to_json() | {"time_share": self.time_share},
            "fell_back": self.fell_back,
            "equal": None if self.agreement is None else self.agreement.equal,
            "agreement": None if self.agreement is None else self.agreement.to_json(),
            "ops": [one.to_json() for one in self.ops],
            "quantized": self.quantized,
            "error": None if self.failure is None else self.failure.to_json(),
            "notes": list(self.notes),
        }


@dataclass(frozen=True)
class Profile:
    """noise: the greatest factor by which two runs of one and the same row differed. machine: what ran it (name ->
    value). sizes: the free sizes, fixed. threads: that each runtime may use, None for its own choice. feeds: whose.
    openings: how often each file was opened anew.
    """

    rows: tuple[Row, ...]
    noise: float | None
    machine: Mapping[str, str]
    sizes: Mapping[str, int]
    threads: int | None
    feeds: str
    openings: int

    @property
    def exit_code(self) -> int:
        """5 when the numbers of a row are wrong, else 6 when a device is not here or fell back, else that of another
        failure, else 0. (Wrong numbers, and falling back where that is not allowed, are failures of their rows.)
        """
        from mh_edge.errors import NotEqualError, UnavailableError

        codes = {row.failure.exit_code for row in self.rows if row.failure is not None}
        order = (NotEqualError.exit_code, UnavailableError.exit_code)
        return next((code for code in order if code in codes), max(codes, default=0))

    @property
    def passed(self) -> bool:
        return self.exit_code == 0

    def to_json(self) -> dict[str, Any]:
        return {
            "passed": self.passed,
            "noise": self.noise,
            "machine": dict(self.machine),
            "sizes": dict(self.sizes),
            "threads": self.threads,
            "feeds": self.feeds,
            "openings": self.openings,
            "results": [row.to_json() for row in self.rows],
        }
