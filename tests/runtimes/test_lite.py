"""TFLite's runtimes: which operations a delegate took, why not the others, and what each operation costs."""

from __future__ import annotations

import ctypes
import sys
from itertools import chain
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import tflite_files
from mh_edge.errors import InputError, UnavailableError, UsageError
from mh_edge.runtimes import adapter, litert_npu, plain_device, tflite_runtime, vulkan
from mh_edge.runtimes.base import Session
from mh_edge.runtimes.lite import file, profiler
from mh_edge.runtimes.lite.nodes import Node
from mh_edge.runtimes.lite.reasons import why_not
from mh_edge.runtimes.lite.times import op_times
from mh_edge.runtimes.litert_gpu import LiteRtGpuSession
from mh_edge.runtimes.litert_npu import LiteRtNpuSession
from mh_edge.runtimes.litert_reference import LiteRtReferenceSession
from mh_edge.runtimes.tflite_runtime import TfliteRuntimeSession
from mh_edge.runtimes.xnnpack import XnnpackSession


def opened(device: str, make: tflite_files.Make, folder: Path) -> Session:
    return adapter(device)(make(folder / f"{make.__name__}.tflite"), threads=1)


@pytest.mark.parametrize(
    ("make", "nodes", "on_device", "partitions", "left"),
    [
        (tflite_files.dense, 4, 4, 1, {}),
        (tflite_files.masked, 4, 2, 1, dict.fromkeys(("LOGICAL_NOT", "CAST"), "XNNPACK has no such operation")),
        (tflite_files.loop, 1, 0, 0, {"WHILE": "XNNPACK takes no control flow"}),
    ],
)
def test_what_xnnpack_takes(
    make: tflite_files.Make, nodes: int, on_device: int, partitions: int, left: dict[str, str], tmp_path: Path
) -> None:
    with opened("xnnpack", make, tmp_path) as session:
        session.run(tflite_files.feeds(session))
        placement = session.placement()
    assert (placement.nodes, placement.on_device, placement.partitions) == (nodes, on_device, partitions)
    assert {one.op: one.reason for one in placement.fallbacks} == left
    assert all((one.count, one.where) == (1, "built-in kernels") for one in placement.fallbacks)


def test_a_new_size_is_shared_out_anew(tmp_path: Path) -> None:
    with XnnpackSession(tflite_files.dense(tmp_path / "free.tflite", batch=-1)) as session:
        for batch in (1, 5, 2):
            assert session.run(tflite_files.feeds(session, batch))["y"].shape == (batch, tflite_files.UNITS)
            assert session.placement().whole


@pytest.mark.parametrize("device", ["litert-builtin", "litert-reference"])
def test_without_a_delegate_the_kernels_are_the_device(device: str, tmp_path: Path) -> None:
    with (
        opened(device, tflite_files.masked, tmp_path) as session,
        opened("xnnpack", tflite_files.masked, tmp_path) as x,
    ):
        feeds = tflite_files.feeds(session)
        np.testing.assert_allclose(session.run(feeds)["y"], x.run(feeds)["y"], atol=1e-6)
        assert session.placement().whole


@pytest.mark.parametrize(
    ("node", "reason"),
    [
        (("RESHAPE", ("bool",)), "XNNPACK does not compute in bool"),
        (("SOFTMAX", ("int8",)), "XNNPACK computes SOFTMAX in float only"),
        (("BATCH_MATMUL", ("int8",), (0, 3)), "XNNPACK multiplies in int8 only where the zero point of the right side"),
        (("BATCH_MATMUL", ("int8",), (3, 0)), ""),
        (("ADD", ("float32",)), ""),
    ],
)
def test_why_not(node: tuple[str, tuple[str, ...], tuple[int, ...]], reason: str) -> None:
    op, dtypes, *zero_points = node
    found = why_not(Node(op, (), (), "", "", dtypes, *(zero_points or [()]), ()))
    assert found.startswith(reason) if reason else not found


