"""`profile`: every artifact on every device that takes it, in one run: first whether it ran there and gave the right
numbers, then how fast.
"""

from __future__ import annotations

import math
import os
import platform
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from mh_edge.arrayfiles import read_npz
from mh_edge.artifact import MODEL_SUFFIXES
from mh_edge.errors import InputError, MhEdgeError, UsageError
from mh_edge.openings import OPENINGS
from mh_edge.profiling.cases import Asked, Case, prepare
from mh_edge.profiling.feeding import Sizes
from mh_edge.profiling.measuring import Job, Stamp, Times, failure, measure, stamp
from mh_edge.profiling.plan import BROWSER, Pair, pairs
from mh_edge.profiling.result import Agreement, Profile, Row
from mh_edge.profiling.rows import control_noise, row, with_ratios
from mh_edge.progress import Progress, silent
from mh_edge.runtimes import BASELINE
from mh_edge.runtimes.apart import Apart, Opened

if TYPE_CHECKING:
    from mh_edge.profiling.browser import Offer

SECONDS = 1.0
"""Of timed calls for each row."""

CPU_INFO = Path("/proc/cpuinfo")


@dataclass(frozen=True)
class _Ways:
    """How rows are measured: see `profile`."""

    threads: int | None
    runs: int | None
    seconds: float
    rtol: float | None
    fallback: bool
    ops: bool
    settings: Mapping[str, Mapping[str, str]]
    binary: Path | None
    flags: Sequence[str]


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
    benchmark_binary: str | Path | None = None,
    benchmark_flags: Sequence[str] = (),
    offer: Offer | None = None,
    on_step: Progress = silent,
) -> Profile:
    """Latency, placement and numbers of artifacts (.onnx, .tflite) on devices (`mh_edge.devices` lists them).

    Before a row is timed, it is asked where its nodes ran, and its outputs are compared with the CPU's on the same
    feeds: max |device - cpu| / max |cpu| <= rtol for each output. What is wrong is not timed, and what ran elsewhere,
    wholly or in part, only where allow_fallback is true or no device was named. All rows are timed in turn, in several
    openings of the files (`mh_edge.openings` says why).

    devices: names; the plain CPU runtime of each file's format where there are none; "adb" or "adb:SERIAL" is an
    Android device, "browser" or "browser:BACKEND" one that opens a page which is served here: a row for each backend.
    baseline: a Keras model file to time beside them. threads: of each runtime, None for its own choice. batch,
    sequence, dims: free sizes. feeds: .npz of real inputs by name, in place of drawn ones. runs: timed calls of each
    row, in place of `seconds` of them. rtol: instead of what `mh_edge.profiling.agreement.ALLOWED` says. ops: time the
    operations, too. settings: {device: {key: value}}. benchmark_binary, benchmark_flags: for Android, see
    `mh_edge.profiling.android`. offer: for browsers, see `mh_edge.profiling.browser`.

    Raises UsageError and InputError for what cannot be begun; what goes wrong with one row is in that row.
    """
    asked = pairs([Path(path) for path in artifacts], devices)
    binary = None if benchmark_binary is None else Path(benchmark_binary)
    if baseline is not None:
        _require_model(Path(baseline))
    _require_sense(asked, seconds, runs, rtol, binary, settings or {}, baseline is not None)
    offer = _offered(asked, offer, settings or {})
    arrays = None if feeds is None else read_npz(Path(feeds))
    wanted = Asked(Sizes(batch, sequence, dims or {}), arrays, str(feeds))
    ways = _Ways(threads, runs, seconds, rtol, allow_fallback, ops, settings or {}, binary, benchmark_flags)
    stamps = {path: stamp(path) for path in {pair.artifact for pair in asked}}
    if baseline is not None:
        stamps[Path(baseline)] = stamp(Path(baseline))
    with tempfile.TemporaryDirectory(prefix="mh-edge-") as folder:
        cases = _cases(asked, wanted, threads, Path(folder), on_step)
        ready = [case for case in cases.values() if isinstance(case, Case)]
        if baseline is not None and ready:
            asked += (Pair(Path(baseline), BASELINE, True),)
            cases[Path(baseline)] = replace(ready[0], bytes=Path(baseline).stat().st_size, quantized=None)
        times = _timed(asked, cases, ways, stamps, on_step)
        rows = tuple(
            _on_phone(pair, case, ways, on_step)
            if pair.android and isinstance(case := cases[pair.artifact], Case)
            else row(pair, pair.broken or cases[pair.artifact], times.get(pair), ops)
            for pair in asked
        )
        rows = with_ratios(rows, [times.get(pair) for pair in asked])
        visited: Mapping[Pair, tuple[Row, ...]] = {}
        noise = None
        if offer is not None:
            visited, noise = _in_browser(asked, cases, offer, Path(folder), ways, on_step)
    first = next((one for one in times.values() if one.failure is None), None)
    return Profile(
        rows=tuple(one for pair, known in zip(asked, rows, strict=True) for one in visited.get(pair, (known,))),
        noise=noise if first is None else control_noise(first),
        machine=_machine(),
        sizes={name: size for case in ready for name, size in case.sizes.items()},
        threads=threads,
        feeds=ready[0].source if ready else "",
        openings=OPENINGS,
    )


def _timed(
    asked: Sequence[Pair],
    cases: Mapping[Path, Case | MhEdgeError],
    ways: _Ways,
    stamps: Mapping[Path, Stamp],
    on_step: Progress,
) -> dict[Pair, Times]:
    """What is timed in turn: all but what cannot be run, phones and browsers."""
    jobs = {
        pair: _job(pair, case, ways, stamps)
        for pair in asked
        if pair.broken is None and isinstance(case := cases[pair.artifact], Case) and not pair.by_itself
    }

    def tell(opening: int) -> None:
        on_step("timing", opening, OPENINGS)

    measured = measure(list(jobs.values()), seconds=ways.seconds, runs=ways.runs, on_opening=tell)
    return dict(zip(jobs, measured, strict=True))


