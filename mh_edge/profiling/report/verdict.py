"""The profile in sentences, what went wrong first."""

from __future__ import annotations

import math

from mh_edge.errors import UnavailableError
from mh_edge.profiling.report.entries import Entry, first_timed, listed, time
from mh_edge.profiling.report.html import Child, Element, e, foreign
from mh_edge.profiling.report.placement import share
from mh_edge.profiling.result import Failure, Profile
from mh_edge.runtimes.placement import Placement
from mh_edge.units import digits

WRONG, FELL_BACK, NOT_HERE, FAILED = ORDER = ("Wrong numbers", "Fell back", "Not available", "Failed")
"""What can be wrong with a row, the worst first."""

PARTLY, ELSEWHERE = "Partly elsewhere", "All elsewhere"
"""What is said of a row that did not run on its device whole, where that is no failure."""


def headline(profile: Profile, rows: tuple[Entry, ...]) -> Element:
    """Passed or failed; which is fastest, what failed, the noise, the numbers. Wrong numbers come first."""
    passed = profile.passed
    word = "Passed" if passed else f"Failed, exit code {profile.exit_code}"
    mark = e("span", "✓" if passed else "✗", class_="mark", aria_hidden="true")
    said = [*_failures(rows), *_noise(profile, rows)]
    fast, numbers = _speed(rows), _numbers(rows)
    sentences: list[Child] = [*fast, *said, *numbers]
    if any(one.wrong for one in rows):
        sentences = [*numbers, *fast, *said]
    spaced: list[Child] = [part for sentence in sentences for part in (sentence, " ")]
    return e(
        "div",
        e("p", mark, word, class_="status"),
        e("p", *spaced, class_="words"),
        class_=f"verdict {'good' if passed else 'failed'}",
    )


def problems(rows: tuple[Entry, ...]) -> Element | None:
    """A box for each failure, wrong numbers first; None where there is none."""
    failed: dict[tuple[str, Failure], list[Entry]] = {}
    for one in rows:
        if one.row.failure is not None:
            failed.setdefault((kind(one), one.row.failure), []).append(one)
    found = [_failed(*which, failed[which]) for which in sorted(failed, key=lambda which: ORDER.index(which[0]))]
    return e("section", e("h2", "What went wrong"), *found, id="problems") if found else None


def elsewhere(rows: tuple[Entry, ...]) -> Element | None:
    """A box for each row that may run elsewhere, and does in part; None where there is none."""
    found = [
        _elsewhere(one, one.row.placement)
        for one in rows
        if kind(one) in (PARTLY, ELSEWHERE) and one.row.placement is not None
    ]
    lead = "Their devices do not take all of these files, which is allowed here; they were timed as they ran."
    return e("section", e("h2", PARTLY), e("p", lead, class_="lead"), *found, id="elsewhere") if found else None


def notes(rows: tuple[Entry, ...]) -> Element | None:
    """What else must be known: remarks, and why numbers were not compared; None where there is nothing."""
    remarks: dict[str, list[str]] = {}
    for one in rows:
        found = one.row.agreement
        untold = [f"Its numbers are not compared: {found.why}"] if found and found.equal is None and found.why else []
        for note in (*untold, *one.row.notes):
            remarks.setdefault(note, []).append(one.label)
    boxes = [
        _box("", "Note", foreign(listed(labels, 3), class_="name"), foreign(note)) for note, labels in remarks.items()
    ]
    return e("section", e("h2", "What must be known"), *boxes, id="notes") if boxes else None


def kind(one: Entry) -> str:
    """What is to be said of it, in two words; empty where nothing is."""
    if one.wrong:
        return WRONG
    if one.row.failure is None:
        return ELSEWHERE if one.away else PARTLY if one.row.fell_back else ""
    if one.row.fell_back:
        return FELL_BACK
    return NOT_HERE if one.row.failure.exit_code == UnavailableError.exit_code else FAILED