def test_times_of_kernels_and_of_the_bodies_of_loops(tmp_path: Path) -> None:
    with opened("xnnpack", tflite_files.masked, tmp_path) as session:
        times = session.op_times(tflite_files.feeds(session), 20)
    assert [(one.node, one.op, one.where, one.on_device) for one in times] == [
        ("shown", "LOGICAL_NOT", "built-in kernels", False),
        ("number", "CAST", "built-in kernels", False),
        ("a", "TANH", "XNNPACK", True),
        ("y", "MUL", "XNNPACK", True),
    ]
    assert all(0 <= one.ms < 10 for one in times)
    for device, adds in (("xnnpack", ["ADD", "Add (ND)"]), ("litert-builtin", ["ADD", "ADD"])):
        with opened(device, tflite_files.loop, tmp_path) as session:
            assert [one.op for one in session.op_times(tflite_files.feeds(session), 2)] == ["WHILE", "LESS", *adds]


def test_times_are_those_of_the_faster_half_of_the_calls() -> None:
    def call(cast: int, tanh: int) -> list[profiler.Event]:
        """As LiteRT records one: events of the graph itself stand before its operations, and after them."""
        around, inside = profiler.INVOKE, (profiler.OPERATION, profiler.KERNEL)
        return [
            *(profiler.Event(name, around, 99, 0, 0) for name in ("Run[registration]", "Invoke")),
            profiler.Event("CAST", inside[0], cast, 0, 0),
            profiler.Event("Tanh (NC, F32)", inside[1], tanh, 0, 0),
            profiler.Event("Run[sync]", around, 5, 0, 0),
        ]

    nodes = [Node(op, (), (), op.lower(), "", ("float32",), (), ()) for op in ("CAST", "TANH")]
    calls = [call(2, 10), call(90_000, 10), call(4, 11), call(3, 4_000)]  # interrupted where it is slow
    found = op_times(chain.from_iterable(calls), nodes, [(1,)], "XNNPACK")
    assert [(one.op, one.on_device, round(1e3 * one.ms, 6)) for one in found] == [
        ("CAST", False, 3),
        ("TANH", True, 10.5),
    ]


def test_times_are_those_of_rules(tmp_path: Path) -> None:
    with XnnpackSession(tflite_files.dense(tmp_path / "free.tflite", batch=-1)) as session:
        times = session.op_times(tflite_files.feeds(session, 3), 2)
    named = [(one.node, one.op, one.rule) for one in times if one.node]
    assert named == [
        ("m/mh_edge.Dense/a", "FULLY_CONNECTED", "Dense"),
        ("m/tanh", "TANH", ""),
        ("m/mh_edge.Dense/c", "FULLY_CONNECTED", "Dense"),
        ("y", "SOFTMAX", ""),
    ]


def test_a_profiler_that_is_not_known_is_not_touched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profiler, "version", lambda package: "2.4.0")
    for device in (XnnpackSession, LiteRtReferenceSession):
        with device(tflite_files.dense(tmp_path / "dense.tflite")) as session:
            assert session.op_times(tflite_files.feeds(session), 1) == ()


def test_what_the_profiler_cannot_run_is_a_sentence(tmp_path: Path) -> None:
    path = tflite_files.dense(tmp_path / "dense.tflite")
    with pytest.raises(InputError, match=r"profiler cannot run .*dense\.tflite: CreateCompiledModel gives the status"):
        profiler.events(path, {}, 1, {"xnnpack": "kernel_mode = 9\n"})


def test_integers_are_told(tmp_path: Path) -> None:
    with XnnpackSession(tflite_files.weights_in_int8(tmp_path / "int8.tflite")) as session:
        assert session.precision == "integers"
    with XnnpackSession(tflite_files.dense(tmp_path / "dense.tflite")) as session:
        assert session.precision == "float32"