def _on_phone(pair: Pair, case: Case, ways: _Ways, on_step: Progress) -> Row:
    """The row of an Android device, which is timed by itself."""
    from mh_edge.profiling.android import profile_on_android

    _, _, serial = pair.device.partition(":")
    try:
        found = profile_on_android(
            case,
            serial or None,
            ways.binary or Path(),
            threads=ways.threads,
            runs=ways.runs,
            seconds=ways.seconds,
            rtol=ways.rtol,
            fallback=ways.fallback,
            flags=ways.flags,
            on_step=on_step,
        )
    except MhEdgeError as error:
        return replace(row(pair, case, None, ways.ops), failure=failure(error))
    return found if ways.ops else replace(found, ops=())


def _in_browser(
    asked: Sequence[Pair],
    cases: Mapping[Path, Case | MhEdgeError],
    offer: Offer,
    folder: Path,
    ways: _Ways,
    on_step: Progress,
) -> tuple[dict[Pair, tuple[Row, ...]], float | None]:
    """The rows of browsers, which are timed by themselves, and their noise."""
    from mh_edge.profiling.browser import profile_in_browser

    visits = {pair: case for pair in asked if pair.browser and isinstance(case := cases[pair.artifact], Case)}
    return profile_in_browser(
        visits,
        offer,
        folder / BROWSER,
        threads=ways.threads,
        runs=ways.runs,
        seconds=ways.seconds,
        rtol=ways.rtol,
        fallback=ways.fallback,
        on_step=on_step,
    )


def _offered(asked: Sequence[Pair], offer: Offer | None, settings: Mapping[str, Mapping[str, str]]) -> Offer | None:
    """How the page is offered to browsers; None where none is asked for. Raises UsageError for an offer to nobody."""
    if not any(pair.browser for pair in asked):
        if offer is not None:
            raise UsageError(
                "--host, --port, --browser and --wait are for browsers, and none is named.", f"Add --device {BROWSER}."
            )
        return None
    from mh_edge.profiling.browser import Offer

    offer = replace(offer or Offer(), settings=settings.get(BROWSER, {}))
    offer.require_sense()
    return offer


def _require_sense(
    asked: Sequence[Pair],
    seconds: float,
    runs: int | None,
    rtol: float | None,
    binary: Path | None,
    settings: Mapping[str, Mapping[str, str]],
    baseline: bool,
) -> None:
    """Raise UsageError for options that cannot be meant."""
    if not 0 < seconds < math.inf:
        raise UsageError(f"--seconds is {seconds}.", "Give a number of seconds above 0.")
    if runs is not None and runs < OPENINGS:
        raise UsageError(
            f"--runs is {runs}.", f"The calls are spread over {OPENINGS} openings: give that many or more."
        )
    if rtol is not None and not 0 <= rtol < math.inf:
        raise UsageError(f"--rtol is {rtol}.", "Give a share of the largest number, such as 0.001.")
    run = {BROWSER if pair.browser else pair.device for pair in asked} | ({BASELINE} if baseline else set())
    if unused := [device for device in settings if device not in run]:
        key = next(iter(settings[unused[0]]), "")
        raise UsageError(
            f"--device-option {unused[0]}.{key} is for a device that is not run.", f"Run are: {', '.join(sorted(run))}."
        )
    phones = [pair.device for pair in asked if pair.android]
    if phones and binary is None:
        raise UsageError(
            f"the device {phones[0]!r} needs a benchmark binary that runs there.",
            "Name one with --benchmark-binary: TFLite's benchmark_model, or onnxruntime_perf_test.",
        )
    if binary is not None and not phones:
        raise UsageError("--benchmark-binary is for Android devices, and none is named.", "Add --device adb.")


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
    for path in dict.fromkeys(pair.artifact for pair in asked if pair.broken is None):
        on_step(f"running {path} on the CPU")
        room = folder / str(len(cases))
        try:
            room.mkdir()
            cases[path] = prepare(path, wanted, threads, room)
        except MhEdgeError as error:
            cases[path] = error
        except OSError as error:
            if error.filename is not None and folder not in Path(error.filename).parents:
                raise
            raise InputError(
                f"the folder for temporary files, {str(folder.parent)!r}, cannot be written: {error.strerror}.",
                "The variable TMPDIR names another one.",
            ) from error
    return cases


def _job(pair: Pair, case: Case, ways: _Ways, stamps: Mapping[Path, Stamp]) -> Job:
    return Job(
        device=pair.device,
        artifact=pair.artifact,
        threads=ways.threads,
        sizes=case.sizes,
        settings=ways.settings.get(pair.device, {}),
        feeds=case.files[0],
        fallback=ways.fallback or not pair.named,
        compare=_not_compared if pair.device == BASELINE else partial(_compared, case, ways.rtol),
        again=_not_compared if pair.device == BASELINE else partial(_compared_again, case, ways.rtol),
        stamp=stamps[pair.artifact],
        ops=ways.ops,
    )


def _compared(case: Case, rtol: float | None, session: Apart, opened: Opened) -> Agreement:
    return case.compare(session, opened, rtol)


def _compared_again(case: Case, rtol: float | None, session: Apart, opened: Opened) -> Agreement:
    outputs = case.files[0].with_name(f"again-{session.device}.npz")
    session.again(outputs)
    return case.judge([read_npz(outputs)], opened.precision, rtol)


def _not_compared(session: Apart, opened: Opened) -> Agreement:
    del session, opened
    return Agreement(None, "", why="it is the baseline; mh-edge verify compares with it")


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
