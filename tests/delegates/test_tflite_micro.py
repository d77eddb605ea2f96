"""TFLite Micro, on this computer."""

from __future__ import annotations

from pathlib import Path

import devices
import numpy as np
import pytest

import tflite_files
from mh_edge.errors import InputError
from mh_edge.runtimes.tflite_micro import MicroSession
from mh_edge.runtimes.xnnpack import XnnpackSession


def test_it_works_here() -> None:
    code, found = devices.device("tflite-micro")
    assert (code, found["available"], found["reason"]) == (0, True, "")


@pytest.mark.parametrize("make", [tflite_files.dense, tflite_files.masked, tflite_files.loop])
def test_it_runs_all_of_a_file(make: tflite_files.Make, tmp_path: Path) -> None:
    path = make(tmp_path / "file.tflite")
    with MicroSession(path) as session, XnnpackSession(path) as cpu:
        feeds = tflite_files.feeds(session)
        np.testing.assert_allclose(session.run(feeds)["y"], cpu.run(feeds)["y"], atol=1e-5)
        assert session.placement().whole
        assert session.arena_bytes < 20_000


def test_what_it_has_not_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="TFLite Micro has no operation REDUCE_ANY"):
        MicroSession(tflite_files.broken(tmp_path / "broken.tflite"))
    with pytest.raises(InputError, match=r"needs fixed sizes, and the input 'x' has the free shape \(x_dim_0, 16\)"):
        MicroSession(tflite_files.dense(tmp_path / "free.tflite", batch=-1))


def test_it_is_profiled_beside_litert(tmp_path: Path) -> None:
    path = tflite_files.dense(tmp_path / "dense.tflite")
    code, answer = devices.program("profile", path, "--device", "xnnpack", "--device", "tflite-micro", "--seconds", "1")
    assert code == 0
    assert [(row["device"], row["equal"], row["fell_back"]) for row in answer["results"]][1] == (
        "tflite-micro",
        True,
        False,
    )
    assert all(row["latency_ms"]["p50"] > 0 for row in answer["results"])
