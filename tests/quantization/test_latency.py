"""Times by a clock that only the calls move; on real files only what does not depend on their speed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mh_edge.errors import InputError
from mh_edge.machine import SQUARE_ONNX, SQUARE_TFLITE
from mh_edge.quantization.judging import latency
from mh_edge.quantization.judging.latency import LEAST_NOISE, Latency, compare_latency
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


def test_ratios_of_known_times(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    costs = {"float": 1e-3, "control": 1e-3, "slow": 2e-3, "quick": 1e-5}
    times = latency._times([clock.call(name, seconds) for name, seconds in costs.items()], seconds=1.0)
    np.testing.assert_allclose(times, np.tile(list(costs.values()), (len(times), 1)))
    ratios, low, high = latency._ratios(times)
    np.testing.assert_allclose(ratios, [1, 1, 2, 0.01])
    np.testing.assert_allclose([low, high], [ratios, ratios])
    assert latency.ROUNDS[0] < len(times) < latency.ROUNDS[1]
    assert clock.now == pytest.approx(1.0, abs=0.3)


def test_each_round_has_an_order_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    times = latency._times([clock.call(name, 1e-3) for name in "abc"], seconds=0.5)
    rounds = [tuple(clock.order[-6 * (turn + 1) :][:6:2]) for turn in range(len(times))]
    assert {tuple(sorted(one)) for one in rounds} == {("a", "b", "c")}
    assert len(set(rounds)) == 6


def test_slow_calls_get_the_least_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    assert len(latency._times([clock.call("a", 3.0), clock.call("b", 3.0)], seconds=1.0)) == latency.ROUNDS[0]


def test_disturbed_rounds_widen_the_interval_and_move_the_ratio_little(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    calls = [clock.call("float", 1e-3, jitter=0.5), clock.call("other", 1.3e-3, jitter=0.5)]
    ratios, low, high = latency._ratios(latency._times(calls, seconds=1.0))
    assert low[1] < ratios[1] < high[1]
    assert ratios[1] == pytest.approx(1.3, rel=0.1)


FOUND = Latency(1.3, (1.2, 1.4), (2.0, 2.6), noise=1.05, batch=8, threads=1, rounds=50)


def test_a_difference_inside_the_noise_is_none() -> None:
    assert (FOUND.slower, FOUND.faster) == (True, False)
    assert FOUND.sentence == (
        "It is SLOWER than the float model here, 1.30 times its time (95 %: 1.20 to 1.40; noise up to a factor of "
        "1.05): 2.6 ms against 2 ms a call at batch 8, 1 thread."
    )
    noisy = replace(FOUND, noise=1.25)
    assert (noisy.slower, noisy.faster) == (False, False)
    assert "as long as the float model within the noise" in noisy.sentence
    quick = replace(FOUND, ratio=0.7, interval=(0.6, 0.9), threads=None)
    assert (quick.slower, quick.faster) == (False, True)
    assert "is faster than the float model here, 0.70 of its time" in quick.sentence
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
