"""The benchmarks: their arithmetic by hand, their verdicts, and a run of the smallest model. No time decides."""

from __future__ import annotations

import json
import math
import random

import numpy as np
import pytest

from benchmarks import speed
from benchmarks.columns import Column, load
from benchmarks.engines import ENGINES, named
from benchmarks.figures import interval, per_run, percentile
from benchmarks.models import GROUPS, Point, grid
from benchmarks.prepare import Preparation, check, reason
from benchmarks.report import cells_table, losses, number, target_row, verdict_rows, write
from benchmarks.targets import Target, targets
from benchmarks.timing import CORE, Plan, measure, run

CELL = "Dense d=64 units=16 heads=4 | onnx | T=64 batch=1"


def column(*runs, threads=1, denormals=False):
    return Column("runtimes", threads, denormals, tuple({CELL: seconds} for seconds in runs))


def test_percentile_is_the_sample_below_which_a_fifth_lies():
    assert percentile([5, 1, 4, 2, 3, 6]) == 2
    assert percentile([7]) == 7
    assert percentile([3, 1], 1.0) == 3


def test_interval_of_equal_ratios_is_a_point():
    ratio = interval([0.5, 0.5, 0.5])
    assert (ratio.mean, ratio.low, ratio.high, ratio.runs) == (0.5, 0.5, 0.5, 3)


def test_interval_by_hand():
    # logs -1, 0, 1: mean 0, deviation 1, half 4.303 / sqrt(3)
    ratio = interval([math.exp(-1), 1.0, math.e])
    half = 4.303 / math.sqrt(3)
    assert (ratio.mean, ratio.low, ratio.high) == pytest.approx((1.0, math.exp(-half), math.exp(half)))
    assert ratio.spread == pytest.approx(math.exp(half) - 1)
    with pytest.raises(ValueError, match="no run"):
        interval([])


def test_a_ratio_is_a_geometric_mean_over_the_cells_that_every_run_measured():
    runs = [
        {"a": {"ours": 1.0, "peer": 4.0}, "b": {"ours": 1.0, "peer": 1.0}, "c": {"ours": 9.0, "peer": 1.0}},
        {"a": {"ours": 2.0, "peer": 2.0}, "b": {"ours": 4.0, "peer": 1.0}},
    ]
    assert per_run(runs, ["a", "b", "c"], "ours", "peer") == pytest.approx([0.5, 2.0])
    assert per_run(runs, ["c"], "ours", "peer") == []


@pytest.mark.parametrize(("limit", "verdict"), [(0.5, "met"), (0.45, "met"), (0.35, "missed by 14%"), (None, "shown")])
def test_a_target_is_met_when_the_interval_reaches_it(limit, verdict):
    # ratios .4 and .625: mean .5; wider than the limits above on both sides but for .35
    measured = Column(
        "runtimes", 1, False, tuple({CELL: {"ours": part, "floor": 1.0}} for part in (0.4, 0.42, 0.45, 0.44))
    )
    row = target_row(Target("dense", limit, ("Dense d=64",), "floor"), [measured])
    low = interval([0.4, 0.42, 0.45, 0.44]).low
    assert low == pytest.approx(0.393, abs=0.002)
    expected = verdict if limit is None or low <= limit else f"missed by {low / limit - 1:.0%}"
    assert row[-1] == expected
    assert row[-1].startswith(verdict.split(" by")[0])


def test_a_target_nobody_measured_says_so():
    assert target_row(Target("dense", 1.0, ("Dense",), "floor"), [column({"ours": 1.0})])[-1] == "not measured"


def test_every_target_speaks_of_cells_of_the_grid():
    cells = {f"{model.name} | {kind} | " for model in grid() for kind in ("onnx", "tflite")}
    for target in targets():
        for start in target.cells:
            assert any(cell.startswith(start) for cell in cells), start
        assert {target.peer, target.ours} <= set(CORE), target.title


def test_slower_than_a_peer_counts_beyond_the_control():
    noise = {"ours": 1.0, "control": 1.1}
    slower = column(noise | {"tf2onnx": 0.8, "floor": 0.1}, noise | {"tf2onnx": 0.8, "floor": 0.1})
    assert [(loss.cell, loss.peer) for loss in losses([slower])] == [(CELL, "tf2onnx")]
    within = column(noise | {"tf2onnx": 0.95}, noise | {"tf2onnx": 0.95})
    assert losses([within]) == []


def test_verdicts_about_every_cell():
    good = column({"ours": 1.0, "control": 1.0, "branches": 2.0, "tf2onnx": 2.0})
    assert [row[-1] for row in verdict_rows([good], [("model", "fed", "1")])] == ["met", "met", "met"]
    bad = column({"ours": 1.0, "control": 1.0, "branches": 0.5, "tf2onnx": 0.5})
    assert [row[-1] for row in verdict_rows([bad], [("model", "fed", "2")])] == ["missed", "missed", "missed"]


def test_numbers_keep_two_digits_and_their_spread():
    assert number(interval([0.031])) == "0.031"
    assert number(interval([1234.567])) == "1234.57"
    assert number(None) == "-"
    assert number(interval([0.5, 0.5])) == "0.50 ±0.00"


