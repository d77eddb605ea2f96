"""The benchmark of quantized files: its data, its verdicts by hand, and a tool that fails. No time decides."""

from __future__ import annotations

import json
import signal

import numpy as np
import pytest

from benchmarks import quantization, quantization_task
from benchmarks.quantization_candidates import CANDIDATES
from benchmarks.quantization_report import CONTROL, FLOAT, Result, Row, Trained, load, targets, timing, written

EXACT = {
    "accuracy": 0.95,
    "agreement": 1.0,
    "error": None,
    "mean_error_std": 0.0,
    "sqnr_db": 99.0,
    "size_ratio": 1.0,
    "made_by": "a1",
}
INT8 = "onnx mh-edge int8"


def result(accuracy=0.947, error=0.012, size=0.36, ratio=0.7, task="transformer"):
    judged = {f"{one.format} {one.title}": EXACT | {"sha256": one.title} for one in CANDIDATES}
    judged |= {f"{format} {FLOAT}": EXACT | {"sha256": format} for format in ("onnx", "tflite")}
    judged[INT8] = EXACT | {"accuracy": accuracy, "mean_error_std": error, "size_ratio": size, "sha256": "int8"}
    cell = {FLOAT: 1.0, CONTROL: 1.0, "mh-edge int8": ratio}
    return Result(task, judged, [{f"onnx {batch}": cell for batch in (1, 8, 32)}])


def verdicts(*results):
    return {target.title: target.cells(results)[2:] for target in targets(results) if target.task == "transformer"}


def test_sequences_are_of_the_kind_that_leads_and_padding_of_a_wrong_one(monkeypatch):
    monkeypatch.setattr(quantization_task, "NOISE", 0.0)
    drawn = quantization_task.sequences(50, 3)
    kinds = np.random.default_rng(7).normal(size=(8, 16)).astype("float32")
    rows = np.square(drawn["x"][:, :, None] - kinds).sum(-1).argmin(-1)
    for row, valid, label in zip(rows, drawn["valid"], drawn["labels"], strict=True):
        counts = np.bincount(row[valid], minlength=8)
        assert counts[label] >= np.delete(counts, label).max() + 2
        assert len({*row[~valid]}) <= 1
        assert label not in row[~valid]


def test_no_two_sets_are_drawn_alike():
    seeds = [seed for _, seed in quantization_task.SETS.values()]
    assert len(set(seeds)) == len(seeds) == 4
    rows = [row.tobytes() for seed in seeds for row in quantization_task.sequences(5, seed)["x"].reshape(-1, 16)]
    assert len(set(rows)) == len(rows) == 4 * 5 * 20


def test_the_worst_seed_decides_on_a_target():
    good = verdicts(result(), result(accuracy=0.949))
    assert good["ONNX int8: change of accuracy, points"] == ("-0.3", "met")
    assert good["ONNX int8: mean error, % of the standard deviation"] == ("1.2", "met")
    assert good["ONNX int8: size"] == ("0.36", "met")
    assert good["ONNX int8: latency at batch 8"] == ("0.70 ±0.00", "met")
    bad = verdicts(result(), result(accuracy=0.944, error=0.02, size=0.38, ratio=1.0))
    assert bad["ONNX int8: change of accuracy, points"] == ("-0.6", "MISSED")
    assert bad["ONNX int8: mean error, % of the standard deviation"] == ("2", "MISSED")
    assert bad["ONNX int8: size"] == ("0.38", "MISSED")
    (shown, verdict) = bad["ONNX int8: latency at batch 1"]
    assert shown.startswith("0.84 ±")  # sqrt(.7 * 1)
    assert verdict == "MISSED"
    assert bad["accuracy of the float model, %, at least"] == ("95", "met")


def test_a_tool_that_fails_for_one_seed_fails_and_is_shown_with_its_message():
    failed = result()
    failed.judged[INT8] = {"error": "ValueError: no such thing", "made_by": "b2"}
    both = [result(), failed]
    assert Row(both, "onnx", "mh-edge int8").cells()[1] == "fails: ValueError: no such thing"
    assert verdicts(*both)["ONNX int8: size"] == ("-", "MISSED: ValueError: no such thing")
    page = written(both)
    assert "| mh-edge int8 | fails: ValueError: no such thing |" in page
    assert "Quantizers: a1, b2." in page
    assert verdicts(*both)["ONNX int4: change of accuracy, points"] == ("0", "met")


def test_only_timings_of_the_judged_files_count(tmp_path):
    trained = Trained("transformer", 0, 0, tmp_path)
    assert load([trained]) == []
    made = result()
    (tmp_path / "judged.json").write_text(json.dumps(made.judged))
    hashes = {key: entry["sha256"] for key, entry in made.judged.items()}
    timing(tmp_path, 0).write_text(json.dumps({"files": hashes, "seconds": made.runs[0]}))
    timing(tmp_path, 1).write_text(json.dumps({"files": hashes | {INT8: "older"}, "seconds": made.runs[0]}))
    (loaded,) = load([trained])
    assert len(loaded.runs) == 1


def test_a_tool_that_kills_the_process_is_passed_over(tmp_path, monkeypatch):
    trained, ends = Trained("transformer", 0, 0, tmp_path), iter([signal.SIGSEGV, 0])
    (tmp_path / "judged.json").write_text("{}")
    (tmp_path / quantization.MAKING).write_text(json.dumps(["tflite tool", "hash"]))
    monkeypatch.setattr(quantization, "child", lambda *arguments: next(ends))
    quantization.make(trained, tmp_path)
    told = json.loads((tmp_path / "judged.json").read_text())
    assert told == {"tflite tool": {"error": "kills the process (SIGSEGV)", "made_by": "hash"}}


def test_a_killed_benchmark_blames_no_tool(tmp_path, monkeypatch):
    monkeypatch.setattr(quantization, "child", lambda *arguments: signal.SIGKILL)
    with pytest.raises(SystemExit):
        quantization.make(Trained("transformer", 0, 0, tmp_path), tmp_path)
    assert not list(tmp_path.iterdir())


def test_steps_stand_for_numbers():
    scale = quantization._Scale(np.dtype("int8"), 0.5, -3)
    steps = scale.steps(np.array([0.0, 1.0, 1000.0]))
    assert steps.tolist() == [-3, -1, 127]
    assert scale.numbers(steps).tolist() == [0.0, 1.0, 65.0]
