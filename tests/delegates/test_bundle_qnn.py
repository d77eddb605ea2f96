"""The platform qnn: context binaries made and opened again by the plugin, on Qualcomm's simulator."""

from __future__ import annotations

import json
import shutil
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import devices
import graphs
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import mh_edge
from mh_edge.artifact import Artifact
from mh_edge.bundling.platform import platform
from mh_edge.bundling.qnn import Qnn
from mh_edge.errors import ConversionError, NotEqualError, UsageError
from mh_edge.inspection import inspect
from mh_edge.runtimes.qnn import QnnSession


def selftest(kit: Path) -> tuple[int, str]:
    """As a user runs it there: with the runtime, the plugin and numpy alone."""
    line = [sys.executable, "-P", "selftest.py"]
    done = subprocess.run(
        line, cwd=kit, capture_output=True, text=True, timeout=120, check=False, env={"PYTHONPATH": str(kit)}
    )
    return done.returncode, done.stdout + done.stderr


def told(kit: Path, place: int = 0) -> dict[str, Any]:
    return json.loads((kit / "bundle.json").read_text())["artifacts"][place]


def mean(path: Path) -> Path:
    """y = the mean of x over the valid steps, NaN where there is none."""
    nodes = [
        helper.make_node("Cast", ["valid"], ["ones"], name="Cast", to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["ones", "last"], ["column"], name="Unsqueeze"),
        helper.make_node("Mul", ["x", "column"], ["kept"], name="Mul"),
        helper.make_node("ReduceSum", ["kept", "time"], ["sum"], name="Sum", keepdims=0),
        helper.make_node("ReduceSum", ["column", "time"], ["count"], name="Count", keepdims=0),
        helper.make_node("Div", ["sum", "count"], ["y"], name="Div"),
    ]
    shapes = {
        "x": (TensorProto.FLOAT, [1, graphs.TIME, graphs.DIM]),
        "valid": (TensorProto.BOOL, [1, graphs.TIME]),
    }
    return graphs.write(path, nodes, shapes, {"last": np.array([2]), "time": np.array([1])})


