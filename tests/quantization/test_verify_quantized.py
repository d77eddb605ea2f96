"""`verify` of quantized files: judged by the gate they carry, or by the one that is given."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import mh_edge
from artifacts import affine_onnx
from mh_edge.artifact import Manifest, file_sha256
from mh_edge.cli import main
from mh_edge.commands import tables
from mh_edge.errors import InputError, NotEqualError, UsageError
from mh_edge.quantization.judging.gate import Gate
from mh_edge.runtimes import open_session

RNG = np.random.default_rng(0)
KERNEL, BIAS = RNG.standard_normal((6, 5)).astype("float32"), RNG.standard_normal(5).astype("float32")
COARSE = np.round(KERNEL * 2) / 2
X = RNG.standard_normal((200, 6)).astype("float32")
LABELS = (X @ KERNEL + BIAS).argmax(1)
KEPT = float(((X @ COARSE + BIAS).argmax(1) == LABELS).mean())
"""Of the labels, all of which the float file gets right, those that the coarse one gets right: its accuracy."""

DROP = 100 * (1 - KEPT)


def manifest(path: Path, gate: Gate | None, *, quantized: bool = True, metric: str | None = None) -> Path:
    """Write a manifest beside the file."""
    with open_session(path) as session:
        signature = session.signature
    record = {"scheme": "int4", "metrics": {"metric": metric}, "gate": gate and gate.to_json(), "kept_float": []}
    Manifest(
        format="onnx",
        sha256=file_sha256(path),
        opset=17,
        signature=signature,
        rules={},
        notes=(),
        choices=(),
        session_options={},
        data=(),
        versions={},
        verified=None,
        recipe={},
        quantized=record if quantized else None,
    ).write(path)
    return path


@pytest.fixture
def files(tmp_path: Path) -> Mapping[str, Path]:
    """float, its copy, and coarse, which carries no manifest yet; data with labels and without."""
    made = {name: tmp_path / f"{name}.onnx" for name in ("float", "copy", "coarse")}
    for name, path in made.items():
        affine_onnx(path, COARSE if name == "coarse" else KERNEL, BIAS)
    made |= {name: tmp_path / f"{name}.npz" for name in ("labelled", "unlabelled")}
    np.savez(made["labelled"], x=X, labels=LABELS)
    np.savez(made["unlabelled"], x=X)
    return made


@pytest.mark.parametrize("data", ["labelled", "unlabelled"])
def test_the_gate_in_the_manifest_decides(files: Mapping[str, Path], data: str) -> None:
    for limit, passes in ((DROP + 0.1, True), (DROP - 0.1, False)):
        coarse = manifest(files["coarse"], Gate("points", limit))
        found = mh_edge.verify(files["float"], coarse, evaluation=files[data], classes=True)
        (candidate,) = found.candidates
        assert found.passed is candidate.passed is passes
        assert candidate.gate == Gate("points", limit)
        assert candidate.metrics is not None
        assert candidate.metrics.top1_agreement == pytest.approx(KEPT)
        assert candidate.metrics.accuracy == (pytest.approx(KEPT) if data == "labelled" else None)
        assert candidate.feeds == 200
    assert f"fell by {DROP:.2f} points, from 100.00 % to {100 * KEPT:.2f} % on 200 samples" in candidate.reasons[0]
    with pytest.raises(NotEqualError, match=r"coarse\.onnx does not pass its gate of .*% beside .*float\.onnx"):
        found.require()


def test_a_gate_that_is_given_goes_before(files: Mapping[str, Path]) -> None:
    coarse = manifest(files["coarse"], Gate("points", 0.0))
    noise = X @ COARSE - X @ KERNEL
    sqnr = 10 * np.log10(((X @ KERNEL + BIAS) ** 2).sum(0) / (noise**2).sum(0)).min()  # of the worst column
    for limit, passes in ((sqnr - 0.01, True), (sqnr + 0.01, False)):
        found = mh_edge.verify(files["float"], coarse, evaluation={"x": X}, max_drop=f"{limit}dB")
        assert found.passed is passes


def test_a_metric_of_ones_own(files: Mapping[str, Path]) -> None:
    def near(outputs: Mapping[str, np.ndarray], labels: np.ndarray | None) -> np.ndarray:
        """1 - |error|, at least 0, beside what the float model gives."""
        return 1 - np.minimum(np.abs(outputs["y"] - truth[: len(outputs["y"])]).mean(1), 1)

    truth, x = X[:32] @ KERNEL + BIAS, X[:32]
    drop = 100 * float(np.minimum(np.abs(x @ COARSE - x @ KERNEL).mean(1), 1).mean())
    for limit, passes in ((drop + 0.01, True), (drop - 0.01, False)):
        gate = Gate("points", limit)
        found = mh_edge.verify(files["float"], files["coarse"], evaluation={"x": x}, max_drop=gate, metric=near)
        assert found.passed is passes
    with pytest.raises(UsageError, match="outside 0 to 1"):
        mh_edge.verify(
            files["float"], files["coarse"], evaluation={"x": x}, max_drop="1%", metric=lambda y, _: -y["y"].mean(1)
        )


def test_a_gate_of_a_metric_needs_the_metric(files: Mapping[str, Path]) -> None:
    coarse = manifest(files["coarse"], Gate("points", 50.0), metric="own.module:best")
    with pytest.raises(
        UsageError, match=r"the gate 50% of .*coarse.* the metric own\.module:best.*--metric own\.module:best"
    ):
        mh_edge.verify(files["float"], coarse, evaluation=files["labelled"])
    assert mh_edge.verify(files["float"], coarse, evaluation=files["labelled"], metric=lambda y, labels: 1.0).passed
    assert mh_edge.verify(files["float"], coarse, evaluation=files["labelled"], max_drop=f"{DROP + 0.1}%").passed
    for gate, metric in ((Gate("db", -90.0), "own.module:best"), (Gate("points", DROP + 0.1), "accuracy of 'y:0'")):
        manifest(files["coarse"], gate, metric=metric)
        assert mh_edge.verify(files["float"], coarse, evaluation=files["labelled"]).passed


def test_scores_without_labels_are_not_known_to_be_classes(files: Mapping[str, Path]) -> None:
    coarse = manifest(files["coarse"], Gate("points", 100.0))
    with pytest.raises(UsageError, match=r"nothing says that an output \(y\) decides.*--classes.*30dB"):
        mh_edge.verify(files["float"], coarse, evaluation=files["unlabelled"])


def test_what_the_gate_does_not_see_is_noted(files: Mapping[str, Path]) -> None:
    few = {"x": X[:3], "labels": LABELS[:3]}
    (candidate,) = mh_edge.verify(files["float"], files["coarse"], evaluation=few, max_drop="1%").candidates
    assert "One of 3 samples weighs 33 points" in candidate.notes[0]


def test_a_keras_model_beside_a_quantized_and_a_float_file(files: Mapping[str, Path]) -> None:
    model = keras.Sequential([keras.Input((6,), name="x"), keras.layers.Dense(5, name="y")], name="affine")
    model.layers[0].set_weights([KERNEL, BIAS])
    coarse = manifest(files["coarse"], Gate("points", DROP))
    found = mh_edge.verify(model, [coarse, files["float"]], evaluation=files["labelled"])
    assert found.passed
    assert found.yardstick == "float64 clone"
    quantized, equal = found.candidates
    assert (quantized.metrics is None, equal.metrics is None) == (False, True)
    assert quantized.required_tolerance is quantized.scale is None
    assert equal.required_tolerance is not None
    manifest(files["coarse"], None, quantized=False)
    assert not mh_edge.verify(model, files["coarse"]).passed


def test_a_file_of_another_tool(files: Mapping[str, Path]) -> None:
    found = mh_edge.verify(files["float"], files["coarse"], evaluation=files["labelled"], max_drop=f"{DROP + 0.1}%")
    assert found.passed
    assert found.yardstick == "gates"


@pytest.mark.parametrize(
    ("gate", "options", "said"),
    [
        (Gate("points", 1.0), {}, r"coarse\.onnx is quantized, so it is judged by what it loses .* Give --evaluation"),
        (None, {"evaluation": {"x": X}}, r"coarse\.onnx was quantized without a gate.* Give --max-drop"),
        (None, {"evaluation": {"x": X}, "max_drop": "1"}, "'1' has no unit"),
    ],
)
def test_what_a_quantized_file_needs(
    files: Mapping[str, Path], gate: Gate | None, options: dict[str, Any], said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        mh_edge.verify(files["float"], manifest(files["coarse"], gate), **options)


@pytest.mark.parametrize("options", [{"evaluation": {"x": X}}, {"max_drop": "1%"}, {"metric": "no:matter"}])
def test_nothing_to_judge(files: Mapping[str, Path], options: dict[str, Any]) -> None:
    manifest(files["copy"], None, quantized=False)
    with pytest.raises(UsageError, match=r"no candidate is quantized.*copy\.onnx"):
        mh_edge.verify(files["float"], files["copy"], atol=1e-6, **options)


def test_data_that_the_reference_does_not_take(files: Mapping[str, Path]) -> None:
    with pytest.raises(InputError, match="'x'"):
        mh_edge.verify(files["float"], files["coarse"], evaluation={"x": X[:, :5]}, max_drop="1%")


def test_the_command(files: Mapping[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    coarse = manifest(files["coarse"], Gate("points", DROP + 0.1))
    words = ["verify", str(files["float"]), str(coarse), "--evaluation", str(files["labelled"])]
    assert main([*words, "--json"]) == 0
    (candidate,) = json.loads(capsys.readouterr().out)["candidates"]
    assert candidate["gate"] == {"kind": "points", "limit": DROP + 0.1}
    assert candidate["metrics"]["accuracy"] == pytest.approx(KEPT)
    assert main([*words, "--max-drop", "60dB"]) == 5
    shown = capsys.readouterr().out
    for text in ("FAILS 60dB", f"{KEPT:.2%}, float 100.00%", "same answer", "The SQNR of 'y' is"):
        assert text in shown
    words[words.index(str(files["labelled"]))] = str(files["unlabelled"])
    assert main([*words, "--max-drop", "60dB,100%"]) == 2
    assert main([*words, "--max-drop", "60dB,100%", "--classes"]) == 5
    assert "FAILS 100%,60dB" in capsys.readouterr().out
    assert main([*words, "--max-drop", "-90dB"]) == 0
    assert re.search(r"signal to noise +[\d.]+ dB \(column \d\)", capsys.readouterr().out)
    assert main([*words, "--max-drop", "60"]) == 2


@pytest.mark.parametrize(
    ("value", "share", "shown"),
    [(0.93517, True, "93.52%"), (1.0, True, "100.00%"), (0.999977, True, "99.9977%"), (0.0, True, "0.00%"),
     (0.99, True, "99.00%"), (-0.512345, False, "-0.5123"), (1234.56, False, "1235")],
)  # fmt: skip
def test_scores_are_shown_so_that_what_is_missing_is_seen(value: float, share: bool, shown: str) -> None:
    assert tables.score(value, share) == shown


def test_a_quantized_file_in_one_line() -> None:
    metrics = {"metric": "own:error", "accuracy": -0.5, "accuracy_float": -0.25, "share": False}
    found = {**metrics, "top1_agreement": None, "sqnr_db": 31.2, "on": "a set"}
    record = {"scheme": "int8", "metrics": found, "gate": Gate("points", 1.0, 30.0).to_json()}
    assert tables.loss(record) == "int8: own:error -0.5 (float -0.25), signal to noise 31 dB on a set; gate 1%,30dB"
    old = {**record, "metrics": {**found, "metric": "accuracy", "accuracy": 0.9, "accuracy_float": 1.0}}
    del old["metrics"]["share"]  # of an older manifest
    assert tables.loss(old).startswith("int8: accuracy 90.00% (float 100.00%), ")
