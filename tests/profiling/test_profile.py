"""`profile` on real runtimes: what a row holds, what is refused, and what the first row is to the others."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import mh_edge
from mh_edge.errors import InputError, UsageError
from mh_edge.jsontext import dumps
from mh_edge.machine import SQUARE_ONNX, SQUARE_TFLITE
from mh_edge.profiling import Profile, measuring, profiling
from mh_edge.profiling.result import QUANTILES

QUICK = {"seconds": 0.01}


@pytest.fixture(autouse=True)
def two_openings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two are as good as five where no time is judged."""
    monkeypatch.setattr(measuring, "OPENINGS", 2)
    monkeypatch.setattr(profiling, "OPENINGS", 2)


@pytest.fixture(scope="module")
def squares(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("squares")
    onnx, tflite = folder / "square.onnx", folder / "square.tflite"
    onnx.write_bytes(SQUARE_ONNX)
    tflite.write_bytes(SQUARE_TFLITE)
    return onnx, tflite


def test_a_row_for_every_file_on_every_device_that_takes_it(squares: tuple[Path, Path]) -> None:
    found = mh_edge.profile(squares, ["xnnpack", "cpu", "litert-builtin"], ops=True, **QUICK)
    assert isinstance(found, Profile)
    assert [(Path(row.artifact).suffix, row.device) for row in found.rows] == [
        (".onnx", "cpu"),
        (".tflite", "xnnpack"),
        (".tflite", "litert-builtin"),
    ]
    assert (found.passed, found.exit_code) == (True, 0)
    assert found.noise is not None
    assert found.noise >= 1.02
    first, *others = found.rows
    assert first.ratio is not None
    assert (first.ratio.ratio, first.ratio.differs) == (1.0, False)
    for row in found.rows:
        assert row.latency is not None
        assert row.latency.p50 <= (row.latency.p90 or row.latency.p50)
        assert len(row.latency.quantiles) == QUANTILES
        assert row.latency.calls >= 2
        assert row.agreement is not None
        assert (row.agreement.equal, row.agreement.error, row.agreement.feeds) == (True, 0.0, 3)
        assert row.placement is not None
        assert row.placement.whole
        assert row.time_share == 1.0
        assert row.load_ms is not None
        assert row.first_ms is not None
        assert row.memory is not None
        assert row.bytes == Path(row.artifact).stat().st_size
        assert (row.batch, row.failure) == (2, None)
        assert row.throughput == pytest.approx(2e3 / row.latency.p50)
    for row in others:
        assert row.ratio is not None
        low, high = row.ratio.interval
        assert low <= row.ratio.ratio <= high
    assert [one.op for one in first.ops] == ["Mul"]


def test_the_object_of_json(squares: tuple[Path, Path]) -> None:
    found = json.loads(dumps(mh_edge.profile(squares[:1], **QUICK).to_json()))
    assert found.keys() >= {"noise", "results", "passed", "machine", "sizes", "threads", "feeds", "openings"}
    (row,) = found["results"]
    assert row["latency_ms"].keys() == {"p50", "p90", "p99"}
    assert row.keys() >= {
        "artifact", "device", "ratio", "ratio_interval", "load_ms", "first_ms", "peak_memory_bytes", "equal",
    }  # fmt: skip
    assert row["placement"].keys() >= {"nodes", "on_device", "time_share", "partitions", "fallbacks"}
    assert row["equal"] is True


def test_few_calls_tell_no_high_percentile(squares: tuple[Path, Path]) -> None:
    (row,) = mh_edge.profile(squares[:1], runs=4).rows
    assert row.latency is not None
    assert row.latency.calls == 4
    assert (row.latency.p90, row.latency.p99) == (None, None)
    (row,) = mh_edge.profile(squares[:1], runs=100).rows
    assert row.latency is not None
    assert row.latency.p90 is not None
    assert row.latency.p99 is not None


def test_a_damaged_file_is_its_own_failure(squares: tuple[Path, Path], tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.onnx"
    damaged.write_bytes(SQUARE_ONNX[:40])
    found = mh_edge.profile([damaged, squares[0]], **QUICK)
    bad, good = found.rows
    assert bad.failure is not None
    assert "damaged.onnx" in bad.failure.message
    assert good.latency is not None
    assert found.exit_code == InputError.exit_code


def test_a_device_that_is_not_here_leaves_the_others_measured(squares: tuple[Path, Path]) -> None:
    found = mh_edge.profile(squares[:1], ["cuda", "cpu"], **QUICK)
    cuda, cpu = found.rows
    assert cuda.failure is not None
    assert (cuda.failure.kind, cuda.latency, cuda.placement) == ("unavailable", None, None)
    assert cuda.failure.hint
    assert cpu.latency is not None
    assert found.exit_code == 6


def test_real_inputs_are_what_is_run(squares: tuple[Path, Path], tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", x=np.array([np.nan, 2.0], np.float32))
    found = mh_edge.profile(squares[:1], feeds=tmp_path / "x.npz", **QUICK)
    (row,) = found.rows
    assert row.agreement is not None
    assert (row.agreement.equal, row.agreement.feeds) == (True, 2), "the samples, and these altered"
    assert found.feeds == str(tmp_path / "x.npz")


@pytest.mark.parametrize(
    ("artifacts", "options", "error", "message"),
    [
        ([], {}, UsageError, "no artifact is given"),
        (["absent.onnx"], {}, InputError, "there is no file 'absent.onnx'"),
        (["model.keras"], {}, UsageError, "has the suffix '.keras'"),
        (["{onnx}"], {"devices": ["gpu"]}, UsageError, "device 'gpu' is not known"),
        (["{onnx}"], {"devices": ["xnnpack"]}, UsageError, r"no device that is named \(xnnpack\) takes"),
        (["{onnx}"], {"devices": ["cpu", "xnnpack"]}, UsageError, "'xnnpack' takes .tflite files, and none is given"),
        (["{onnx}"], {"baseline": "absent.keras"}, InputError, "there is no file 'absent.keras'"),
        (["{onnx}"], {"baseline": "model.onnx"}, UsageError, "the baseline 'model.onnx' is no Keras model"),
        (["{onnx}"], {"feeds": "absent.npz"}, InputError, "there is no file 'absent.npz'"),
        (["{onnx}"], {"seconds": float("nan")}, UsageError, "--seconds is nan"),
        (["{onnx}"], {"seconds": float("inf")}, UsageError, "--seconds is inf"),
        (["{onnx}"], {"runs": 1}, UsageError, "--runs is 1"),
        (["{onnx}"], {"rtol": float("nan")}, UsageError, "--rtol is nan"),
        (
            ["{onnx}"],
            {"settings": {"cuda": {"x": "1"}}},
            UsageError,
            r"--device-option cuda\.x is for a device that is not",
        ),
        (["{onnx}"], {"benchmark_binary": "b"}, UsageError, "--benchmark-binary is for Android devices"),
    ],
)
def test_what_cannot_be_begun_is_refused(
    squares: tuple[Path, Path],
    artifacts: list[str],
    options: dict[str, object],
    error: type[Exception],
    message: str,
) -> None:
    paths = [path.format(onnx=squares[0]) for path in artifacts]
    with pytest.raises(error, match=message):
        mh_edge.profile(paths, **options)  # type: ignore[arg-type]


def test_sizes_that_do_not_fit_are_the_rows_failure(squares: tuple[Path, Path]) -> None:
    found = mh_edge.profile(squares[:1], dims={"sequence": 4}, **QUICK)
    assert found.rows[0].failure is not None
    assert "--dim sequence=4 names a size that is not free" in found.rows[0].failure.message
    assert found.exit_code == UsageError.exit_code


def test_other_batches_are_compared_by_the_sample(squares: tuple[Path, Path], tmp_path: Path) -> None:
    from onnx import TensorProto, helper, save

    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 4]) for name in "xy")
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", [x], [y])
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path / "free.onnx")
    first, free = mh_edge.profile([squares[0], tmp_path / "free.onnx"], **QUICK).rows
    assert (first.batch, free.batch) == (2, 1)
    assert any("1 samples a call; the ratio is that of the time of a sample" in note for note in free.notes)
    assert first.latency is not None
    assert free.latency is not None
    assert free.ratio is not None
    assert free.ratio.ratio / (free.latency.p50 / first.latency.p50) == pytest.approx(2, rel=0.5)


@pytest.mark.slow
def test_keras_as_a_baseline(squares: tuple[Path, Path], tmp_path: Path) -> None:
    make = (
        "import keras; x = keras.Input((), name='x', batch_size=2);"
        f"keras.Model(x, keras.ops.square(x)).save({str(tmp_path / 'model.keras')!r})"
    )
    subprocess.run([sys.executable, "-c", make], check=True, capture_output=True)
    settings = {"keras": {"import": "json"}}
    found = mh_edge.profile(squares[:1], baseline=tmp_path / "model.keras", settings=settings, **QUICK)
    file, model = found.rows
    assert (file.device, model.device, found.exit_code) == ("cpu", "keras", 0)
    assert model.ratio is not None
    assert model.ratio.ratio > 1
    assert model.agreement is not None
    assert (model.agreement.equal, model.placement, model.runtime[:7]) == (None, None, "Keras 3")
