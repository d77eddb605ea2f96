"""What each gate lets through, and the sentence for what it does not."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from mh_edge.errors import InputError, UsageError
from mh_edge.quantization.judging.gate import Gate
from mh_edge.quantization.judging.verdict import Change, Verdict


def verdict(*, agreement: float | None = None, sqnr: float = 40.0, not_finite: int = 0, **figures: object) -> Verdict:
    changes = {
        "best": Change(90.0, 0.0, 0.0, 1.0, None if agreement is None else 1.0),
        "worst": Change(sqnr, 0.01, 0.1, 0.99, agreement, not_finite),
    }
    return Verdict("a table, 4000 samples", 4000, changes, **figures)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "kind", "limit"),
    [("1%", "points", 1.0), ("0.5%", "points", 0.5), ("0%", "points", 0.0), (" 2 % ", "points", 2.0),
     ("30dB", "db", 30.0), ("12.5 db", "db", 12.5), ("-3dB", "db", -3.0)],
)  # fmt: skip
def test_gates_are_read(text: str, kind: str, limit: float) -> None:
    gate = Gate.parse(text)
    assert gate == Gate(kind, limit)
    assert Gate.parse(str(gate)) == Gate.from_json(gate.to_json()) == gate


@pytest.mark.parametrize("text", ["1%,30dB", "30 db , 1%"])
def test_gates_of_both_kinds(text: str) -> None:
    gate = Gate.parse(text)
    assert gate == Gate("points", 1.0, 30.0)
    assert str(gate) == "1%,30dB"
    assert gate.to_json() == {"kind": "points", "limit": 1.0, "least_db": 30.0}
    assert Gate.from_json(gate.to_json()) == Gate.parse(str(gate)) == gate
    good = verdict(agreement=0.995, sqnr=30.0)
    lossy, noisy = verdict(agreement=0.98, sqnr=30.0), verdict(agreement=0.995, sqnr=29.0)
    assert gate.judge(good) is None
    assert "fell by 2.00 points" in str(gate.judge(lossy))
    assert "dB" not in str(gate.judge(lossy))
    assert gate.judge(noisy) == "the SQNR of 'worst' is 29.00 dB on 4000 samples; the gate asks for 30"
    both = str(gate.judge(verdict(agreement=0.98, sqnr=29.0)))
    assert "the gate allows 1; the SQNR of 'worst' is 29.00 dB" in both


def test_what_a_gate_of_points_does_not_see() -> None:
    mixed = verdict(agreement=0.995)
    numbers = {"cost": Change(10.0, 0.3, 1.0, 0.9, columns=(1, 1, 1))}
    mixed = replace(mixed, outputs={**mixed.outputs, **numbers})
    (note,) = Gate.parse("1%").notes(mixed)
    assert note.startswith("The gate 1% says nothing of 'cost', which are not known to be classes")
    assert '"1%,30dB"' in note
    assert Gate.parse("1%,30dB").notes(mixed) == Gate.parse("30dB").notes(mixed) == ()
    assert Gate.parse("1%,30dB").judge(mixed) == (
        "the SQNR of column 1 of 'cost' is 10.00 dB on 4000 samples; the gate asks for 30"
    )
    labelled = {"kind": Change(40.0, 0.0, 0.0, 1.0, 1.0, accuracy_float=1.0, accuracy=1.0)}
    found = replace(mixed, outputs={**mixed.outputs, **labelled}, metric="accuracy", accuracy_float=1.0, accuracy=1.0)
    (note,) = Gate.parse("1%").notes(found)
    assert "says nothing of 'best', 'worst', 'cost', which came without labels" in note
    assert Gate.parse("1%").notes(replace(found, metric="own:metric")) == ()


def test_a_set_that_is_too_small_for_the_limit() -> None:
    for samples, limit, small in ((3, "1%", True), (99, "1%", True), (100, "1%", False), (3, "34%", False)):
        found = replace(verdict(agreement=1.0), samples=samples)
        assert bool(Gate.parse(limit).notes(found)) is small
    (note,) = Gate.parse("1%").notes(replace(verdict(agreement=1.0), samples=3))
    assert "One of 3 samples weighs 33 points" in note
    assert "it takes 100 samples" in note
    assert Gate.parse("0%").notes(replace(verdict(agreement=1.0), samples=3)) == ()


def test_points_of_a_metric_that_is_no_share() -> None:
    found = verdict(metric="own:error", accuracy_float=-0.5, accuracy=-0.6, share=False)
    with pytest.raises(UsageError, match=r"own:error gives numbers outside 0 to 1 \(mean -0\.5 .*-0\.6") as caught:
        Gate.parse("50%").judge(found)
    assert "1 - min(e / worst, 1)" in caught.value.hint
    assert Gate.parse("40dB").judge(found) is None


@pytest.mark.parametrize(
    ("text", "said"),
    [("1", "has no unit"), ("-1%", "is no share"), ("101%", "is no share"), ("nan%", "is no finite"),
     ("infdB", "is no finite"), ("%", "is no number"), ("", "is no number"), ("one%", "is no number"),
     ("1%%", "is no number"), ("30 dBm", "is no number"), ("1%,2%", "two limits"), ("1%,30dB,2%", "two limits")],
)  # fmt: skip
def test_gates_that_are_none(text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said) as caught:
        Gate.parse(text)
    assert repr(text) in caught.value.message
    assert '"1%"' in caught.value.hint
    assert '"30dB"' in caught.value.hint


@pytest.mark.parametrize(
    "data",
    [{}, {"kind": "dB", "limit": 3}, {"kind": "db", "limit": "3"}, {"kind": "db", "limit": 3.0, "least_db": 3.0}],
)
def test_a_damaged_gate_of_a_manifest(data: dict[str, object]) -> None:
    with pytest.raises(InputError, match="is no gate"):
        Gate.from_json(data)


def test_points_of_accuracy() -> None:
    found = verdict(metric="accuracy", accuracy_float=0.935, accuracy=0.9225, agreement=0.5)
    assert Gate.parse("1.25%").judge(found) is None
    rounded = verdict(metric="accuracy", accuracy_float=0.901, accuracy=0.891)
    assert Gate.parse("1%").judge(rounded) is None  # 90.1 − 89.1 is a little more than 1 in floats
    assert Gate.parse("1%").judge(found) == (
        "accuracy fell by 1.25 points, from 93.50 % to 92.25 % on 4000 samples; the gate allows 1"
    )
    better = verdict(metric="accuracy", accuracy_float=0.90, accuracy=0.91)
    assert Gate.parse("0%").judge(better) is None


def test_a_drop_beside_the_limit_is_shown_apart_from_it() -> None:
    found = verdict(metric="accuracy", accuracy_float=0.935, accuracy=0.92496)
    assert "fell by 1.004 points" in str(Gate.parse("1%").judge(found))
    assert "is 29.998 dB" in str(Gate.parse("30dB").judge(verdict(sqnr=29.998)))


def test_points_of_agreement_without_labels() -> None:
    found = verdict(agreement=0.985)
    assert Gate.parse("1.5%").judge(found) is None
    assert Gate.parse("1%").judge(found) == (
        "top-1 agreement with the float model fell by 1.50 points, from 100.00 % to 98.50 % on 4000 samples; "
        "the gate allows 1"
    )


def test_decibels() -> None:
    found = verdict(sqnr=29.5, metric="accuracy", accuracy_float=0.9, accuracy=0.1)
    assert Gate.parse("29.5dB").judge(found) is None
    assert Gate.parse("30dB").judge(found) == ("the SQNR of 'worst' is 29.50 dB on 4000 samples; the gate asks for 30")
    assert Gate.parse("30dB").judge(verdict(sqnr=math.inf)) is None
    assert Gate.parse("30dB").judge(verdict(sqnr=-math.inf)) is not None


def test_points_of_what_is_no_class() -> None:
    with pytest.raises(UsageError, match=r"1% asks for points .* \(best, worst\) decides between classes") as caught:
        Gate.parse("1%").judge(verdict())
    assert all(way in caught.value.hint for way in ("labels", "--classes", "30dB", "--metric"))


@pytest.mark.parametrize("text", ["100%", "-90dB"])
def test_what_is_not_finite_passes_no_gate(text: str) -> None:
    found = verdict(metric="accuracy", accuracy_float=0.9, accuracy=0.9, not_finite=3)
    assert Gate.parse(text).judge(found) == "3 of the numbers of 'worst' became NaN or infinite"
