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

UNSAFE = "browsers give neither threads nor a GPU to a page of plain http from another machine"
"""Such a page is no secure context. Loopback is one."""

TUNNEL = (
    "Leave --host away, and with a phone at the USB port: adb reverse tcp:PORT tcp:PORT, then open the address of "
    "127.0.0.1 there; or name this page's address in its chrome://flags/#unsafely-treat-insecure-origin-as-secure."
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
    first = next((one for one in times if one is not None and one.failure is None), None)
    if first is None or not all(first.control):
        return made, None
    noise = rows.control_noise(first)
    compared = rows.with_ratios(made, times)
    head = times.index(first)
    note = f"the ratios of browsers are to this row, timed in turn with theirs; its noise is a factor of {noise:.2f}"
    return (*compared[:head], _noted(compared[head], note), *compared[head + 1 :]), noise


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
        why = checked.absent if secure else f"{UNSAFE} ({checked.absent})"
        error = UnavailableError(f"{browser} has no {one.backend}: {why.rstrip('.')}.", "" if secure else TUNNEL)
        return replace(made, failure=failure(error)) if one.named else replace(made, notes=(str(error),))
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
        said += ", a program on the CPU: its times say nothing about a GPU" if SOFTWARE.search(checked.adapter) else ""
    return said


def _noted(row: Row, note: str) -> Row:
    return replace(row, notes=(*row.notes, note))
