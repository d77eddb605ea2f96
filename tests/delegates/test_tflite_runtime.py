"""tflite-runtime, in an environment of its own with numpy 1; ai-edge-litert is there too, to compare with."""

from __future__ import annotations

from pathlib import Path

import devices
import numpy as np
import pytest

import tflite_files
from mh_edge.errors import InputError
from mh_edge.runtimes.lite.session import LiteSession
from mh_edge.runtimes.tflite_runtime import TfliteRuntimeSession
from mh_edge.runtimes.xnnpack import XnnpackSession


def error(session: TfliteRuntimeSession) -> float:
    """Largest difference from LiteRT, as a share of the largest number."""
    feeds = tflite_files.feeds(session)
    with XnnpackSession(session.path) as cpu:
        expected, got = cpu.run(feeds)["y"], session.run(feeds)["y"]
    return float(np.abs(got - expected).max() / np.abs(expected).max())


def test_it_works_here() -> None:
    code, found = devices.device("tflite-runtime")
    assert (code, found["available"], found["reason"]) == (0, True, "")


@pytest.mark.parametrize(
    "make", [tflite_files.dense, tflite_files.masked, tflite_files.broken, tflite_files.loop, tflite_files.running_sum]
)
def test_it_runs_all_of_a_file(make: tflite_files.Make, tmp_path: Path) -> None:
    with TfliteRuntimeSession(make(tmp_path / "file.tflite")) as session:
        assert error(session) <= 1e-5
        assert session.placement().whole
        assert session.op_times(tflite_files.feeds(session), 1) == ()


def test_the_proof_tells_what_xnnpack_took(tmp_path: Path) -> None:
    with TfliteRuntimeSession(tflite_files.masked(tmp_path / "masked.tflite")) as session:
        session.run(tflite_files.feeds(session))
        assert session.placement().proof.endswith("of which XNNPACK took 2 in 1 parts")


def test_newer_operations_are_refused_with_what_would_help(tmp_path: Path) -> None:
    path = tflite_files.weights_in_int8(tmp_path / "new.tflite", version=12)
    with pytest.raises(
        InputError, match=r"newer than tflite-runtime: .*'FULLY_CONNECTED' version '12'\. Run it in ai-edge"
    ):
        TfliteRuntimeSession(path)


def test_weights_with_a_scale_for_each_channel_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tflite_files.weights_in_int8(tmp_path / "int8.tflite")
    with pytest.raises(InputError, match=r"wrong numbers from .*FULLY_CONNECTED 'y' \(1 in all\) .* they have 8\."):
        TfliteRuntimeSession(path)
    monkeypatch.setattr(TfliteRuntimeSession, "_open", LiteSession._open)
    with TfliteRuntimeSession(path) as session:
        assert error(session) > 0.5  # once it is right, there is nothing to refuse


def test_it_is_profiled(tmp_path: Path) -> None:
    path = tflite_files.masked(tmp_path / "masked.tflite")
    code, answer = devices.program("profile", path, "--device", "tflite-runtime", "--seconds", "1")
    (row,) = answer["results"]
    assert (code, row["equal"], row["fell_back"]) == (0, True, False)
    assert row["latency_ms"]["p50"] > 0
