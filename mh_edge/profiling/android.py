"""An artifact timed on an Android device by a benchmark binary of its runtime, which the user names: `benchmark_model`
of TensorFlow Lite for .tflite, `onnxruntime_perf_test` for .onnx.

Both files go into a folder of their own on the device, which is removed in the end. The binary runs once for each
opening, as other devices are opened, on the feed that other devices are timed on; before that once for its numbers, as
far as the binary gives any, and once for where nodes ran.
"""

from __future__ import annotations

import math
import re
import shlex
import signal
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from mh_edge.errors import InputError, MhEdgeError
from mh_edge.openings import OPENINGS, typical
from mh_edge.profiling.adb import TEMPORARY, Phone, phone
from mh_edge.profiling.benchmark_output import Printed
from mh_edge.profiling.benchmarks import BENCHMARKS, MOST_SECONDS, Benchmark
from mh_edge.profiling.cases import Case
from mh_edge.profiling.measuring import failure, require_equal, require_placed
from mh_edge.profiling.result import Agreement, Latency, Row
from mh_edge.progress import Progress, silent
from mh_edge.runtimes import SUFFIXES

SLACK_SECONDS = 60.0
"""Beside the calls: loading, compiling for a GPU, warming up."""

SHOWN = 5
"""Lines of what a binary printed, where it cannot be read."""

BINARY = "benchmark"
"""What the binary is called on the device."""

MAGIC = b"\x7fELF"
"""The first bytes of every program of Linux and Android."""

REFUSALS = (
    (rf"{BINARY}: (not executable:.*|.*Exec format error.*)",
     "it is built for another processor than the device's {abi} ({said})", "Name one that is built for {abi}."),
    (rf"{BINARY}: (inaccessible or not found|not found|No such file or directory)",
     "it is not built for Android: what would load it is not there ({said})",
     "Name one that is built with Android's NDK for {abi}."),
    (r"(CANNOT LINK EXECUTABLE.*|error while loading shared libraries.*)", "{said}",
     f"Copy the library to {TEMPORARY} on the device, where it is looked for, or link the binary statically."),
    (rf"{BINARY}: (.*Permission denied.*)", "the device does not allow it ({said})",
     "Look whether its policy forbids programs of adb."),
)  # fmt: skip
"""What Android says of a program that it does not run: pattern, reason, what to do."""

UNDERSTOOD = "Name benchmark_model of TensorFlow Lite for .tflite, onnxruntime_perf_test for .onnx."

NOT_COMPARED = "this benchmark binary gives no outputs"


def profile_on_android(
    case: Case,
    serial: str | None,
    binary: Path,
    *,
    threads: int | None,
    runs: int | None,
    seconds: float,
    rtol: float | None = None,
    fallback: bool = False,
    flags: Sequence[str] = (),
    on_step: Progress = silent,
) -> Row:
    """The row of an artifact on the Android device of that serial number (None: the only one).

    binary: of the artifact's format, built for the device. runs: timed calls in all openings, None for as many as take
    `seconds`. rtol: instead of what is allowed by the precision. fallback: whether what did not run on a delegate or
    provider that was asked for is timed. flags: further ones for the binary ("--use_gpu=true"; "-e", "nnapi").

    What the binary does not tell is None; where it knows no percentiles, `mean_ms` alone tells its speed.

    Raises UnavailableError when adb or the device cannot be used, InputError when the binary is none that runs there,
    or prints no figures. Wrong numbers and falling back are the row's failure.
    """
    _require_binary(binary)
    device = phone(serial)
    benchmark = BENCHMARKS[SUFFIXES[case.artifact.suffix.lower()]](case, threads, flags)
    row = Row(
        artifact=str(case.artifact),
        device="adb" if serial is None else f"adb:{serial}",
        runtime=benchmark.name,
        bytes=case.bytes,
        batch=case.batch,
        quantized=case.quantized,
        notes=(f"measured on {device}",),
    )
    with device.folder() as folder, tempfile.TemporaryDirectory(prefix="mh-edge-") as made:
        on_step(f"copying to {device}")
        for name, path in {BINARY: binary, **benchmark.files(Path(made))}.items():
            device.push(path, f"{folder}/{name}")
        device.shell(f"chmod 755 {folder}/{BINARY}")

        def run(arguments: Sequence[str]) -> tuple[str, Printed]:
            said, code = _run(device, folder, arguments)
            figures = benchmark.printed(said)
            if figures is None:
                raise _refused(binary, benchmark, device, said, code)
            return said, figures

        on_step(f"running on {device}")
        said, _ = run(benchmark.tried(folder))
        got = benchmark.outputs(device, folder, Path(made))
        agreement = (
            Agreement(None, "", why=NOT_COMPARED) if got is None else case.judge([got], benchmark.precision, rtol)
        )
        where = benchmark.where(device, folder, lambda arguments: _run(device, folder, arguments)[0], said)
        total = sum(one.ms for one in where.ops)
        row = replace(
            row,
            placement=where.placement,
            time_share=sum(one.ms for one in where.ops if one.on_device) / total if total else None,
            agreement=agreement,
            ops=where.ops,
            notes=(*row.notes, *where.notes),
        )
        try:
            require_equal(case.artifact, row.device, agreement)
            if where.placement is not None and not fallback:
                require_placed(case.artifact, row.device, where.placement)
        except MhEdgeError as error:
            return replace(row, failure=failure(error), ops=())
        printed = []
        for opening in range(OPENINGS):
            on_step(f"timing on {device}", opening, OPENINGS)
            counted = None if runs is None else math.ceil(runs / OPENINGS)
            printed.append(run(benchmark.timed(folder, counted, seconds / OPENINGS))[1])
    return replace(
        row,
        latency=_latency(printed),
        mean_ms=_typical([one.mean for one in printed]),
        load_ms=_median([one.load for one in printed]),
        first_ms=_median([one.first for one in printed]),
        memory=_whole(_median([one.grown for one in printed])),
        notes=(*row.notes, *_notes(printed)),
    )


