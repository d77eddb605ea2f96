"""Times by a clock that only the calls move; on real files only what does not depend on their speed."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from mh_edge.errors import InputError
from mh_edge.machine import SQUARE_ONNX, SQUARE_TFLITE
from mh_edge.openings import LEAST_NOISE, OPENINGS
from mh_edge.quantization.judging import latency
from mh_edge.quantization.judging.latency import Latency, compare_latency
from mh_edge.runtimes import open_session
from mh_edge.runtimes.cpu import CpuSession
from quantization.tables import Table


class Clock:
    """Seconds that pass only where a call spends them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        self.order: list[str] = []
        monkeypatch.setattr(latency.time, "perf_counter", lambda: self.now)

    def call(self, name: str, seconds: float, *, jitter: float = 0.0) -> latency.Call:
        rng = np.random.default_rng(len(name))

        def spend() -> None:
            self.now += seconds * (1 + jitter * rng.random())
            self.order.append(name)

        return spend


def order() -> random.Random:
    return random.Random(0)  # noqa: S311 - an order, no secret


def test_rounds_of_known_times(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    costs = {"float": 1e-3, "control": 1e-3, "slow": 2e-3, "quick": 1e-5}
    calls = [clock.call(name, seconds) for name, seconds in costs.items()]
    times = latency._times(calls, seconds=1.0, order=order())
    np.testing.assert_allclose(times, np.tile(list(costs.values()), (len(times), 1)))
    assert latency.ROUNDS[0] < len(times) <= latency.ROUNDS[1]
    assert 0.3 < clock.now < 1.3


def test_each_round_has_an_order_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    times = latency._times([clock.call(name, 1e-3) for name in "abc"], seconds=0.5, order=order())
    rounds = [tuple(clock.order[-6 * (turn + 1) :][:6:2]) for turn in range(len(times))]
    assert {tuple(sorted(one)) for one in rounds} == {("a", "b", "c")}
    assert len(set(rounds)) == 6


def test_slow_calls_get_the_least_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    calls = [clock.call("a", 3.0), clock.call("b", 3.0)]
    assert len(latency._times(calls, seconds=1.0, order=order())) == latency.ROUNDS[0]


def test_the_ratio_and_the_interval_are_those_of_the_blocks() -> None:
    base, own = np.full(5, 2e-3), 1e-3 * np.exp([-0.02, -0.01, 0.0, 0.01, 0.02])
    found = latency._latency(base, own, 1.02, batch=1, threads=1, rounds=50)
    assert found.ratio == pytest.approx(0.5)
    assert found.ms == (pytest.approx(2.0), pytest.approx(1.0))
    # The standard deviation of the logarithms is sqrt(0.001 / 4); two runs of five differ by sqrt(2 / 5) of it.
    apart = math.exp(2.776 * math.sqrt(0.001 / 4 * 2 / 5))
    assert found.interval == (pytest.approx(0.5 / apart), pytest.approx(0.5 * apart))


class Placed(Table):
    """A call takes `seconds`, times a factor that stays as long as the session is open."""

    def __init__(self, clock: Clock, seconds: float, factor: float) -> None:
        super().__init__({"y": np.zeros((4, 1))})
        self.clock, self.seconds = clock, seconds * factor

    def _run(self, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
        self.clock.now += self.seconds
        return super()._run(feeds)


def runs(monkeypatch: pytest.MonkeyPatch, ratio: float, *, placement: float, count: int = 40) -> list[Latency]:
    """So many runs, in which where a session lies moves its time by a factor of deviation `placement`."""
    clock, rng = Clock(monkeypatch), np.random.default_rng(0)

    def opened(path: Path, threads: int | None) -> Placed:
        seconds = ratio * 5e-3 if path.name == "q.onnx" else 5e-3
        return Placed(clock, seconds, math.exp(placement * rng.standard_normal()))

    monkeypatch.setattr(latency, "open_session", opened)
    files = Path("float.onnx"), {"q": Path("q.onnx")}
    return [compare_latency(*files, {"i": np.arange(1)}, seconds=0.2)["q"] for _ in range(count)]


def test_where_memory_lies_is_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    same = runs(monkeypatch, 1.0, placement=0.03)
    assert not any(one.faster or one.slower for one in same)
    covered = [one.interval[0] <= other.ratio <= one.interval[1] for one, other in pairwise(same)]
    assert np.mean(covered) > 0.85  # of another run, 95 % is what is asked for
    assert np.median([one.noise for one in same]) > 1.05  # the greatest of five, each of deviation 0.03 sqrt(2)


def test_a_difference_is_found_in_every_run(monkeypatch: pytest.MonkeyPatch) -> None:
    assert all(one.faster for one in runs(monkeypatch, 0.6, placement=0.03))
    assert all(one.slower for one in runs(monkeypatch, 1.6, placement=0.03))
    assert all(one.faster and one.noise == LEAST_NOISE for one in runs(monkeypatch, 0.9, placement=0.0, count=2))


def test_every_block_opens_the_files_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    closed: list[str] = []

    class Counted(Table):
        def close(self) -> None:
            closed.append("")

    def open_one(path: Path, threads: int | None) -> Counted:
        opened.append(path.stem)
        return Counted({"y": np.zeros((4, 1))})

    monkeypatch.setattr(latency, "open_session", open_one)
    compare_latency(Path("float.onnx"), {"q": Path("q.onnx")}, {"i": np.arange(1)}, seconds=0.01)
    blocks = [tuple(opened[start : start + 3]) for start in range(0, len(opened), 3)]
    assert len(blocks) == OPENINGS >= 5
    assert {tuple(sorted(block)) for block in blocks} == {("float", "float", "q")}
    assert len(set(blocks)) > 1, "not always in the same order"
    assert len(closed) == len(opened)


FOUND = Latency(1.3, (1.2, 1.4), (2.0, 2.6), noise=1.05, batch=8, threads=1, rounds=50)


def test_a_difference_inside_the_noise_is_none() -> None:
    assert (FOUND.slower, FOUND.faster) == (True, False)
    assert FOUND.sentence == (
        "In this run it was SLOWER than the float model, 1.30 times its time (95 %: 1.20 to 1.40 over 5 openings of "
        "the files; noise up to a factor of 1.05): 2.6 ms against 2 ms a call at batch 8, 1 thread."
    )
    noisy = replace(FOUND, noise=1.25)
    assert (noisy.slower, noisy.faster) == (False, False)
    assert "In this run it took as long as the float model within the noise" in noisy.sentence
    quick = replace(FOUND, ratio=0.7, interval=(0.6, 0.9), threads=None)
    assert (quick.slower, quick.faster) == (False, True)
    assert "In this run it was faster than the float model, 0.70 of its time" in quick.sentence
    assert replace(quick, noise=1.12).faster is False


@pytest.mark.parametrize("suffix", ["onnx", "tflite"])
def test_real_files(tmp_path: Path, suffix: str) -> None:
    paths = [tmp_path / f"{name}.{suffix}" for name in ("float", "a", "b")]
    for path in paths:
        path.write_bytes({"onnx": SQUARE_ONNX, "tflite": SQUARE_TFLITE}[suffix])
    found = compare_latency(
        paths[0], {"a": paths[1], "b": paths[2]}, {"x": np.ones(2, "float32")}, batch=4, seconds=0.05
    )
    assert found.keys() == {"a", "b"}
    for one in found.values():
        assert one.batch == 2  # the files fix it
        assert one.interval[0] <= one.ratio <= one.interval[1]
        assert one.ratio == pytest.approx(one.ms[1] / one.ms[0])
        assert one.noise >= LEAST_NOISE


@pytest.mark.parametrize(
    ("batches", "asked", "taken"), [(("n", "n"), 1, 1), (("n", "n"), 5, 5), (("n", 2), 1, 2), ((2, "n"), 1, 2)]
)
def test_samples_a_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batches: tuple[int | str, ...], asked: int, taken: int
) -> None:
    tables = {
        name: Table({"y": np.zeros((4, 1))}, batch=batch)
        for name, batch in zip(("a.onnx", "b.onnx"), batches, strict=True)
    }
    monkeypatch.setattr(latency, "open_session", lambda path, threads: tables[path.name])
    feeds = {"i": np.arange(3)}  # fewer than are asked for begin again
    found = compare_latency(tmp_path / "a.onnx", {"q": tmp_path / "b.onnx"}, feeds, batch=asked, seconds=0.01)
    assert found["q"].batch == taken
    assert {*tables["a.onnx"].calls, *tables["b.onnx"].calls} == {taken}


def test_threads_are_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "square.onnx"
    path.write_bytes(SQUARE_ONNX)
    for threads in (None, 1, 3):
        with open_session(path, threads=threads) as session:
            assert isinstance(session, CpuSession)
            assert session._session.get_session_options().intra_op_num_threads == (threads or 0)


def test_files_of_different_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tables = {"one.onnx": 1, "two.onnx": 2}
    monkeypatch.setattr(
        latency, "open_session", lambda path, threads: Table({"y": np.zeros((4, 1))}, batch=tables[path.name])
    )
    with pytest.raises(InputError, match="the files take 1, 2 samples a call"):
        compare_latency(tmp_path / "one.onnx", {"q": tmp_path / "two.onnx"}, {"i": np.arange(2)})
