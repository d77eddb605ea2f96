"""Rows timed in turn: who is called when, what the first row's control tells, and whose failure an error is."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mh_edge.errors import InputError, NotEqualError, UnavailableError
from mh_edge.openings import LEAST_NOISE, OPENINGS, differs, noise, typical
from mh_edge.profiling import measuring
from mh_edge.profiling.measuring import Job, Times, measure, stamp
from mh_edge.profiling.result import Agreement
from mh_edge.runtimes.apart import Apart, CrashError, Opened
from mh_edge.runtimes.placement import Fallback, OpTime, Placement
from mh_edge.signature import Signature

FILE = Path(__file__)
"""Any file that does not change."""

WHOLE = Placement(3, 3, 1, (), "a fake")
PARTLY = Placement(3, 2, 1, (Fallback("CumSum", 1, ("a/CumSum",), "CPU", "no such operation"),), "a fake")


class Fake(Apart):
    """A process that is none: what it does is in `plans`, what was asked of it in `log`."""

    log: list[tuple[str, str]]
    plans: dict[str, dict[str, object]]

    def __init__(self, device: str) -> None:
        self.device = device
        self.plan = self.plans.get(device, {})
        self.factor = float(np.exp(0.01 * len([one for one in self.log if one == (device, "start")])))
        self.did("start")

    def did(self, what: str) -> None:
        self.log.append((self.device, what))
        if isinstance(error := self.plan.get(what), Exception):
            raise error

    def load(self) -> str:
        self.did("load")
        return f"Fake {self.device}"

    def open(self, path: Path, **options: object) -> Opened:
        self.did("open")
        return Opened(Signature((), ()), {}, {}, "float32", (f"note of {self.device}",), 2.0)

    def prepare(self, feeds: Path) -> float:
        self.did("prepare")
        return 5.0

    def warm(self, seconds: float) -> tuple[float, bool]:
        self.did("warm")
        return self.ms, True

    def calls(self, count: int) -> list[float]:
        self.did("calls")
        return [self.ms * self.factor] * count

    @property
    def ms(self) -> float:
        return float(self.plan.get("ms", 1.0))  # type: ignore[arg-type]

    def placement(self) -> Placement:
        self.did("placement")
        return self.plan.get("where", WHOLE)  # type: ignore[return-value]

    def op_times(self, calls: int) -> tuple[OpTime, ...]:
        self.did("op_times")
        return (OpTime("a", "MatMul", "Fake", True, 0.5),)

    def memory(self) -> int | None:
        return 1000

    def close(self) -> None:
        self.did("close")


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> type[Fake]:
    monkeypatch.setattr(Fake, "log", [], raising=False)
    monkeypatch.setattr(Fake, "plans", {}, raising=False)
    monkeypatch.setattr(measuring, "Apart", Fake)
    return Fake


def job(
    device: str, *, equal: bool | None = True, again: bool = True, fallback: bool = False, ops: bool = False
) -> Job:
    first, later = (Agreement(right, "cpu", 0.5, 0.1, "y[0]", 1.0, 0.5) for right in (equal, again))
    return Job(
        device=device,
        artifact=FILE,
        threads=1,
        sizes={},
        settings={},
        feeds=Path("f.npz"),
        fallback=fallback,
        compare=lambda session, opened: first,
        again=lambda session, opened: later,
        stamp=stamp(FILE),
        ops=ops,
    )


def run(*jobs: Job, runs: int | None = 100) -> list[Times]:
    return measure(jobs, seconds=0.1, runs=runs, on_opening=lambda number: None)


def test_every_opening_is_a_new_process_and_the_first_row_runs_twice(fake: type[Fake]) -> None:
    first, second = run(job("a"), job("b"))
    started = [device for device, what in fake.log if what == "start"]
    assert sorted(started) == ["a"] * 2 * OPENINGS + ["b"] * OPENINGS
    assert len([1 for _, what in fake.log if what == "close"]) == len(started)
    assert len(first.ms) == len(first.control) == len(second.ms) == OPENINGS
    assert not second.control
    assert [len(calls) for calls in first.ms] == [100 // OPENINGS] * OPENINGS
    assert (first.runtime, first.notes) == ("Fake a", ("note of a",))
    assert len(first.load_ms) == len(first.first_ms) == len(first.memory) == OPENINGS


def test_rows_are_called_in_turn_in_changing_orders(fake: type[Fake]) -> None:
    run(job("a"), job("b"))
    calls = [device for device, what in fake.log if what == "calls"]
    turns = [tuple(calls[start : start + 3]) for start in range(0, len(calls), 3)]
    assert {tuple(sorted(turn)) for turn in turns} == {("a", "a", "b")}
    assert len(set(turns)) == 3


def test_seconds_are_as_many_calls_as_fit(fake: type[Fake]) -> None:
    fake.plans = {"slow": {"ms": 10.0}, "slower": {"ms": 1e5}}
    quick, slow, slower = run(job("quick"), job("slow"), job("slower"), runs=None)
    assert [len(one.ms[0]) for one in (quick, slow, slower)] == [100 // OPENINGS, 10 // OPENINGS, 1]


@pytest.mark.parametrize("when", ["load", "open", "prepare", "warm", "calls"])
def test_an_error_is_that_rows_and_the_others_go_on(fake: type[Fake], when: str) -> None:
    fake.plans = {"bad": {when: CrashError("the process was ended by SIGABRT")}}
    bad, good = run(job("bad"), job("good"))
    assert bad.failure is not None
    assert (bad.failure.exit_code, bad.failure.message) == (6, "the process was ended by SIGABRT")
    assert good.failure is None
    assert len(good.ms) == OPENINGS
    assert len([1 for one in fake.log if one == ("bad", "start")]) <= 2, "not tried in later openings"
    assert len(good.control) >= OPENINGS - 1, "another row is the control from then on"


def test_what_fell_back_is_not_timed(fake: type[Fake]) -> None:
    fake.plans = {"a": {"where": PARTLY}}
    (row,) = run(job("a"))
    assert row.failure is not None
    assert row.failure.exit_code == UnavailableError.exit_code
    assert "1 of its 3 nodes ran on CPU: CumSum (no such operation)" in row.failure.message
    assert row.placement == PARTLY
    assert ("a", "calls") not in fake.log


def test_what_fell_back_is_timed_where_that_is_allowed(fake: type[Fake]) -> None:
    fake.plans = {"a": {"where": PARTLY}}
    (row,) = run(job("a", fallback=True))
    assert row.failure is None
    assert len(row.ms) == OPENINGS
    assert row.ops, "the share of time needs them"


def test_wrong_numbers_are_not_timed(fake: type[Fake]) -> None:
    wrong, right = run(job("wrong", equal=False), job("right"))
    assert wrong.failure is not None
    assert wrong.failure.exit_code == NotEqualError.exit_code
    assert "y[0] is 0.5, expected 1 as 'cpu' gives it" in wrong.failure.message
    assert wrong.agreement is not None
    assert ("wrong", "calls") not in fake.log
    assert right.failure is None


def test_numbers_that_become_wrong_in_the_calls_that_are_timed(fake: type[Fake]) -> None:
    wrong, right = run(job("wrong", again=False), job("right"))
    assert wrong.failure is not None
    assert wrong.failure.exit_code == NotEqualError.exit_code
    assert wrong.agreement is not None
    assert wrong.agreement.equal is False
    assert right.failure is None


def test_a_file_that_changes_meanwhile_is_no_file_that_was_measured(fake: type[Fake], tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"one")
    changing = replace(job("a"), artifact=path, stamp=stamp(path))

    def write(number: int) -> None:
        if number == 3:
            path.write_bytes(b"another")

    row, other = measure([changing, job("b")], seconds=0.1, runs=100, on_opening=write)
    assert row.failure is not None
    assert "was changed while it was measured" in row.failure.message
    assert other.failure is None


def test_calls_are_spread_over_the_openings(fake: type[Fake]) -> None:
    (row,) = run(job("a"), runs=7)
    assert [len(calls) for calls in row.ms] == [1, 1, 2, 1, 2]


def test_a_call_longer_than_the_warm_up_is_not_said_to_be_unsteady(
    fake: type[Fake], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Fake, "warm", lambda self, seconds: (1e3, None))
    assert run(job("a"))[0].steady is None
    monkeypatch.setattr(Fake, "warm", lambda self, seconds: (1e3, False))
    assert run(job("a"))[0].steady is False


def test_only_errors_meant_for_users_are_a_rows(fake: type[Fake]) -> None:
    fake.plans = {"a": {"open": KeyError("a fault")}}
    with pytest.raises(KeyError):
        run(job("a"))
    fake.plans = {"a": {"open": InputError("damaged")}}
    assert run(job("a"))[0].failure is not None


def test_operations_are_timed_once_and_only_when_asked(fake: type[Fake]) -> None:
    run(job("a"), job("b", ops=True))
    assert [device for device, what in fake.log if what == "op_times"] == ["b"]


def test_typical_is_the_geometric_mean_with_students_interval() -> None:
    middle, (low, high) = typical([1.0, 2.0, 4.0, 2.0, 1.0])
    logs = np.log([1.0, 2.0, 4.0, 2.0, 1.0])
    assert middle == pytest.approx(math.exp(logs.mean()))
    assert math.log(high / middle) == pytest.approx(2.776 * logs.std(ddof=1) * math.sqrt(2 / 5))
    assert low * high == pytest.approx(middle**2)


def test_noise_is_the_largest_factor_either_way() -> None:
    assert noise([1.0, 1.0], [1.1, 0.8]) == pytest.approx(1.25)
    assert noise([1.0, 1.0], [1.0, 1.001]) == LEAST_NOISE
    assert [differs(interval, 1.1) for interval in ((1.05, 1.2), (1.11, 1.2), (0.5, 0.9), (0.5, 0.95))] == [
        False,
        True,
        True,
        False,
    ]