def test_measure_takes_turns_and_tells_quick_from_slow():
    now, turns = [0.0], []

    def lasting(name, seconds):
        def call():
            turns.append(name)
            now[0] += seconds

        return call

    calls = {"quick": lasting("quick", 0.001), "slow": lasting("slow", 0.02)}
    found = measure(calls, lambda: now[0], 0.1, random.Random(0))  # noqa: S311 - an order
    assert found == pytest.approx({"quick": 0.001, "slow": 0.02})
    assert turns.count("slow") == 1 + 4  # its cost, then as many rounds of 0.022 s as 0.1 s hold
    assert turns.count("quick") == 2 + 4 * 2  # each sample after an uncounted call


@pytest.mark.parametrize(
    ("outputs", "said"),
    [
        ([np.ones((2, 3)) * 1.0005], None),
        ([np.ones((2, 3)) * 1.002], "wrong by 0.002"),
        ([np.full((2, 3), np.nan)], "wrong by nan"),
        ([np.ones((3, 2))], "shape"),
        ([], "0 outputs"),
    ],
)
def test_only_equal_outputs_may_be_timed(outputs, said):
    found = check([np.ones((2, 3))], outputs)
    assert found is None if said is None else said in found


def test_reasons_are_a_line_without_folders():
    text = reason(RuntimeError("Exception from a.cpp:\ncannot open /some/folder/model.onnx | twice\nmore"))
    assert text == "RuntimeError: cannot open model.onnx / twice more"


def test_feeds_go_by_name_or_in_order():
    feeds = {"x": np.zeros((1, 2, 3)), "mask": np.zeros((1, 2))}
    assert set(named([("mask", 2), ("x", 3)], feeds)) == {"x", "mask"}
    assert named([("args_0", 3), ("args_1", 2)], feeds)["args_1"] is feeds["mask"]
    with pytest.raises(ValueError, match="none of the model's"):
        named([("args_0", 2), ("args_1", 3)], feeds)
    with pytest.raises(ValueError, match="1 inputs"):
        named([("args_0", 3)], feeds)


def test_the_grid_is_whole():
    models = grid()
    assert len({model.folder for model in models}) == len(models)
    assert {model.group for model in models} == set(GROUPS)
    names = {model.name for model in models}
    assert {model.beside for model in models} - {None} <= names
    masks = [model.feeds(Point(16, 8, holes=True))["mask"] for model in models if "mask" in model.inputs]
    assert all(mask[:, 0].all() and not mask.all() for mask in masks)


def test_plans_measure_every_column():
    plans = [plan for together in speed.plans(("a",), 5) for plan in together]
    single = [plan for plan in plans if (plan.side, plan.threads) == ("runtimes", 1)]
    assert {(plan.run, plan.denormals) for plan in single} == {
        (run, zero) for run in range(5) for zero in (False, True)
    }
    assert {plan.denormals for plan in plans if plan.threads == 2} == {False, True}
    assert any(plan.side == "tensorflow" for plan in plans)
    assert len({plan.file for plan in plans}) == len(plans)


@pytest.mark.slow
def test_a_small_model_from_the_grid_to_the_tables(tmp_path):
    (model,) = grid("Dense d=64 units=16 heads=4 hidden=16")
    preparation = Preparation(model, tmp_path)
    preparation.run(only=("tf2onnx", "floor", "ours", "branches"))
    assert {key: entry["error"] for key, entry in preparation.meta.items()} == dict.fromkeys(preparation.meta)
    assert all(why is None for entry in preparation.meta.values() for why in entry["points"].values())
    for run_number in range(2):
        run(Plan(run_number, 1, False, "runtimes", False, 1, 0.001, (model.name,)), tmp_path, tmp_path / "timings")
    columns = load(tmp_path / "timings")
    assert len(columns[0].runs) == 2
    assert set(columns[0].runs[0][f"{model.name} | onnx | T=64 batch=8"]) == {
        "ours", "control", "branches", "tf2onnx", "floor"
    }  # fmt: skip
    assert f"| {model.name} | T=1 batch=1 |" in cells_table(columns, [model], "onnx", 1)
    files = write(tmp_path, tmp_path / "results", 3)
    assert (tmp_path / "results" / "speed.md") in files
    text = (tmp_path / "results" / "speed.md").read_text()
    assert str(tmp_path) not in text

    # What is there is not made again, and a file that computes something else is not timed.
    (tmp_path / model.folder / "ours.onnx").write_bytes((tmp_path / model.folder / "floor.onnx").read_bytes())
    before = json.dumps(preparation.meta)
    preparation.run(only=("ours",), fresh=True)
    assert json.dumps(preparation.meta) == before
    point = model.points[0]
    output = ENGINES["floor"](model, tmp_path / model.folder / "ours.onnx", 1)(model.feeds(point))()
    assert check([np.zeros((1, 1, 16, 4), "float32") + 1], output) is not None

    preparation.meta["ours"]["converters"] = "of another state"
    preparation.run(only=("ours",), fresh=True)
    assert json.dumps(preparation.meta) == before
    assert (tmp_path / model.folder / "ours.onnx").read_bytes() != (tmp_path / model.folder / "floor.onnx").read_bytes()