@pytest.fixture(scope="module")
def kit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of three models that are gone."""
    folder = tmp_path_factory.mktemp("qnn")
    source = folder / "source"
    source.mkdir()
    models = [
        graphs.dense(source / "dense.onnx", 1),
        graphs.attention(source / "attention.onnx"),
        mean(source / "mean.onnx"),
    ]
    made = mh_edge.bundle(models, "qnn", folder / "kit")
    assert [(one.path, one.device) for one in made.artifacts] == [
        (f"models/{name}_ctx.onnx", "qnn") for name in ("dense", "attention", "mean")
    ]
    shutil.rmtree(source)
    return folder / "kit"


def test_a_context_binary_runs_without_the_model_that_it_was_made_of(kit: Path) -> None:
    path = kit / "models/attention_ctx.onnx"
    assert inspect(path).ops == {"com.microsoft.EPContext": 1}
    with QnnSession(path) as session:
        assert session.signature.inputs[0].shape == (1, graphs.TIME, graphs.DIM)
        assert session.placement().whole
        assert session.run({"x": graphs.feeds()["x"]})["y"].std() > 0.01


def test_older_runtimes_know_the_file_around_it(kit: Path) -> None:
    model = onnx.load(kit / "models/attention_ctx.onnx")
    assert model.ir_version == 10
    assert {one.domain: one.version for one in model.opset_import} == {"": 23, "com.microsoft": 1}


def test_the_selftest_passes_and_tells_a_number_that_is_off(kit: Path, tmp_path: Path) -> None:
    files = sorted(kit.rglob("*"))
    code, said = selftest(kit)
    assert code == 0, said
    assert sorted(kit.rglob("*")) == files
    lines = [line for line in said.splitlines() if "golden cases" in line]
    assert [line[: line.index(":")] for line in lines] == [
        f"RIGHT  models/{name}_ctx.onnx" for name in ("dense", "attention", "mean")
    ]
    changed = tmp_path / "kit"
    shutil.copytree(kit, changed)
    golden = told(kit)["golden"]
    content = bytearray((changed / golden["path"]).read_bytes())
    struct.pack_into("<f", content, golden["cases"][0]["outputs"]["y"]["offset"], 2.0)
    (changed / golden["path"]).write_bytes(content)
    code, said = selftest(changed)
    assert code == 1
    assert "WRONG  models/dense_ctx.onnx, " in said
    assert "RIGHT  models/mean_ctx.onnx" in said


def test_the_sample_runs(kit: Path) -> None:
    line = [sys.executable, "sample.py", "models/mean_ctx.onnx"]
    done = subprocess.run(line, cwd=kit, capture_output=True, text=True, timeout=120, check=True)
    assert "y: float32 (1, 16), the first numbers are [0.0, 0.0, 0.0, 0.0]" in done.stdout


def test_it_says_for_which_chip_it_is_and_which_cases_are_left_out(kit: Path, tmp_path: Path) -> None:
    details = told(kit, 2)["details"]
    assert (details["soc_model"], details["chip"], details["htp_arch"]) == (57, "SM8650", 75)
    assert "normal, mask row" in details["left_out"]
    kept = [case["name"] for case in told(kit, 2)["golden"]["cases"]]
    assert len(kept) >= 3
    assert not set(kept) & set(details["left_out"])
    assert told(kit)["golden"]["precision"] == "float16"
    assert "`soc_model` 57 (SM8650, Hexagon v75)" in (kit / "README.md").read_text()
    assert "{{" not in (kit / "README.md").read_text()

    model = graphs.dense(tmp_path / "dense.onnx", 1)
    mh_edge.bundle([model], "qnn", tmp_path / "newer", settings={"soc_model": "87"})
    assert told(tmp_path / "newer")["details"]["chip"] == "SM8850"
    code, said = selftest(tmp_path / "newer")
    assert code == 0, said


def test_no_file_names_a_place_of_this_machine(kit: Path) -> None:
    files = [path for path in kit.rglob("*") if path.is_file()]
    assert not [path for path in files if str(kit.parent).encode() in path.read_bytes()]


def test_a_file_that_computes_something_else_is_not_bundled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    right, wrong = graphs.dense(tmp_path / "right.onnx", 1), graphs.dense(tmp_path / "wrong.onnx", 1)
    place = Qnn.place

    def other(made: Qnn, _: Artifact, models: Path) -> tuple[Path, ...]:
        return place(made, inspect(wrong), models)

    monkeypatch.setattr(Qnn, "place", other)
    with pytest.raises(NotEqualError, match=r"does not give its golden numbers on the device 'qnn'"):
        mh_edge.bundle([right], "qnn", tmp_path / "kit")
    assert not (tmp_path / "kit").exists()


def test_what_it_cannot_take_is_refused_with_what_mends_it(kit: Path, tmp_path: Path) -> None:
    def refused(model: Path, **settings: str) -> ConversionError:
        with pytest.raises(ConversionError) as caught:
            mh_edge.bundle([model], "qnn", tmp_path / "kit", settings=settings)
        assert not (tmp_path / "kit").exists()
        return caught.value

    free = refused(graphs.dense(tmp_path / "dense.onnx"))
    assert "leaves batch free" in free.message
    assert free.hint == "mh-edge export MODEL --to onnx --batch 1 --runtime plugins"
    part = refused(graphs.lstm(tmp_path / "lstm.onnx", 1))
    assert "QNN takes 4 of 5 operations" in part.message
    assert "LSTM (QNN EP: dynamic sequence_length is not supported" in part.message
    assert "--runtime plugins" in part.hint
    unknown = refused(graphs.dense(tmp_path / "fixed.onnx", 1), soc_model="9999")
    assert "takes nothing" in unknown.message
    assert "compiled for a device already" in refused(kit / "models/dense_ctx.onnx").message
    with pytest.raises(UsageError, match="no number"):
        platform("qnn", {"soc_model": "SM8650"})


def test_the_program_prints_json_alone(tmp_path: Path) -> None:
    model = graphs.dense(tmp_path / "dense.onnx", 1)
    code, answer = devices.program("bundle", model, "--platform", "qnn", "-o", tmp_path / "kit")
    assert (code, answer["artifacts"][0]["device"]) == (0, "qnn")
    code, answer = devices.program("verify", tmp_path / "kit")
    assert (code, answer["passed"]) == (0, True)