def _run(device: Phone, folder: str, arguments: Sequence[str]) -> tuple[str, int]:
    """What the binary printed, and its exit code."""
    command = shlex.join([f"{folder}/{BINARY}", *arguments])
    libraries = f"LD_LIBRARY_PATH={folder}:{TEMPORARY}"
    done = device.shell(f"cd {folder} && {libraries} {command} 2>&1", MOST_SECONDS + SLACK_SECONDS)
    return done.stdout or done.stderr, done.returncode


def _require_binary(binary: Path) -> None:
    if not binary.is_file():
        raise InputError(f"there is no benchmark binary {str(binary)!r}.")
    with binary.open("rb") as file:
        if file.read(len(MAGIC)) != MAGIC:
            raise InputError(
                f"{str(binary)!r} is no program for Android: it does not begin as an ELF file.",
                UNDERSTOOD,
            )


def _refused(binary: Path, benchmark: Benchmark, device: Phone, said: str, code: int) -> InputError:
    """Why there are no figures in what was printed."""
    for pattern, reason, hint in REFUSALS:
        if (match := re.search(pattern, said)) is not None:
            why = reason.format(abi=device.abi, said=match[1])
            return InputError(f"{str(binary)!r} does not run on {device}: {why}.", hint.format(abi=device.abi))
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    wrong = [line for line in lines if re.search(r"error|fail|fatal|exception|unconsumed", line, re.IGNORECASE)]
    number = code - 128
    ended = f"was ended by {signal.Signals(number).name}" if number in set(signal.Signals) else f"ended with {code}"
    return InputError(
        f"{str(binary)!r} {ended} on {device} and printed no figures of {benchmark.name}: "
        f"{' | '.join((wrong or lines)[:SHOWN]) or 'nothing at all'}",
        f"{UNDERSTOOD} Give it only flags that it knows.",
    )


def _latency(printed: Sequence[Printed]) -> Latency | None:
    """The percentiles, where the binary prints them."""
    medians = [one.p50 for one in printed if one.p50]
    if len(medians) < len(printed):
        return None
    p50, interval = typical(medians)
    calls = sum(one.calls or 0 for one in printed)
    p90, p99 = _median([one.p90 for one in printed]), _median([one.p99 for one in printed])
    return Latency(p50, p90, p99, interval, quantiles=(), calls=calls, steady=None)


def _notes(printed: Sequence[Printed]) -> list[str]:
    notes = []
    if _latency(printed) is None:
        middle, (low, high) = typical([one.mean for one in printed])
        notes.append(
            f"{middle:.3g} ms a call on average (95 %: {low:.3g} to {high:.3g}); this benchmark prints no percentiles"
        )
    if (process := _median([one.process for one in printed])) is not None:
        notes.append(f"its whole process, runtime included, took up to {process / 1e6:.0f} MB")
    return notes


def _typical(values: Sequence[float]) -> float | None:
    return typical(values)[0] if all(values) else None


def _median(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None


def _whole(value: float | None) -> int | None:
    return None if value is None else int(value)
