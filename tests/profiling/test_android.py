"""Profiling on an Android device, against a FAKE adb and a FAKE device (`fake_adb`): what is asked of them, and what is
made of answers that are worded as the real programs word them. No real device is involved.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from mh_edge.machine import SQUARE_TFLITE
from mh_edge.openings import OPENINGS
from mh_edge.profiling import android
from mh_edge.profiling.result import Row
from profiling import printed
from profiling.fake_adb import Fake
from profiling.phones import X, case

GPU_TABLE = printed.table(
    ("TfLiteGpuDelegateV2", 2.0, "[a]:6"),
    ("CUMSUM", 1.0, "[one]:2"),
    ("TfLiteGpuDelegateV2", 4.0, "[b]:7"),
    ("CUMSUM", 1.0, "[two]:3"),
    old=True,
)


def test_row_of_tflite(fake: Fake, profiled: Callable[..., Row]) -> None:
    row = profiled()
    assert (row.device, row.runtime, row.batch, row.bytes) == ("adb", "benchmark_model", 2, len(SQUARE_TFLITE))
    assert row.latency is not None
    assert row.latency.p50 == pytest.approx(79.5)
    assert row.latency.interval == pytest.approx((79.5, 79.5))
    assert (row.latency.p90, row.latency.p99, row.latency.quantiles, row.latency.steady) == (None, None, (), None)
    assert row.latency.calls == 50 * OPENINGS
    assert row.mean_ms == pytest.approx(79.7609)
    assert (row.load_ms, row.first_ms, row.memory) == (38.467, 83.235, int(8.25 * 2**20))
    assert row.agreement is not None
    assert (row.agreement.equal, row.agreement.why) == (None, android.NOT_COMPARED)
    assert row.placement is not None
    assert (row.placement.nodes, row.placement.on_device, row.fell_back) == (6, 6, False)
    assert row.notes == (
        "measured on Pixel 8 (Android 15, arm64-v8a)",
        "on the phone's CPU: TfLiteXNNPackDelegate 5 of 6 nodes, TensorFlow Lite's own kernels the others",
    )


def test_what_the_device_is_asked(fake: Fake, profiled: Callable[..., Row]) -> None:
    profiled(flags=('--benchmark_name=it\'s "a b" $HOME',))
    folder = next(re.findall(r"mkdir (\S+)", words[3])[0] for words in fake.adb if "mkdir" in words[-1])
    assert re.fullmatch(r"/data/local/tmp/mh-edge-[0-9a-f]{8}", folder)
    pushed = [words[4].removeprefix(f"{folder}/") for words in fake.adb if words[2:3] == ["push"]]
    assert pushed == ["benchmark", "model.tflite", "input0"]
    assert len(fake.benchmark) == OPENINGS + 2
    there = str(fake.root / "device") + folder.removeprefix("/data/local/tmp")
    asked = [
        f"--graph={there}/model.tflite",
        "--input_layer=input0",
        "--input_layer_shape=2",
        f"--input_layer_value_files=input0:{there}/input0",
        "--num_threads=2",
    ]
    user = '--benchmark_name=it\'s "a b" $HOME'
    trial = ["--num_runs=1", "--min_secs=0", "--max_secs=300", user, f"--output_filepath={there}/outputs"]
    assert fake.benchmark[0] == [*asked, *trial]
    assert fake.benchmark[2] == [*asked, "--num_runs=1", "--min_secs=1", "--max_secs=300", user]
    assert fake.benchmark[1][len(asked) :] == [
        "--num_runs=20",
        "--min_secs=0",
        "--max_secs=300",
        "--enable_op_profiling=true",
        user,
    ]
    assert fake.adb[-1][2:] == ["shell", f"rm -rf {folder}"]
    assert fake.left == []


def test_number_of_calls(fake: Fake, profiled: Callable[..., Row]) -> None:
    profiled(runs=12, threads=None)
    assert fake.benchmark[-1][-3:] == ["--num_runs=3", "--min_secs=0", "--max_secs=300"]
    assert not any("threads" in word for word in fake.benchmark[0])


def test_times_of_operations(fake: Fake, profiled: Callable[..., Row]) -> None:
    ops = profiled().ops
    assert [(one.op, one.ms, one.on_device) for one in ops] == [
        ("Fully Connected (NC, F32) GEMM", 2.0, True),
        ("Softmax (NC, F32)", 0.5, True),
        ("TfLiteXNNPackDelegate", 0.5, True),  # what its kernels leave of it
        ("CUMSUM", 1.0, True),
    ]
    assert (ops[3].node, ops[3].rule) == ("heads/mh_edge.MultiHead/cumsum", "MultiHead")


def test_a_delegate_that_takes_a_part(fake: Fake, profiled: Callable[..., Row]) -> None:
    fake.says(timed=printed.TFLITE.format(delegates=printed.GPU, **printed.PERCENTILES), ops=GPU_TABLE)
    row = profiled(flags=("--use_gpu=true",), fallback=True)
    assert row.placement is not None
    assert (row.placement.on_device, row.placement.nodes, row.placement.partitions) == (4, 6, 2)
    assert row.fell_back
    assert row.failure is None
    (fallback,) = row.placement.fallbacks
    assert (fallback.op, fallback.count, fallback.nodes) == ("CUMSUM", 2, ("one", "two"))
    assert fallback.reason == "Operation is not supported"
    assert row.time_share == pytest.approx(6 / 8)
    assert not any("xnnpack" in word for word in fake.benchmark[-1])  # timed as an application runs it
    assert fake.benchmark[1][-1] == "--use_xnnpack=false"  # which would hide what the GPU leaves
    failed = profiled(flags=("--use_gpu=true",))
    assert failed.failure is not None
    assert (failed.failure.exit_code, failed.latency, failed.placement) == (6, None, row.placement)
    assert "2 of its 6 nodes ran on CPU: CUMSUM×2" in failed.failure.message
    assert len(fake.benchmark) == OPENINGS + 2 + 2  # not timed
    assert fake.left == []


@pytest.mark.parametrize(
    ("delegates", "flag", "note"),
    [
        (printed.NNAPI_REFUSED, "--use_nnapi=true", "NNAPI has nothing but its CPU reference on this device"),
        ("WARN: Unconsumed cmdline flags: --use_gpu=true", "--use_gpu=true", "does not know --use_gpu=true"),
    ],
)
def test_a_delegate_that_takes_nothing(
    fake: Fake, profiled: Callable[..., Row], delegates: str, flag: str, note: str
) -> None:
    fake.says(
        timed=printed.TFLITE.format(delegates=delegates, **printed.PERCENTILES), ops=printed.table(("MUL", 1, "[y]:0"))
    )
    row = profiled(flags=(flag,))
    assert row.placement is not None
    assert (row.placement.on_device, row.placement.fallbacks[0].op) == (0, "MUL")
    assert row.failure is not None
    assert row.time_share == 0.0
    assert note in " ".join(row.notes)


def test_an_average_is_no_median(fake: Fake, profiled: Callable[..., Row]) -> None:
    fake.says(timed=printed.TFLITE.format(delegates="", warm="", median=""))
    row = profiled()
    assert row.latency is None
    assert row.mean_ms == pytest.approx(79.7609)
    assert row.throughput == pytest.approx(2e3 / 79.7609)
    assert "79.8 ms a call on average (95 %: 79.8 to 79.8); this benchmark prints no percentiles" in row.notes


def ort_profile(path: Path, *nodes: tuple[str, str, str, int]) -> None:
    """A profile as ONNX Runtime writes it; nodes: name, operation, provider, microseconds."""
    events: list[dict[str, Any]] = [{"cat": "Session", "name": "model_run", "ts": 0, "dur": 1000}]
    for index, (name, op, provider, us) in enumerate(nodes):
        arguments = {"op_name": op, "provider": provider, "node_index": str(index)}
        event = {"cat": "Node", "name": f"{name}_kernel_time", "ts": 1 + 100 * index, "dur": us, "args": arguments}
        events.append(event)
    path.write_text(json.dumps(events), encoding="utf-8")


def test_row_of_onnx(fake: Fake, profiled: Callable[..., Row]) -> None:
    fake.says(timed=printed.ONNXRUNTIME.format(first=109, total=" total"))
    ort_profile(fake.root / "profile.json", ("square", "Mul", "CPUExecutionProvider", 50))
    row = profiled("onnx", "R58M", runs=50)
    assert row.device == "adb:R58M"
    assert row.latency is not None
    assert (row.latency.p50, row.latency.p90, row.latency.p99) == pytest.approx((19.9047, 20.0251, 20.2704))
    assert (row.load_ms, row.first_ms, row.memory) == pytest.approx((50.8382, 109.0, None))
    assert row.mean_ms == pytest.approx(19.918)
    assert row.placement is not None
    assert row.placement.whole
    assert [(one.op, one.ms) for one in row.ops] == [("Mul", 0.05)]
    assert row.notes[-1] == "its whole process, runtime included, took up to 110 MB"
    assert fake.benchmark[-1][:-1] == ["-x", "2", "-m", "times", "-r", "10"]
    assert fake.benchmark[-1][-1].endswith("/model.onnx")
    assert fake.left == []


def test_an_execution_provider_that_takes_a_part(fake: Fake, profiled: Callable[..., Row]) -> None:
    fake.says(timed=printed.ONNXRUNTIME.format(first=0, total=""))
    nodes = [("NNAPI_0", "NNAPI_7_0", "NnapiExecutionProvider", 100), ("sum", "CumSum", "CPUExecutionProvider", 300)]
    ort_profile(fake.root / "profile.json", *nodes)
    row = profiled("onnx", flags=("-e", "nnapi"), sizes={"batch": 2}, fallback=True)
    assert row.placement is not None
    assert (row.placement.on_device, row.placement.nodes, row.placement.partitions) == (1, 2, 1)
    assert row.placement.fallbacks[0].nodes == ("sum",)
    assert row.time_share == pytest.approx(0.25)
    assert row.first_ms is None  # below the millisecond in which it is told
    assert fake.benchmark[-1][:-1] == ["-x", "2", "-f", "batch:2", "-m", "duration", "-t", "1", "-e", "nnapi"]
    assert fake.left == []


def test_no_profile_is_no_proof(fake: Fake, profiled: Callable[..., Row]) -> None:
    fake.says(timed=printed.ONNXRUNTIME.format(first=1, total=""))
    (fake.root / "profile.json").write_text("")
    row = profiled("onnx")
    assert row.placement is None
    assert row.time_share is None
    assert "nothing tells where its nodes ran" in row.notes[1]


def test_external_data_and_feeds_arrive(fake: Fake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weight = numpy_helper.from_array(np.arange(4, dtype=np.float32), "w")
    node = helper.make_node("Add", ["x", "w"], ["y"], "add")
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 4]) for name in "xy"]
    model = helper.make_model(helper.make_graph([node], "g", ends[:1], ends[1:], [weight]), ir_version=9)
    data = 'the "user\'s" data.bin'
    onnx.save_model(model, str(tmp_path / "m.onnx"), save_as_external_data=True, location=data, size_threshold=0)
    binary = tmp_path / "perf"
    binary.write_bytes(android.MAGIC)
    fake.says(timed=printed.ONNXRUNTIME.format(first=1, total=""))
    ort_profile(fake.root / "profile.json", ("add", "Add", "CPUExecutionProvider", 5))
    seen: dict[str, bytes] = {}

    def look(step: str, done: int | None = None, total: int | None = None) -> None:
        if step.startswith("running"):
            seen.update(
                (str(path.relative_to(fake.root / "device")).partition("/")[2], path.read_bytes())
                for path in (fake.root / "device").rglob("*")
                if path.is_file()
            )

    feeds = {"x": np.ones((3, 4), np.float32)}
    known = case(tmp_path / "m.onnx", feeds, {"n": 3})
    android.profile_on_android(known, None, binary, threads=1, runs=5, seconds=1.0, on_step=look)
    assert seen.keys() == {"benchmark", "model.onnx", data, "test_data_set_0/input_0.pb"}
    assert seen[data] == (tmp_path / data).read_bytes()
    fed = TensorProto.FromString(seen["test_data_set_0/input_0.pb"])
    assert fed.name == "x"
    np.testing.assert_array_equal(numpy_helper.to_array(fed), feeds["x"])
    assert fake.left == []


@pytest.mark.parametrize(
    ("numbers", "flags", "equal"),
    [
        (X * X, (), True),
        (X * X * 1.01, (), False),
        (X * X * 1.01, ("--use_gpu=true",), True),  # float16
        (X * X * 0, ("--use_gpu=true",), False),
        (X[:1], (), False),
    ],
)
def test_numbers_are_compared_where_the_binary_gives_them(
    fake: Fake, profiled: Callable[..., Row], numbers: np.ndarray, flags: tuple[str, ...], equal: bool
) -> None:
    (fake.root / "outputs").write_bytes(numbers.astype(np.float32).tobytes())
    whole = printed.GPU.replace("4 out of 6", "6 out of 6") if flags else printed.XNNPACK
    fake.says(timed=printed.TFLITE.format(delegates=whole, **printed.PERCENTILES), ops=printed.table())
    row = profiled(flags=flags)
    assert row.agreement is not None
    assert row.agreement.equal is equal
    assert (row.latency is not None) is equal
    assert (row.failure is None) is equal
    if row.failure is not None:
        assert (row.failure.exit_code, row.failure.kind) == (5, "not_equal")
    assert android.NOT_COMPARED not in " ".join(row.notes)
    assert fake.left == []