def _speed(rows: tuple[Entry, ...]) -> list[Element]:
    first = first_timed(rows)
    if first is None or first.latency is None:
        means = [f"{one.label} takes {time(one.row.mean_ms)} for a call, as a mean." for one in rows if one.row.mean_ms]
        return [e("span", means[0] if means else "Nothing was timed.")]
    base, takes = first.shown(), time(first.latency.p50)
    others = [one for one in rows if one is not first and one.sound and one.latency is not None and one.row.ratio]
    differing = [(one, one.row.ratio.ratio) for one in others if one.row.ratio is not None and one.row.ratio.differs]
    faster = [pair for pair in differing if 0 < pair[1] < 1]
    slower = [pair for pair in differing if pair[1] > 1]
    words: list[Child]
    if faster:
        best, ratio = min(faster, key=lambda pair: pair[1])
        times = f" ({digits(1 / ratio)} times as fast)" if ratio < 0.5 else ""
        words = [e("b", best.shown()), " is the fastest: it takes ", e("b", _factor(ratio)), " of the time of ", base]
        words.append(f"{times}.")
    elif not others:
        words = [e("b", base), f" takes {takes} for a call, as a median."]
    elif len(slower) < len(others):
        words = ["None is faster than ", e("b", base), f" ({takes}) beyond the noise."]
    else:
        nearest, ratio = min(slower, key=lambda pair: pair[1])
        words = [e("b", base), f" ({takes}) is the fastest: the next, ", nearest.shown(), ", takes "]
        words += [e("b", _factor(ratio)), " times as long."]
    return [e("span", *words)]


def _noise(profile: Profile, rows: tuple[Entry, ...]) -> list[str]:
    if first_timed(rows) is None:
        return []
    if profile.noise is None or not math.isfinite(profile.noise):
        return ["The noise of the machine was not measured."]
    return [f"The noise of the machine is a factor of {profile.noise:.2f}."]


def _failures(rows: tuple[Entry, ...]) -> list[str]:
    """What failed, but for wrong numbers."""
    fell = [one.label for one in rows if kind(one) == FELL_BACK]
    missing = [one for one in rows if kind(one) in (NOT_HERE, FAILED)]
    words = []
    if fell:
        which = listed(fell) if len(fell) < 3 else f"{len(fell)} of {len(rows)}"
        words.append(f"{which} fell back, wholly or in part.")
    if missing:
        on = listed(dict.fromkeys(one.row.device for one in missing))
        words.append(f"{len(missing)} of {len(rows)} could not be run, on {on}.")
    return words


def _numbers(rows: tuple[Entry, ...]) -> list[str]:
    wrong = [one for one in rows if one.wrong]
    if wrong:
        return [f"The numbers of {listed(one.label for one in wrong)} are wrong."]
    compared = [
        found.reference
        for one in rows
        if (found := one.row.agreement) is not None and found.equal and found.reference != one.row.device
    ]
    if not compared:
        return []
    return [f"The numbers agree with those of {listed(dict.fromkeys(compared))}, within what is allowed."]


def _failed(title: str, failure: Failure, those: list[Entry]) -> Element:
    names = [part for one in those for part in (one.shown(), ", ")][:-1]
    hint = e("span", " ", foreign(failure.hint, class_="hint")) if failure.hint else None
    return _box("bad", title, e("span", *names), foreign(failure.message), hint)


def _elsewhere(one: Entry, found: Placement) -> Element:
    told = [
        f"{fallback.count} {fallback.op} on {fallback.where}" + (f" ({fallback.reason})" if fallback.reason else "")
        for fallback in found.fallbacks
    ]
    ran = f"{share(found)} ran on the device." + (f" Elsewhere: {listed(told)}." if told else "")
    return _box("", kind(one), one.shown(), foreign(ran))


def _box(kind: str, title: str, of: Element, *children: Child) -> Element:
    return e("div", e("p", e("b", title, class_="what"), " ", of), e("p", *children), class_=f"problem {kind}".strip())


def _factor(ratio: float) -> str:
    """Two digits behind the point are more than the noise leaves, but for ratios that are next to nothing."""
    return f"{ratio:.2f}" if 0.1 <= ratio < 10 else digits(ratio)
