"""Rows of a profile, from what a page sent."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from mh_edge.errors import MhEdgeError, UnavailableError
from mh_edge.profiling import rows
from mh_edge.profiling.browser.frames import Checked
from mh_edge.profiling.browser.visit import Outcome, Visit, Wanted
from mh_edge.profiling.measuring import Times, failure
from mh_edge.profiling.result import Row

BROWSERS = (
    ("Edge", r"\bEdg(?:A|iOS)?/(\d+)"), ("Opera", r"\bOPR/(\d+)"), ("Samsung Internet", r"\bSamsungBrowser/(\d+)"),
    ("Firefox", r"\b(?:Firefox|FxiOS)/(\d+)"), ("Chrome", r"\b(?:Headless)?(?:Chrome|CriOS)/(\d+)"),
    ("Safari", r"\bVersion/(\d+)\S* .*\bSafari/"),
)  # fmt: skip
SYSTEMS = (
    ("Android", r"\bAndroid ?(\d*)"), ("iOS", r"\b(?:iPhone OS|CPU OS) (\d+)"), ("Windows", r"\bWindows()"),
    ("macOS", r"\bMac OS X()"), ("ChromeOS", r"\bCrOS()"), ("Linux", r"\bLinux()"),
)  # fmt: skip
"""Name -> how a User-Agent says it, with the version; of several that match the first."""

GROUPED = "its clock is coarse: each time is the mean of {} calls, so there are no percentiles"

SOFTWARE = re.compile(r"software|swiftshader|llvmpipe|lavapipe", re.IGNORECASE)
"""How a GPU that is a program on the CPU calls itself."""

UNSAFE = "browsers keep threads, WebGPU and WebNN from pages of plain http, unless they come from this machine itself"
"""Such a page is no secure context."""

TUNNEL = (
    "For a phone on USB, leave --host away: --port 8000, `adb reverse tcp:8000 tcp:8000`, then open there the address "
    "that is printed. Or name its address in the phone's chrome://flags/#unsafely-treat-insecure-origin-as-secure."
)
"""What to do about it."""


def told_by(agent: str) -> str:
    """`Chrome 156 on Android 15`, of a User-Agent; "a browser" for one that says nothing known."""
    found = (_first(BROWSERS, agent) or "a browser", _first(SYSTEMS, agent))
    return " on ".join(filter(None, found))


def visited(visit: Visit, agent: str, secure: bool, lost: MhEdgeError | None) -> tuple[tuple[Row, ...], float | None]:
    """A row for each that was wanted, and the noise of those that were timed. secure: whether the page was a secure
    context. lost: why the page was not done.
    """
    times = [_times(visit.found.get(number)) for number in range(len(visit.wanted))]
    made = tuple(
        _row(one, visit.found.get(number), timed, told_by(agent), secure, lost)
        for number, (one, timed) in enumerate(zip(visit.wanted, times, strict=True))
    )
    if not secure and (lacking := [place for place, one in enumerate(made) if one.notes and UNSAFE in one.notes[0]]):
        made = _with(made, lacking[-1], TUNNEL)
    first = next((one for one in times if one is not None and one.failure is None), None)
    if first is None or not all(first.control):
        return made, None
    noise = rows.control_noise(first)
    note = f"the ratios of browsers are to this row, timed in turn with theirs; its noise is a factor of {noise:.2f}"
    place = times.index(first)
    beside = f"its ratio is to {visit.wanted[place].case.artifact.name} on {visit.wanted[place].device}"
    compared = _with(rows.with_ratios(made, times), place, note)
    return tuple(
        _noted(one, beside) if one.ratio is not None and at != place else one for at, one in enumerate(compared)
    ), noise


def _first(known: Sequence[tuple[str, str]], agent: str) -> str:
    for name, pattern in known:
        if (match := re.search(pattern, agent)) is not None:
            return f"{name} {match[1]}".strip()
    return ""


def _times(outcome: Outcome | None) -> Times | None:
    """What was timed of a row; None where nothing was."""
    if outcome is None or outcome.timed is None:
        return None
    timed = outcome.timed
    return Times(
        runtime=outcome.checked.runtime,
        load_ms=[one.load_ms for one in timed.openings],
        first_ms=[one.first_ms for one in timed.openings],
        memory=[None for _ in timed.openings],
        ms=[one.ms for one in timed.openings],
        control=[one.control for one in timed.openings],
        steady=timed.steady,
        placement=outcome.checked.placement,
        agreement=outcome.agreement,
        failure=outcome.failure,
    )


def _row(
    one: Wanted, outcome: Outcome | None, times: Times | None, browser: str, secure: bool, lost: MhEdgeError | None
) -> Row:
    made = rows.row(one.pair, one.case, times, ops=False)
    if outcome is None:
        return made if lost is None else replace(made, failure=failure(lost))
    checked = outcome.checked
    if checked.absent:
        why = checked.absent.rstrip(".") if secure else UNSAFE
        error = UnavailableError(f"{browser} has no {one.backend} here: {why}.", "" if secure else TUNNEL)
        return replace(made, failure=failure(error)) if one.named else replace(made, notes=(error.message,))
    made = replace(
        made,
        runtime=checked.runtime,
        placement=checked.placement,
        agreement=outcome.agreement,
        failure=outcome.failure,
        notes=(_measured(one, checked, browser), *made.notes),
    )
    if checked.placement is None and not checked.error:
        made = _noted(made, "the page gives no evidence of where its operations ran")
    if made.latency is not None and outcome.timed is not None and outcome.timed.group > 1:
        group = outcome.timed.group
        latency = replace(made.latency, p90=None, p99=None, quantiles=(), calls=made.latency.calls * group)
        made = _noted(replace(made, latency=latency), GROUPED.format(group))
    if made.failure is None and made.latency is None and lost is not None:
        return replace(made, failure=failure(lost))
    return made


def _measured(one: Wanted, checked: Checked, browser: str) -> str:
    said = f"measured in {browser}"
    if one.backend == "wasm-threads":
        said += f", {checked.threads} threads"
    if one.backend == "webgpu" and checked.adapter:
        said += f", its GPU {checked.adapter}"
        said += ", whose times say nothing about a real one" if SOFTWARE.search(checked.adapter) else ""
    return said


def _with(made: Sequence[Row], place: int, note: str) -> tuple[Row, ...]:
    """The rows, one of them noted."""
    return (*made[:place], _noted(made[place], note), *made[place + 1 :])


def _noted(row: Row, note: str) -> Row:
    return replace(row, notes=(*row.notes, note))
