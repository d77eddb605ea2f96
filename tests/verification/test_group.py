"""Running feeds through a reference and candidates, with a reference and a runtime that are made up."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest

from mh_edge.matching import match
from mh_edge.runtimes.base import Session
from mh_edge.runtimes.placement import Placement
from mh_edge.signature import Signature, Tensor
from mh_edge.verification.feeds import build, grid
from mh_edge.verification.group import RESAMPLES, Group
from mh_edge.verification.reference import FLOAT64, Arrays, Expected
from mh_edge.verification.report import Candidate
from mh_edge.verification.trial import Trial

SIGNATURE = Signature((Tensor("x", "float32", (1, 4)),), (Tensor("y", "float32", (1, 4)),))
Function = Callable[[np.ndarray], np.ndarray]


class Fake(Session):
    """y = function(x)."""

    runtime = "a fake"

    def __init__(self, path: Path, function: Function) -> None:
        self.calls: list[np.ndarray] = []
        self._function = function
        super().__init__(path)

    @classmethod
    def load(cls) -> str:
        return "1"

    def placement(self) -> Placement:
        return Placement(1, 1, 1, (), "a fake")

    def _open(self) -> Signature:
        return SIGNATURE

    def _run(self, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
        self.calls.append(feeds["x"])
        return [self._function(feeds["x"]).astype("float32")]

    def close(self) -> None:
        pass


class Lucky:
    """y = x, without an error on the grid itself, and with one of 1e-5 everywhere else."""

    signature = SIGNATURE
    yardstick = FLOAT64

    def __init__(self) -> None:
        self.exact = {build(SIGNATURE, spec).arrays["x"].tobytes() for spec in grid(SIGNATURE, 0)}

    def prepare(self, feeds: Arrays) -> None:
        pass

    def expected(self, feeds: Arrays) -> Expected:
        return Expected(self.plain(feeds), {"y": feeds["x"].astype("float64")})

    def eager(self, feeds: Arrays) -> Expected:
        return self.expected(feeds)

    def plain(self, feeds: Arrays) -> Mapping[str, np.ndarray]:
        lucky = feeds["x"].tobytes() in self.exact
        return {"y": feeds["x"] if lucky else feeds["x"] * np.float32(1 + 1e-5)}

    def orders(self, feeds: Arrays) -> Iterator[Arrays]:
        return iter(())


@pytest.fixture
def compare(tmp_path: Path) -> Callable[[Function], tuple[Candidate, Fake]]:
    def run(function: Function) -> tuple[Candidate, Fake]:
        path = tmp_path / "fake.onnx"
        path.write_bytes(b"fake")
        session, reference = Fake(path, function), Lucky()
        trial = Trial(str(path), session, match(SIGNATURE, SIGNATURE, str(path)), reference, SIGNATURE, None)
        verdicts = Group(reference, SIGNATURE, None, "lucky", 0).compare([trial], None, None)
        return verdicts[str(path)], session

    return run


def test_a_reference_that_is_exact_by_chance_is_sampled_again(
    compare: Callable[[Function], tuple[Candidate, Fake]], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert RESAMPLES > 0
    verdict, _ = compare(lambda x: x * np.float32(1 + 2e-5))
    assert verdict.passed, verdict.reasons
    wrong, _ = compare(lambda x: x * np.float32(1 + 1e-3))
    assert not wrong.passed
    monkeypatch.setattr("mh_edge.verification.group.RESAMPLES", 0)
    unlucky, _ = compare(lambda x: x * np.float32(1 + 2e-5))
    assert not unlucky.passed


def test_every_feed_runs_twice_with_another_between(compare: Callable[[Function], tuple[Candidate, Fake]]) -> None:
    verdict, session = compare(lambda x: x)
    runs = [call.tobytes() for call in session.calls]
    assert len(runs) == 2 * verdict.feeds
    assert all(runs.count(run) == 2 for run in runs)
    assert runs != sorted(runs, key=runs.index)  # not each feed twice in a row
    between = [len(runs) - 1 - runs[::-1].index(run) - runs.index(run) for run in dict.fromkeys(runs)]
    assert sum(distance > 1 for distance in between) >= len(between) - 1


def test_a_runtime_that_remembers_is_caught(compare: Callable[[Function], tuple[Candidate, Fake]]) -> None:
    last = [np.zeros((1, 4), "float32")]

    def remembers(x: np.ndarray) -> np.ndarray:
        y = x + 1e-4 * last[0]
        last[0] = x
        return y

    verdict, _ = compare(remembers)
    assert not verdict.passed
    assert "keeps state between calls: output 'y' differs by" in verdict.reasons[0]


def test_a_wrong_shape_is_a_failure(compare: Callable[[Function], tuple[Candidate, Fake]]) -> None:
    verdict, _ = compare(lambda x: x[:, :3])
    assert not verdict.passed
    assert "has the shape (1, 3) instead of (1, 4)" in verdict.reasons[0]