def test_an_unknown_setting_is_refused(tmp_path: Path) -> None:
    path = tflite_files.dense(tmp_path / "dense.tflite")
    for device in ("xnnpack", "litert-builtin", "litert-reference", "tflite-micro"):
        with pytest.raises(UsageError, match=rf"'{device}' has no setting 'speed'. It takes none"):
            adapter(device)(path, settings={"speed": "high"})


def test_no_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(vulkan, "why_none", lambda: ("no driver", "apt-get install it"))
    with pytest.raises(UnavailableError, match="no driver") as caught:
        LiteRtGpuSession(tflite_files.dense(tmp_path / "dense.tflite"))
    assert caught.value.hint == "apt-get install it"


def test_an_old_litert(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file, "version", lambda package: "2.1.2")
    with pytest.raises(UnavailableError, match=r"ai-edge-litert 2\.1\.2 does not let its GPU be asked for") as caught:
        LiteRtGpuSession.load()
    assert caught.value.hint == 'pip install "ai-edge-litert>=2.3"'


def test_openvino_missing_or_of_another_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(litert_npu, "version", lambda package: None)
    with pytest.raises(UnavailableError, match="'openvino', which is not installed"):
        LiteRtNpuSession.load()
    monkeypatch.setattr(litert_npu, "version", lambda package: "2026.1.0")

    def load(path: str) -> None:
        raise OSError("libopenvino.so.2631: cannot open shared object file: No such file or directory")

    monkeypatch.setattr(ctypes, "CDLL", load)
    with pytest.raises(UnavailableError, match=r"does not load: libopenvino\.so\.2631") as caught:
        LiteRtNpuSession.load()
    assert caught.value.hint == 'pip install "openvino==2026.3.1"'


def test_tflite_runtime_says_what_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    versions = {"tflite-runtime": "2.14.0", "numpy": "2.4.6"}
    monkeypatch.setattr(tflite_runtime, "version", versions.get)
    monkeypatch.setattr(tflite_runtime, "sys", SimpleNamespace(version_info=(3, 11, 2)))
    with pytest.raises(UnavailableError, match=r"2\.14\.0 was built for numpy 1, and numpy 2\.4\.6 is") as caught:
        TfliteRuntimeSession.load()
    assert caught.value.hint == 'pip install "numpy<2"'
    monkeypatch.setattr(tflite_runtime, "sys", SimpleNamespace(version_info=(3, 12, 1)))
    with pytest.raises(UnavailableError, match=r"no wheels for Python 3\.12, 3\.11 is the last") as caught:
        TfliteRuntimeSession.load()
    assert caught.value.hint == TfliteRuntimeSession.install()
    assert caught.value.hint.startswith("python3.11 -m venv tflite && ")


def test_tflite_runtime_stands_in(monkeypatch: pytest.MonkeyPatch) -> None:
    assert plain_device(Path("x.tflite")) == "xnnpack"
    monkeypatch.setattr("mh_edge.runtimes.version", {"tflite-runtime": "2.14.0"}.get)
    assert plain_device(Path("x.tflite")) == "tflite-runtime"
    monkeypatch.setattr("mh_edge.runtimes.version", {}.get)
    assert plain_device(Path("x.tflite")) == "xnnpack"


def test_micro_runs_all_of_a_file(tmp_path: Path) -> None:
    pytest.importorskip("tflite_micro")
    with (
        opened("tflite-micro", tflite_files.masked, tmp_path) as micro,
        opened("xnnpack", tflite_files.masked, tmp_path) as x,
    ):
        feeds = tflite_files.feeds(micro)
        expected = x.run(feeds)["y"]
        np.testing.assert_allclose(micro.run(feeds)["y"], expected, atol=1e-6)
        (got,) = micro.prepared(feeds)()
        np.testing.assert_allclose(got, expected, atol=1e-6)
        assert (micro.placement().whole, micro.placement().nodes, micro.op_times(feeds, 1)) == (True, 4, ())
    with pytest.raises(InputError, match="TFLite Micro has no operation REDUCE_ANY"):
        opened("tflite-micro", tflite_files.broken, tmp_path)
