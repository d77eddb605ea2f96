"""The profile in sentences, what went wrong first."""

from __future__ import annotations

import math

from mh_edge.errors import UnavailableError
from mh_edge.profiling.report.entries import Entry, first_timed, listed
from mh_edge.profiling.report.html import Child, Element, e, foreign
from mh_edge.profiling.report.placement import share
from mh_edge.profiling.result import Failure, Profile
from mh_edge.runtimes.placement import Placement
from mh_edge.units import digits

WRONG, FELL_BACK, NOT_HERE, FAILED = ORDER = ("Wrong numbers", "Fell back", "Not available", "Failed")
"""What can be wrong with a row, the worst first."""


def headline(profile: Profile, rows: tuple[Entry, ...]) -> Element:
    """Passed or failed, and what there is to say about speed, noise, placement and numbers."""
    passed = profile.passed
    word = "Passed" if passed else f"Failed, exit code {profile.exit_code}"
    mark = e("span", "✓" if passed else "✗", class_="mark", aria_hidden="true")
    fast: list[Child] = [*_speed(rows), *_noise(profile, rows)]
    numbers, placed = _numbers(rows), _placement(rows)
    if passed:
        sentences = [*fast, *placed, *numbers]
    elif any(one.wrong for one in rows):
        sentences = [*numbers, *placed, *fast]
    else:
        sentences = [*placed, *fast, *numbers]
    spaced: list[Child] = [part for sentence in sentences for part in (sentence, " ")]
    return e(
        "div",
        e("p", mark, word, class_="status"),
        e("p", *spaced, class_="words"),
        class_=f"verdict {'good' if passed else 'failed'}",
    )


def problems(rows: tuple[Entry, ...]) -> Element | None:
    """A box for each row with something wrong, wrong numbers first; then what fell back and was timed; then remarks."""
    failed: dict[tuple[str, Failure], list[Entry]] = {}
    for one in rows:
        if one.row.failure is not None:
            failed.setdefault((kind(one), one.row.failure), []).append(one)
    remarks: dict[str, list[str]] = {}
    for one in rows:
        for note in one.row.notes:
            remarks.setdefault(note, []).append(one.label)
    found = [
        *(_failed(*which, failed[which]) for which in sorted(failed, key=lambda which: ORDER.index(which[0]))),
        *(
            _fell_back(one, one.row.placement)
            for one in rows
            if kind(one) == FELL_BACK and one.row.failure is None and one.row.placement
        ),
        *(
            _box("remark", "Note", foreign(listed(labels, 3), class_="name"), foreign(note))
            for note, labels in remarks.items()
        ),
    ]
    if not found:
        return None
    title = "What went wrong" if failed else "What must be known"
    return e("section", e("h2", title), *found, id="problems", class_="problems")


def kind(one: Entry) -> str:
    """What is wrong with it, in two words; empty where nothing is."""
    if one.wrong:
        return WRONG
    if one.row.fell_back:
        return FELL_BACK
    if one.row.failure is None:
        return ""
    return NOT_HERE if one.row.failure.exit_code == UnavailableError.exit_code else FAILED


