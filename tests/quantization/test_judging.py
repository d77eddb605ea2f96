"""Every figure of a verdict, against numbers computed by hand."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mh_edge.errors import InputError
from mh_edge.jsontext import dumps
from mh_edge.quantization.data.sets import Data
from mh_edge.quantization.judging.judge import Metric, judge, load_metric
from mh_edge.quantization.judging.measures import Spread
from mh_edge.quantization.judging.verdict import Change, Verdict
from mh_edge.runtimes import open_session
from mh_edge.runtimes.base import Scale
from quantization.tables import Table, samples


def judged(
    r: Sequence[object] | np.ndarray,
    y: Sequence[object] | np.ndarray,
    labels: Sequence[object] | np.ndarray | None = None,
    *,
    metric: Metric | None = None,
    classes: bool | None = None,
    batch: int = 2,
) -> Verdict:
    """The verdict on one output `y` of two tables."""
    ours, theirs = (np.asarray(table, None if isinstance(table, np.ndarray) else "float32") for table in (r, y))
    data = samples(len(ours), None if labels is None else np.asarray(labels), batch=batch)
    return judge(Table({"y": ours}), {"q": Table({"y": theirs})}, data, metric=metric, classes=classes)["q"]


def change(verdict: Verdict) -> Change:
    return verdict.outputs["y"]


R = [[3.0, 4.0], [0.0, 2.0], [1.0, 0.0]]
Y = [[3.0, 3.0], [0.0, 2.0], [1.0, 2.0]]


@pytest.mark.parametrize("batch", [1, 2, 3])
def test_errors_by_hand(batch: int) -> None:
    found = change(judged(R, Y, classes=True, batch=batch))
    # r - y = (0, 1), (0, 0), (0, -2); r has mean 10/6 and mean square 30/6.
    deviation = math.sqrt(30 / 6 - (10 / 6) ** 2)
    assert found.sqnr_db == pytest.approx(10 * math.log10(30 / 5))
    assert found.mean_error_std == pytest.approx((3 / 6) / deviation)
    assert found.max_error_std == pytest.approx(2 / deviation)
    # 21 / (5 sqrt(18)), 1, 1 / sqrt(5)
    assert found.cosine == pytest.approx((21 / (5 * math.sqrt(18)) + 1 + 1 / math.sqrt(5)) / 3)
    assert found.top1_agreement == pytest.approx(1 / 3)  # 1, 1, 0 against 0, 1, 1: a tie goes to the first


@pytest.mark.parametrize("batch", [1, 2, 3])
def test_each_column_of_numbers_has_its_own_unit(batch: int) -> None:
    found = change(judged(R, Y, batch=batch))
    # Columns (3, 0, 1) without an error and (4, 2, 0) with (1, 0, -2): mean square 20/3, mean 2.
    deviation = math.sqrt(20 / 3 - 4)
    assert found.columns == (1, 1, 1)
    assert found.sqnr_db == pytest.approx(10 * math.log10(20 / 5))
    assert found.mean_error_std == pytest.approx(1 / deviation)
    assert found.max_error_std == pytest.approx(2 / deviation)


def test_a_small_column_beside_a_large_one() -> None:
    r = np.array([[1000.0, 0.1], [-1000.0, -0.1]], "float32")
    y = r + np.array([[1.0, 0.05], [0.0, 0.0]], "float32")
    found = change(judged(r, y))
    # Errors of (1, 0) at a deviation of 1000, and of (0.05, 0) at one of 0.1.
    assert found.columns == (1, 1, 1)
    assert found.mean_error_std == pytest.approx(0.25)
    assert found.max_error_std == pytest.approx(0.5)
    assert found.sqnr_db == pytest.approx(10 * math.log10(0.02 / 0.0025))
    assert change(judged(r, y, classes=True)).mean_error_std < 0.001
    wide = np.tile(r, 33)
    assert change(judged(wide, wide + 0.001)).columns is None  # longer than COLUMNS


def test_a_column_that_does_not_change_has_no_unit() -> None:
    r = np.array([[0.0, 2.0], [0.0, -2.0]], "float32")
    verdict = judged(r, r + np.array([[0.5, 0.0], [0.0, 0.0]], "float32"))
    deviation = math.sqrt(8 / 4)  # of all four
    assert change(verdict).columns == (0, 0, 0)
    assert change(verdict).mean_error_std == pytest.approx(0.25 / deviation)
    assert change(verdict).sqnr_db == pytest.approx(10 * math.log10(2 * 2 / 0.25))
    assert "column 0" in verdict.notes[0]


def test_the_spread_of_large_numbers_does_not_cancel() -> None:
    spread = Spread()
    numbers = 1e8 + np.random.default_rng(0).standard_normal((100, 7))
    for block in np.split(numbers, 20):
        spread.add(block)
    assert spread.deviation == pytest.approx(numbers.std(0), rel=1e-6)
    assert spread.pooled().deviation == pytest.approx([numbers.std()], rel=1e-6)
    constant = Spread()
    constant.add(np.full((10, 1), 0.1))
    constant.add(np.full((7, 1), 0.1))
    assert constant.deviation == constant.pooled().deviation == [0.0]


def test_an_exact_match() -> None:
    verdict = judged(R, R, [1, 1, 0])
    assert change(verdict) == Change(math.inf, 0.0, 0.0, pytest.approx(1.0), 1.0, accuracy_float=1.0, accuracy=1.0)
    assert (verdict.accuracy_float, verdict.accuracy, verdict.worse, verdict.better) == (1.0, 1.0, 0, 0)
    assert json.loads(dumps(verdict.to_json()))["sqnr_db"] == "inf"


def test_accuracy_and_who_was_right() -> None:
    r = [[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 0.0]]
    y = [[0.0, 1.0], [0.0, 1.0], [0.0, 1.0], [0.0, 1.0]]
    verdict = judged(r, y, [0, 1, 1, 0])
    assert verdict.metric == "accuracy"
    assert (verdict.accuracy_float, verdict.accuracy) == (3 / 4, 2 / 4)
    assert (verdict.worse, verdict.better) == (2, 1)
    assert verdict.top1_agreement == 1 / 4
    assert (verdict.on, verdict.batch) == ("a table, 4 samples at batch 2", 2)


@pytest.mark.parametrize("labels", [[1.0, 1.0, 0.0], [[1], [1], [0]], [[0, 1], [0, 1], [1, 0]], [True, True, False]])
def test_forms_of_labels(labels: list[object]) -> None:
    verdict = judged(R, Y, labels)
    assert (verdict.accuracy_float, verdict.accuracy, verdict.worse, verdict.better) == (1.0, 1 / 3, 2, 0)


@pytest.mark.parametrize(
    ("r", "y", "float_right", "right"),
    [
        ([0.2, 0.6, 0.4, 0.9], [0.2, 0.4, 0.6, 0.9], 1.0, 0.5),  # probabilities: from 0.5 on
        ([-2.0, 0.2, 0.3, 3.0], [-2.0, -0.2, 0.4, 3.0], 0.75, 0.5),  # logits: from 0 on
    ],
)
@pytest.mark.parametrize("rank", [1, 2])
@pytest.mark.parametrize("batch", [1, 4])
def test_one_number_for_two_classes(
    r: list[float], y: list[float], float_right: float, right: float, rank: int, batch: int
) -> None:
    shape = (4,) if rank == 1 else (4, 1)
    ours, theirs = (np.array(table, "float32").reshape(shape) for table in (r, y))
    verdict = judged(ours, theirs, [0, 1, 0, 1], batch=batch)
    assert (verdict.accuracy_float, verdict.accuracy) == (float_right, right)
    assert judged(ours, theirs).top1_agreement is None  # without labels it may be any number
    assert judged(ours, theirs, classes=True).top1_agreement is not None


def test_a_class_at_each_step() -> None:
    r = np.eye(3, dtype="float32")[[[0, 1], [2, 2]]]
    y = np.eye(3, dtype="float32")[[[0, 2], [2, 2]]]
    verdict = judged(r, y, [[0, 1], [2, 1]])
    assert (verdict.accuracy_float, verdict.accuracy, verdict.worse) == (3 / 4, 2 / 4, 1)
    assert verdict.top1_agreement == 3 / 4
    assert judged(r, y).top1_agreement == 3 / 4  # probabilities, as it happens
    assert judged(2 * r, y).top1_agreement is None
    assert judged(2 * r, y, classes=True).top1_agreement == 3 / 4
    assert judged(R, Y, classes=False).top1_agreement is None


def test_without_labels_only_probabilities_are_known_to_be_classes() -> None:
    p = np.array([[0.6, 0.4], [0.2, 0.8], [0.5005, 0.5]], "float32")
    flipped = p[:, ::-1].copy()
    for batch in (1, 2, 3):
        assert judged(p, flipped, batch=batch).top1_agreement == 0.0
        for last in ([0.5, 0.6], [1.2, -0.2], [4.0, 3.0]):  # it shows in the last batch only
            numbers = np.concatenate([p, np.array([last], "float32")])
            found = judged(numbers, numbers, batch=batch)
            assert found.top1_agreement is None
            assert change(found).columns is not None
            assert judged(numbers, numbers, classes=True, batch=batch).top1_agreement == 1.0
    unknown = np.concatenate([p, np.array([[math.nan, 0.3]], "float32")])
    assert judged(unknown, unknown).top1_agreement is not None


def test_labels_that_are_named_after_outputs() -> None:
    ours = Table({"a": np.array(R, "float32"), "b": np.array(R, "float32"), "c": np.array(R, "float32")})
    theirs = Table({"a": np.array(R, "float32"), "b": np.array(Y, "float32"), "c": np.array(R, "float32")})
    data = samples(3, np.array([0, 0, 0]), named={"b": np.array([1, 1, 0]), "c": np.array([0.5, 0.5, 0.5])})
    verdict = judge(ours, {"q": theirs}, data)["q"]
    # a has the labels without a name; b lost 2 of 3; those of c are no classes.
    assert [one.accuracy_float for one in verdict.outputs.values()] == [1 / 3, 1.0, None]
    assert [one.accuracy for one in verdict.outputs.values()] == [1 / 3, 1 / 3, None]
    assert (verdict.metric, verdict.accuracy_float, verdict.accuracy) == ("accuracy of 'b'", 1.0, 1 / 3)
    assert (verdict.worse, verdict.better) == (2, 0)
    assert "The labels of 'c' (float64 (samples)) are no classes of it" in verdict.notes[0]
    assert len(verdict.notes) == 1
    alone = judge(ours, {"q": theirs}, samples(3, named={"b": np.array([1, 1, 0])}))["q"]
    assert (alone.metric, alone.accuracy, alone.notes) == ("accuracy", 1 / 3, ())

    def seen(outputs: dict[str, np.ndarray], labels: dict[str, np.ndarray]) -> float:
        assert sorted(labels) == ["b", "c", "labels"]
        return 1.0

    assert judge(ours, {"q": theirs}, data, metric=seen)["q"].accuracy == 1.0


def test_labels_that_turn_out_to_be_none() -> None:
    with pytest.raises(InputError, match="from sample 2 to 2 are of another form"):
        judged(R, Y, [[0, 1], [0, 1], [1, 1]])
    with pytest.raises(InputError, match=r"no class.*--no-classes"):
        judged(R, Y, [1.0, 0.0, 0.5])
    assert judged(R, Y, [1.0, 0.0, 0.5], classes=False).accuracy is None


def test_outputs_that_are_decisions() -> None:
    verdict = judged(np.array([2, 1, 0]), np.array([2, 1, 1]), [2, 0, 0])
    assert (verdict.accuracy_float, verdict.accuracy, verdict.top1_agreement) == (2 / 3, 1 / 3, 2 / 3)


def test_labels_go_to_the_output_that_they_fit() -> None:
    hidden = np.zeros((3, 4), "float32")
    ours = Table({"hidden": hidden[:, :, None], "a": np.array(R, "float32"), "b": np.array(Y, "float32")[:, :, None]})
    theirs = Table({"hidden": hidden[:, :, None], "a": np.array(Y, "float32"), "b": np.array(Y, "float32")[:, :, None]})
    verdict = judge(ours, {"q": theirs}, samples(3, np.array([1, 1, 0])))["q"]
    assert (verdict.metric, verdict.accuracy_float, verdict.accuracy) == ("accuracy", 1.0, 1 / 3)
    assert [one.top1_agreement for one in verdict.outputs.values()] == [None, 1 / 3, None]
    assert verdict.top1_agreement == 1 / 3


def test_labels_that_fit_several_outputs_have_to_name_theirs() -> None:
    both = Table({"a": np.array(R, "float32"), "b": np.array(Y, "float32")})
    with pytest.raises(InputError, match=r"fit 'a' and 'b'.*'labels.b'"):
        judge(both, {"q": both}, samples(3, np.array([1, 1, 0])))


def test_a_row_of_ids_that_looks_one_hot_is_a_row_of_ids() -> None:
    scores = np.zeros((2, 3, 3), "float32")
    scores[..., 0] = 1.0
    table = Table({"y": scores})
    ids = np.array([[0, 1, 0], [0, 0, 0]])  # as many steps as classes; the first row has a single 1
    assert judge(table, {"q": table}, samples(2, ids, batch=1))["q"].accuracy == 5 / 6


def test_labels_that_are_text_are_refused() -> None:
    with pytest.raises(InputError, match="not numbers"):
        judged(R, Y, ["a", "b", "c"])


def test_a_metric_cannot_change_what_is_compared() -> None:
    def scribbling(outputs: dict[str, np.ndarray], labels: np.ndarray) -> float:
        outputs["y"][:] = 0
        return 1.0

    table = Table({"y": np.array(R, "float32")})
    assert judge(table, {"q": table}, samples(3, np.array([1, 1, 0])), metric=scribbling)["q"].sqnr_db == math.inf


def test_labels_that_are_no_classes() -> None:
    verdict = judged(R, Y, [[0.5, 0.1], [0.2, 0.2], [0.3, 0.4]])
    assert verdict.accuracy is None
    assert verdict.top1_agreement is None  # numbers to be predicted, not scores
    assert "float64 (samples, 2)" in verdict.notes[0]
    assert "--metric" in verdict.notes[0]
    assert judged([[1.0], [2.0]], [[1.0], [2.0]], [1.0, 2.5]).accuracy is None
    for wrong, sample in (([0, 1, 2], 2), ([0, -1, 0], 1)):
        with pytest.raises(InputError, match=f"sample {sample} is no class: 'y' has 2"):
            judged(R, Y, wrong, batch=1)


def test_numbers_that_are_not_finite() -> None:
    verdict = judged(R, [[3.0, 4.0], [0.0, math.nan], [math.inf, 0.0]], [1, 1, 0])
    found = change(verdict)
    assert (found.not_finite, found.sqnr_db, found.mean_error_std) == (2, -math.inf, math.inf)
    assert (verdict.accuracy, found.top1_agreement) == (2 / 3, 2 / 3)  # a row with NaN decides nothing
    assert found.cosine == pytest.approx(1 / 3)
    assert "2 of 6 numbers of 'y' are NaN or infinite in the quantized model" in verdict.notes[0]
    assert not any(math.isnan(value) for value in vars(found).values() if value is not None)
    already = judged([[3.0, math.nan], [0.0, 2.0]], [[2.0, math.nan], [0.0, 2.0]])
    assert change(already).sqnr_db == pytest.approx(10 * math.log10(9 / 1))
    assert "1 of the numbers of 'y' are NaN or infinite in the float model already" in already.notes[0]


def test_a_constant_output() -> None:
    same, other = judged([[0.1]] * 3, [[0.1]] * 3), judged([[0.1]] * 3, [[0.1], [0.1], [0.2]])
    assert (change(same).mean_error_std, change(other).mean_error_std) == (0.0, math.inf)
    assert "'y' is 0.1 in every sample of the float model" in other.notes[0]
    zero = change(judged([[0.0, 0.0]], [[0.0, 1.0]]))
    assert (zero.sqnr_db, zero.cosine) == (-math.inf, 0.0)
    assert change(judged([[0.0, 0.0]], [[0.0, 0.0]])).cosine == 1.0


def within(outputs: dict[str, np.ndarray], labels: np.ndarray | None) -> np.ndarray:
    """-|y - label|."""
    return -np.abs(outputs["y"][:, 0] - labels)


def test_a_metric_for_each_sample_and_as_a_mean() -> None:
    r, y, labels = [[1.0], [2.0], [3.0]], [[1.5], [2.0], [2.5]], [1.0, 2.5, 2.5]
    verdict = judged(r, y, labels, metric=within)
    assert verdict.metric == f"{__name__}:within"
    assert verdict.accuracy_float == pytest.approx(-(0 + 0.5 + 0.5) / 3)
    assert verdict.accuracy == pytest.approx(-(0.5 + 0.5 + 0) / 3)
    assert (verdict.worse, verdict.better) == (1, 1)
    assert not verdict.share  # numbers below 0
    assert judged(r, y, labels, metric=lambda outputs, labels: 1 + within(outputs, labels)).share
    mean = judged(r, y, labels, metric=lambda outputs, labels: within(outputs, labels).mean())
    assert mean.accuracy == pytest.approx(verdict.accuracy)  # batches of 2 and 1 count as 2 and 1
    assert (mean.worse, mean.better) == (None, None)


def test_a_metric_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(outputs: dict[str, np.ndarray], labels: np.ndarray | None) -> float:
        raise ZeroDivisionError("nothing to divide by")

    for metric, said in (
        (broken, r"broken raised ZeroDivisionError: nothing to divide by"),
        (lambda outputs, labels: np.zeros(7), r"shape \(7,\) for 2 samples"),
        (lambda outputs, labels: "good", r"raised ValueError"),
        (lambda outputs, labels: math.nan, r"gives NaN for a sample from 0 to 1"),
    ):
        with pytest.raises(InputError, match=said):
            judged(R, Y, metric=metric)
    (tmp_path / "own_metric.py").write_text("def best(outputs, labels):\n    return 1.0\n")
    monkeypatch.chdir(tmp_path)
    assert judged(R, Y, metric=load_metric("own_metric:best")).metric == "own_metric:best"
    for spec in ("own_metric:worst", "no_such_module:best", "own_metric"):
        with pytest.raises(InputError, match=spec.partition(":")[0]):
            load_metric(spec)


@pytest.mark.parametrize("ours", ["batch", 2])
@pytest.mark.parametrize("theirs", ["batch", 1, 2, 4])
def test_batches_that_differ_and_rows_that_fill(ours: int | str, theirs: int | str) -> None:
    reference, candidate = (
        Table({"y": np.array(table, "float32")}, batch=batch) for table, batch in ((R, ours), (Y, theirs))
    )
    data = samples(3, np.array([1, 1, 0]), fill=ours != "batch")
    verdict = judge(reference, {"q": candidate}, data)["q"]
    size = 2 if theirs == "batch" else theirs
    same = replace(judged(R, Y, [1, 1, 0]), batch=size, on=f"a table, 3 samples at batch {size}")
    assert verdict == same
    assert candidate.calls == {"batch": [2, 1], 1: [1, 1, 1], 2: [2, 2], 4: [4, 4]}[theirs]


def test_several_candidates_in_one_pass() -> None:
    reference = Table({"y": np.array(R, "float32")})
    verdicts = judge(reference, {"same": reference, "q": Table({"y": np.array(Y, "float32")})}, samples(3))
    assert verdicts["same"].sqnr_db == math.inf
    assert verdicts["q"].sqnr_db == pytest.approx(10 * math.log10(20 / 5))
    alone = Table({"y": np.array(R, "float32")})
    judge(alone, {str(number): Table({"y": np.array(Y, "float32")}) for number in range(3)}, samples(3))
    assert alone.calls == [2, 1]


def test_integers_that_stand_for_numbers() -> None:
    scale = Scale(0.5, -3, "int8")
    assert list(scale.integers(np.array([0.0, 1.0, -0.8, 1e9, -1e9]))) == [-3, -1, -5, 127, -128]
    assert list(scale.numbers(np.array([-3, -1, 127], "int8"))) == [0.0, 1.0, 65.0]
    stored = Table({"other": scale.integers(np.array(Y))}, dtype="int32", scales={"other": scale})
    assert judge(Table({"y": np.array(R, "float32")}), {"q": stored}, samples(3))["q"] == judged(R, Y)


def test_what_cannot_be_compared() -> None:
    r = Table({"y": np.array(R, "float32")})
    with pytest.raises(InputError, match="not as many"):
        judge(r, {"q": Table({"a": np.array(R), "b": np.array(R)})}, samples(3))
    with pytest.raises(InputError, match=r"the shape \(2, 1\), where the float model gives \(2, 2\)"):
        judge(r, {"q": Table({"y": np.zeros((3, 1), "float32")})}, samples(3))
    with pytest.raises(InputError, match="without a scale"):
        judge(r, {"q": Table({"y": np.array(R, "float32")}, dtype="float32")}, samples(3))
    with pytest.raises(InputError, match="holds no sample"):
        judge(r, {"q": r}, Data("nothing", lambda: iter(())))


def test_progress_counts_samples() -> None:
    told: list[tuple[str, int | None, int | None]] = []

    def tell(step: str, done: int | None = None, total: int | None = None) -> None:
        told.append((step, done, total))

    r = Table({"y": np.array(R, "float32")})
    judge(r, {"q": r}, samples(3), progress=tell)
    assert told == [("judging", None, None), ("judging", 2, 3), ("judging", 3, 3)]


def test_a_tflite_file_with_integer_inputs_and_outputs(tmp_path: Path) -> None:
    import tensorflow as tf

    rng = np.random.default_rng(0)
    kernel, x = rng.standard_normal((4, 3)).astype("float32"), rng.standard_normal((64, 4)).astype("float32")

    @tf.function(input_signature=[tf.TensorSpec((1, 4), name="x")])
    def product(x: tf.Tensor) -> tf.Tensor:
        return x @ kernel

    paths = {}
    for name in ("float", "int8"):
        converter = tf.lite.TFLiteConverter.from_concrete_functions([product.get_concrete_function()], tf.Module())
        if name == "int8":
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
            converter.representative_dataset = lambda: ([row[None]] for row in x)
            converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
            converter.inference_input_type = converter.inference_output_type = tf.int8
        paths[name] = tmp_path / f"{name}.tflite"
        paths[name].write_bytes(converter.convert())
    from mh_edge.quantization.data.sets import open_data

    with open_session(paths["float"], threads=1) as session, open_session(paths["int8"], threads=1) as quantized:
        assert [tensor.dtype for tensor in (*quantized.signature.inputs, *quantized.signature.outputs)] == ["int8"] * 2
        assert not session.input_scales
        data = open_data({"x": x}, session.signature, purpose="evaluation")
        verdict = judge(session, {"int8": quantized}, data, classes=True)["int8"]
    assert 30 < verdict.sqnr_db < 60
    assert verdict.top1_agreement is not None
    assert verdict.top1_agreement > 0.9


def test_a_column_that_hardly_changes_is_measured_by_the_whole_output() -> None:
    rng = np.random.default_rng(0)
    r = np.stack([rng.normal(size=200), 5 + 1e-4 * rng.normal(size=200)], 1)  # the second is a bias, and rounding
    y = r + 0.01 * rng.normal(size=r.shape)
    change = judge(values(r), {"q": values(y)}, samples(200, batch=50))["q"].outputs["y"]
    assert change.columns is not None
    assert change.mean_error_std < 0.02
    small = np.stack([r[:, 0], 1e-3 * rng.normal(size=200)], 1)  # but it does change
    lost = small * (1, 0)
    assert judge(values(small), {"q": values(lost)}, samples(200, batch=50))["q"].mean_error_std > 0.5


def values(numbers: np.ndarray) -> Table:
    return Table({"y": numbers.astype("float32")})
