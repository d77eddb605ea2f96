"""Profiling on an Android device, against a FAKE adb and a FAKE device (`fake_adb`): what is asked of them, and what is
made of answers that are worded as the real programs word them. No real device is involved.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from mh_edge.errors import InputError, UnavailableError
from mh_edge.machine import SQUARE_ONNX, SQUARE_TFLITE
from mh_edge.openings import OPENINGS
from mh_edge.profiling import android
from mh_edge.profiling.cases import Case
from mh_edge.profiling.result import Row
from mh_edge.runtimes.apart import Opened
from mh_edge.signature import Signature
from profiling import printed
from profiling.fake_adb import Fake

X = np.array([1.0, 2.0], np.float32)
CPU_TEXT = printed.TFLITE.format(delegates=printed.XNNPACK, **printed.PERCENTILES)
TABLE = printed.table(
    ("TfLiteXNNPackDelegate", 3.0, "[a, b]:6"),
    ("Fully Connected (NC, F32) GEMM", 2.0, "Delegate/Fully Connected (NC, F32) GEMM:0"),
    ("Softmax (NC, F32)", 0.5, "Delegate/Softmax (NC, F32):1"),
    ("CUMSUM", 1.0, "[heads/mh_edge.MultiHead/cumsum, other]:2"),
    ("AllocateTensors", 7.0, "AllocateTensors/0"),
)
GPU_TABLE = printed.table(
    ("TfLiteGpuDelegateV2", 2.0, "[a]:6"),
    ("CUMSUM", 1.0, "[one]:2"),
    ("TfLiteGpuDelegateV2", 4.0, "[b]:7"),
    ("CUMSUM", 1.0, "[two]:3"),
    old=True,
)


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fake:
    fake = Fake(tmp_path / "phone")
    monkeypatch.setenv("PATH", str(fake.path), prepend=":")
    monkeypatch.delenv("ANDROID_SERIAL", raising=False)
    fake.says(timed=CPU_TEXT, ops=TABLE)
    return fake


def case(artifact: Path, feeds: dict[str, np.ndarray], sizes: dict[str, int], expected: np.ndarray = X * X) -> Case:
    """What `profile` knows of an artifact before it is run on a device."""
    np.savez(artifact.with_suffix(".npz"), **feeds)  # type: ignore[arg-type]
    return Case(
        artifact=artifact,
        files=(artifact.with_suffix(".npz"),),
        sizes=sizes,
        batch=len(feeds["x"]),
        source="a test",
        reference="litert-builtin",
        opened=Opened(Signature((), ()), {}, {}, "float32", (), 1.0),
        expected=({"y": expected},),
        bytes=artifact.stat().st_size,
        quantized=None,
    )


@pytest.fixture
def profiled(tmp_path: Path) -> Callable[..., Row]:
    """Profile the square of a vector, in the format asked for."""
    binary = tmp_path / "my benchmark"
    binary.write_bytes(android.MAGIC + b"of some phone")
    (tmp_path / "a model's.tflite").write_bytes(SQUARE_TFLITE)
    (tmp_path / "a model's.onnx").write_bytes(SQUARE_ONNX)

    def profile(kind: str = "tflite", serial: str | None = None, **asked: Any) -> Row:
        known = case(tmp_path / f"a model's.{kind}", {"x": X}, asked.pop("sizes", {}))
        settings: dict[str, Any] = {"threads": 2, "runs": None, "seconds": 5.0} | asked
        return android.profile_on_android(known, serial, binary, **settings)

    return profile


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
    assert row.agreement.equal is None
    assert row.placement is not None
    assert (row.placement.nodes, row.placement.on_device, row.fell_back) == (6, 6, False)
    assert row.notes == (
        "measured on Pixel 8 (Android 15, arm64-v8a)",
        f"its numbers were not compared: {android.NOT_COMPARED}",
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
    assert "nothing tells where its nodes ran" in row.notes[2]


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


LIST = "List of devices attached\n"


@pytest.mark.parametrize(
    ("listed", "serial", "message", "hint"),
    [
        (LIST, None, "no Android device is connected", "USB debugging"),
        (LIST + "A1\tdevice\nB2\tdevice\n", None, "2 Android devices are connected: A1, B2.", "--device adb:A1"),
        (LIST + "A1\tunauthorized\n", None, "A1 cannot be used: adb calls it 'unauthorized'", "Allow USB debugging"),
        (LIST + "A1\toffline\n", None, "A1 cannot be used: adb calls it 'offline'", "adb reconnect offline"),
        (LIST + "A1\tno permissions (user in plugdev group; are your udev rules wrong?); see [http://x]\n", None,
         "A1 cannot be used: adb calls it 'no permissions'", "udev"),
        (LIST + "A1\trecovery\n", None, "adb calls it 'recovery'", "Start Android"),
        (LIST + "A1\tdevice\n", "B2", "no Android device 'B2' is connected.", "Connected are: A1"),
    ],
)  # fmt: skip
def test_which_device(
    fake: Fake, profiled: Callable[..., Row], listed: str, serial: str | None, message: str, hint: str
) -> None:
    fake.says(devices=listed)
    with pytest.raises(UnavailableError, match=re.escape(message)) as raised:
        profiled(serial=serial)
    assert hint in raised.value.hint
    assert raised.value.exit_code == 6


def test_the_one_that_is_ready(fake: Fake, profiled: Callable[..., Row], monkeypatch: pytest.MonkeyPatch) -> None:
    fake.says(devices=LIST + "A1\tunauthorized\nR58M\tdevice\n")
    assert profiled().device == "adb"
    fake.says(devices=LIST + "A1\tdevice\nR58M\tdevice\n")
    monkeypatch.setenv("ANDROID_SERIAL", "R58M")
    assert profiled().device == "adb"


def test_without_adb(profiled: Callable[..., Row], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UnavailableError, match="is not installed") as raised:
        profiled()
    assert raised.value.hint.startswith("apt install adb")


SH = "/system/bin/sh: /data/local/tmp/mh-edge-0/benchmark: "


@pytest.mark.parametrize(
    ("said", "code", "message", "hint"),
    [
        (SH + "not executable: 64-bit ELF file", 126, "another processor than the device's arm64-v8a", "for arm64-v8a"),
        (SH + "inaccessible or not found", 127, "it is not built for Android", "NDK for arm64-v8a"),
        ('CANNOT LINK EXECUTABLE "/data/local/tmp/mh-edge-0/benchmark": library "libonnxruntime.so" not found: needed '
         "by main executable", 1, 'library "libonnxruntime.so" not found', "Copy the library to /data/local/tmp"),
        (SH + "can't execute: Permission denied", 126, "the device does not allow it", "policy"),
        ("usage: toybox [--long]", 1, "ended with 1 on Pixel 8", "benchmark_model"),
        ("INFO: STARTING!\nERROR: Failed to allocate tensors!\nERROR: Benchmarking failed.", 1,
         "ERROR: Failed to allocate tensors! | ERROR: Benchmarking failed.", "only flags"),
        ("INFO: STARTING!", 139, "was ended by SIGSEGV", "only flags"),
        (CPU_TEXT.replace("79760.9", "nan"), 0, "printed no figures of benchmark_model", "only flags"),
    ],
)  # fmt: skip
def test_a_binary_that_does_not_run_there(
    fake: Fake, profiled: Callable[..., Row], said: str, code: int, message: str, hint: str
) -> None:
    fake.says(timed=said, code=code)
    with pytest.raises(InputError, match=re.escape(message)) as raised:
        profiled()
    assert hint in raised.value.hint
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


def test_no_program(fake: Fake, profiled: Callable[..., Row], tmp_path: Path) -> None:
    (tmp_path / "my benchmark").write_text("#!/bin/sh\n")
    with pytest.raises(InputError, match="is no program for Android"):
        profiled()
    (tmp_path / "my benchmark").unlink()
    with pytest.raises(InputError, match="there is no benchmark binary"):
        profiled()
    assert fake.adb == []


def test_a_full_device(fake: Fake, profiled: Callable[..., Row]) -> None:
    fake.says(full=True)
    with pytest.raises(UnavailableError, match="No space left on device") as raised:
        profiled()
    assert raised.value.hint == "Make room in its /data/local/tmp."
    assert fake.left == []


def test_interrupting_leaves_nothing(fake: Fake, profiled: Callable[..., Row]) -> None:
    def interrupt(step: str, done: int | None = None, total: int | None = None) -> None:
        if done == 1:
            assert fake.left != []
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        profiled(on_step=interrupt)
    assert fake.left == []
    assert "pkill -f '[m]h-edge-" in fake.adb[-2][3]


def test_a_run_without_end(fake: Fake, profiled: Callable[..., Row], monkeypatch: pytest.MonkeyPatch) -> None:
    fake.says(sleep=20)
    monkeypatch.setattr(android, "MOST_SECONDS", 0.2)
    monkeypatch.setattr(android, "SLACK_SECONDS", 0.2)
    with pytest.raises(UnavailableError, match="was not done after 0 s"):
        profiled()
    assert fake.left == []
    running = subprocess.run(["pgrep", "-f", f"{fake.root}/device"], capture_output=True, text=True, check=False)
    assert running.stdout == ""


def test_adb_that_fails(fake: Fake, profiled: Callable[..., Row]) -> None:
    (fake.path / "adb").write_text("#!/bin/sh\necho cannot connect to daemon >&2\nexit 1\n")
    with pytest.raises(UnavailableError, match="adb cannot list Android devices: cannot connect to daemon"):
        profiled()