def _speed(rows: tuple[Entry, ...]) -> list[Element]:
    first = first_timed(rows)
    if first is None or first.latency is None:
        means = [
            f"{one.label} takes {one.time(one.row.mean_ms)} for a call, as a mean." for one in rows if one.row.mean_ms
        ]
        return [e("span", means[0] if means else "Nothing was timed.")]
    base, takes = first.shown(), first.time(first.latency.p50)
    others = [one for one in rows if one is not first and one.sound and one.latency is not None and one.row.ratio]
    differing = [(one, one.row.ratio.ratio) for one in others if one.row.ratio is not None and one.row.ratio.differs]
    faster = [pair for pair in differing if 0 < pair[1] < 1]
    slower = [pair for pair in differing if pair[1] > 1]
    words: list[Child]
    if faster:
        best, ratio = min(faster, key=lambda pair: pair[1])
        times = f" ({digits(1 / ratio)} times as fast)" if ratio < 0.5 else ""
        words = [e("b", best.shown()), " takes ", e("b", _factor(ratio)), " of the time of ", base, f"{times}."]
    elif not others:
        words = [e("b", base), f" takes {takes} for a call, as a median."]
    elif len(slower) < len(others):
        whose = "No other" if all(one.sound for one in rows) else "No other that ran where it was asked to"
        words = [whose, " is faster than ", e("b", base), f" ({takes}) beyond the noise."]
    else:
        nearest, ratio = min(slower, key=lambda pair: pair[1])
        next_one: list[Child] = [nearest.shown(), " takes ", e("b", _factor(ratio)), " times as long"]
        alone = len(others) == 1
        words = (
            [*next_one, " as ", base, "."] if alone else [e("b", base), " is the fastest; the next, ", *next_one, "."]
        )
    return [e("span", *words)]


def _noise(profile: Profile, rows: tuple[Entry, ...]) -> list[str]:
    if first_timed(rows) is None:
        return []
    if profile.noise is None or not math.isfinite(profile.noise):
        return ["The noise of the machine was not measured."]
    return [f"The noise of the machine is a factor of {profile.noise:.2f}."]


def _placement(rows: tuple[Entry, ...]) -> list[str]:
    fell = [one.label for one in rows if kind(one) == FELL_BACK]
    missing = [one for one in rows if kind(one) in (NOT_HERE, FAILED)]
    words = []
    if fell:
        which = listed(fell) if len(fell) < 3 else f"{len(fell)} of {len(rows)}"
        words.append(f"{which} fell back, wholly or in part.")
    if missing:
        on = listed(dict.fromkeys(one.row.device for one in missing))
        words.append(f"{len(missing)} of {len(rows)} could not be run, on {on}.")
    ran = [one for one in rows if kind(one) in ("", WRONG)]
    silent = [one for one in ran if one.row.placement is None]
    if ran and not silent:
        words.append(
            "Everything ran where it was asked to."
            if len(ran) == len(rows)
            else "What else ran, ran where it was asked to."
        )
    elif ran:
        words.append(f"{len(silent)} of {len(rows)} {'does' if len(silent) == 1 else 'do'} not tell where it ran.")
    return words


def _numbers(rows: tuple[Entry, ...]) -> list[str]:
    wrong = [one for one in rows if one.wrong]
    compared = [
        one.row.agreement for one in rows if one.row.agreement is not None and one.row.agreement.equal is not None
    ]
    if wrong:
        return [f"The numbers of {listed(one.label for one in wrong)} are wrong."]
    if not compared:
        return []
    return [f"The numbers are those of {listed(dict.fromkeys(one.reference for one in compared))}."]


def _failed(title: str, failure: Failure, those: list[Entry]) -> Element:
    names = [part for one in those for part in (one.shown(), ", ")][:-1]
    hint = e("span", " ", foreign(failure.hint, class_="hint")) if failure.hint else None
    return _box("bad", title, e("span", *names), foreign(failure.message), hint)


def _fell_back(one: Entry, found: Placement) -> Element:
    told = [
        f"{fallback.count} {fallback.op} on {fallback.where}" + (f" ({fallback.reason})" if fallback.reason else "")
        for fallback in found.fallbacks
    ]
    ran = f"{share(found)} ran on the device." + (f" Elsewhere: {listed(told)}." if told else "")
    return _box("warn", kind(one), one.shown(), foreign(ran), " It was timed all the same.")


def _box(kind: str, title: str, of: Element, *children: Child) -> Element:
    return e("div", e("p", e("b", title, class_="what"), " ", of), e("p", *children), class_=f"problem {kind}")


def _factor(ratio: float) -> str:
    """Two digits behind the point are more than the noise leaves, but for ratios that are next to nothing."""
    return f"{ratio:.2f}" if 0.1 <= ratio < 10 else digits(ratio)
