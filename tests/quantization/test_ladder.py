"""The ladder: which candidates are tried, what is kept in float, and which is chosen."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mh_edge.artifact import Artifact
from mh_edge.errors import ConversionError, UsageError
from mh_edge.quantization.auto import ladder as module
from mh_edge.quantization.auto.ladder import Ladder, Step, climb
from mh_edge.quantization.auto.parts import parts, rewrite, weights
from mh_edge.quantization.data.sets import Data, open_data
from mh_edge.quantization.judging.gate import Asked, Gate
from mh_edge.quantization.judging.measuring import Measure
from mh_edge.quantization.judging.verdict import Change, Verdict
from mh_edge.quantization.making import make
from mh_edge.quantization.recipe import Recipe
from mh_edge.quantization.scheme import Options, Quantized, Range, Ranges, Scheme, find_scheme

POINT = Gate("points", 1.0)


def step(drop: float, size: float, time: float | None, *, failed: bool = False, label: str = "int8") -> Step:
    """A step that lost `drop` points of accuracy."""
    change = Change(30.0, 0.01, 0.1, 1.0, 0.99)
    verdict = Verdict("x", 100, {"y": change}, "accuracy", 0.95, 0.95 - drop / 100, size_ratio=size, latency_ratio=time)
    return Step(Recipe("onnx", label, Options(), {}, "0" * 64), (), 0, verdict, ("it failed",) if failed else ())


def chosen(*steps: Step, gate: Gate | None = POINT) -> Ladder:
    return module._chosen(steps, gate, {}, ())


def test_the_best_has_the_smallest_size_times_time() -> None:
    found = chosen(step(0.5, 0.4, 0.6), step(0.9, 0.3, 0.7), step(0.1, 0.5, 1.0), step(0.0, 0.2, 0.9, failed=True))
    assert found.best is not None
    assert found.best.verdict.size_ratio == 0.3
    assert found.nearest is found.best


def test_of_equals_the_first_is_taken_and_what_is_not_timed_counts_as_float() -> None:
    found = chosen(step(0, 0.4, 0.5, label="a"), step(0, 0.5, 0.4, label="b"), step(0, 0.21, None, label="c"))
    assert found.best is not None
    assert found.best.label == "a"


def test_the_front_holds_what_no_other_step_beats_in_all() -> None:
    found = chosen(
        step(0.5, 0.4, 0.6),
        step(0.5, 0.4, 0.7),  # slower than the first, and no better
        step(0.4, 0.5, 0.9),
        step(2.0, 0.3, 0.6, failed=True),
        step(0.5, 0.4, 0.6),  # the same as the first
    )
    assert [one.on_front for one in found.steps] == [True, False, True, True, True]


def test_when_nothing_passes_the_nearest_is_the_fastest_of_the_accurate_or_lost_least() -> None:
    slow = chosen(step(0.5, 0.4, 1.2, failed=True), step(0.6, 0.4, 1.1, failed=True), step(3, 0.3, 0.5, failed=True))
    assert slow.best is None
    assert slow.nearest.verdict.latency_ratio == 1.1
    bad = chosen(step(4, 0.4, 0.5, failed=True), step(3, 0.4, 1.5, failed=True))
    assert bad.best is None
    assert bad.nearest.verdict.latency_ratio == 1.5
    assert bad.to_json()["best"] is None


def harmful(by: Mapping[str, float], *, fails: bool = False) -> Callable[[Artifact, Ranges, Options], Quantized]:
    """A fake scheme: the weights of each layer are larger by a factor; those kept in float are not."""

    def quantize(source: Artifact, ranges: Ranges, options: Options) -> Quantized:
        left = {name: factor for name, factor in by.items() if name not in options.keep_float}
        changed = {
            share: value * (1 + factor)
            for layer, factor in left.items()
            for share, (_, value) in weights(source).items()
            if share.startswith(layer + "/")
        }
        if fails or not changed:
            raise ConversionError("there is nothing to quantize.")
        return Quantized(lambda path: (rewrite(source, changed, path), (path,))[1])

    return quantize


@pytest.fixture
def data(exported: Mapping[str, Artifact], samples: dict[str, np.ndarray]) -> Data:
    return open_data(samples, exported["onnx"].signature, purpose="calibration")


HARM = {"embed": 0.001, "attention": 0.004, "wide": 0.02, "classes": 0.2}


def climbed(
    source: Artifact,
    data: Data | None,
    measured: Data,
    folder: Path,
    limit: float,
    options: Options | None = None,
    shrunk: float = 2.0,
) -> Ladder:
    """shrunk: by what factor the fake schemes, which write floats, seem to make the file smaller."""
    source = replace(source, bytes=int(shrunk * source.bytes))
    measure = Measure(measured, threads=None)
    return climb(source, options or Options(), data, measure, Asked(Gate("db", limit), None), folder)


def given(monkeypatch: pytest.MonkeyPatch, *schemes: Scheme) -> None:
    monkeypatch.setattr(module, "schemes_for", lambda _: {one.name: one for one in schemes})


@pytest.mark.parametrize("limit", [5.0, 30.0, 57.0, 80.0])
def test_the_fewest_layers_that_have_to_stay_in_float_are_found(
    exported: Mapping[str, Artifact],
    data: Data,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    limit: float,
) -> None:
    """What bisection finds is what trying each number of layers finds, in at most log2 trials."""
    source = exported["onnx"]
    scheme = Scheme("onnx", "int8", harmful(HARM), None, ("keep_float",))
    given(monkeypatch, scheme)
    found = climbed(source, data, data, tmp_path, limit)
    order = ["classes", "wide", "attention", "embed"]
    one_by_one = []
    for count in range(4):
        made = make(scheme, source, {}, Options(keep_float=tuple(order[:count])), tmp_path / f"{count}.onnx")
        one_by_one.append(Measure(data, threads=None).verdicts(source, {"": made.path})[""].sqnr_db)
        made.path.unlink()
    assert one_by_one == sorted(one_by_one)
    fewest = next((count for count, sqnr in enumerate(one_by_one) if sqnr >= limit), None)
    assert (None if found.best is None else len(found.best.kept)) == fewest
    assert len(found.steps) <= 1 + math.ceil(math.log2(4))
    if fewest != 0:
        assert [one.name for one in found.sensitivities["int8"] if one.head is None] == order
    if fewest:
        assert found.best is not None
        assert found.best.label == f"int8, {fewest} of 4 layers in float"
        assert found.best.recipe.options.keep_float == found.best.kept == tuple(order[:fewest])
        assert found.best.verdict.sqnr_db == pytest.approx(one_by_one[fewest])
    assert not list(tmp_path.iterdir())


def test_without_calibration_data_static_schemes_are_not_tried_and_nothing_is_kept(
    exported: Mapping[str, Artifact], data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given(
        monkeypatch,
        Scheme("onnx", "int8", harmful(HARM), lambda *_: {}, ("keep_float",)),
        Scheme("onnx", "fp16", harmful(HARM), None, ("keep_float",)),
    )
    found = climbed(exported["onnx"], None, data, tmp_path, 60.0)
    assert [one.label for one in found.steps] == ["fp16"]
    assert found.notes == ("int8 was not tried: it needs calibration data (--calibration)",)
    assert found.sensitivities == {}
    assert found.best is None


def test_ranges_are_measured_once_for_all_schemes_that_see_them_alike(
    exported: Mapping[str, Artifact], data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def observe(source: Artifact, options: Options, batches: object) -> Ranges:
        calls.append(options)
        return {"x": Range(-1.0, 1.0)}

    schemes = [Scheme("onnx", name, harmful(HARM), observe, ("per_channel",)) for name in ("int8", "int4")]
    given(monkeypatch, *schemes)
    found = climbed(exported["onnx"], data, data, tmp_path, 1.0, Options(per_channel=False))
    assert calls == [Options(per_channel=False)]
    assert [one.recipe.ranges for one in found.steps] == [{"x": Range(-1.0, 1.0)}] * 2


def test_a_scheme_that_cannot_take_the_model_is_a_note_and_all_of_them_an_error(
    exported: Mapping[str, Artifact], data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = Scheme("onnx", "int8", harmful(HARM, fails=True), None, ())
    given(monkeypatch, broken, Scheme("onnx", "fp16", harmful(HARM), None, ()))
    found = climbed(exported["onnx"], data, data, tmp_path, 1.0)
    assert [one.label for one in found.steps] == ["fp16"]
    assert found.notes == ("int8 was not tried: there is nothing to quantize",)
    given(monkeypatch, broken)
    with pytest.raises(ConversionError, match="no scheme takes this model: int8 was not tried"):
        climbed(exported["onnx"], data, data, tmp_path, 1.0)
    assert not list(tmp_path.iterdir())


def test_a_file_that_is_neither_smaller_nor_faster_is_not_chosen(
    exported: Mapping[str, Artifact], data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given(monkeypatch, Scheme("onnx", "fp16", harmful(HARM), None, ()))
    found = climbed(exported["onnx"], data, data, tmp_path, 1.0, shrunk=0.9)
    assert found.best is None
    assert found.nearest.failed == ("it is neither smaller nor faster than float",)


def test_an_option_that_no_scheme_reads_is_refused(
    exported: Mapping[str, Artifact], data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given(monkeypatch, Scheme("onnx", "int8", harmful(HARM), None, ("keep_float",)))
    with pytest.raises(UsageError, match="has the option block_size"):
        climbed(exported["onnx"], data, data, tmp_path, 1.0, Options(block_size=64))


@pytest.mark.parametrize("format", ["onnx", "tflite"])
def test_with_the_real_schemes_the_recipe_of_the_best_makes_its_file_again(
    exported: Mapping[str, Artifact], samples: dict[str, np.ndarray], tmp_path: Path, format: str
) -> None:
    source = exported[format]
    calibration = open_data(samples, source.signature, purpose="calibration")
    evaluation = open_data(
        {name: array[::-1] for name, array in samples.items()}, source.signature, purpose="evaluation"
    )
    asked = Asked(Gate("db", 40.0), None)
    found = climb(source, Options(), calibration, Measure(evaluation), asked, tmp_path)
    assert not found.notes
    assert {one.recipe.scheme for one in found.steps} == set(module.RUNGS)
    assert found.best is not None
    assert found.best.verdict.sqnr_db >= 40
    assert found.best.verdict.latency_ratio is not None
    assert found.best.verdict.size_ratio is not None
    assert found.best.verdict.size_ratio < 0.9
    assert any(one.on_front for one in found.steps)
    known = {part.name for part in parts(source)}
    assert any(one.kept for one in found.steps)
    assert all(set(one.kept) < known for one in found.steps)
    recipe = Recipe.from_json(found.best.recipe.to_json())
    assert recipe.fits(source)
    scheme = find_scheme(format, recipe.scheme)
    first = make(scheme, source, recipe.ranges, recipe.options, tmp_path / f"a.{format}")
    again = make(scheme, source, found.best.recipe.ranges, found.best.recipe.options, tmp_path / f"b.{format}")
    assert first.path.read_bytes() == again.path.read_bytes()
    verdict = Measure(evaluation, threads=None).verdicts(source, {"": first.path})[""]
    assert verdict.sqnr_db == found.best.verdict.sqnr_db
