"""Models as others write them, each of which was once quantized to something else than it computes."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from mh_edge.errors import ConversionError, InputError, UnavailableError
from mh_edge.inspection import inspect
from mh_edge.quantization.onnx.schemes.int8 import SCORES
from mh_edge.quantization.onnx.schemes.int8_dynamic import SPREADS
from mh_edge.quantization.onnx.unfit import HIDDEN_ROWS, MASKING, NOT_FINITE
from mh_edge.quantization.scheme import Options, find_scheme
from tests.quantization.models import Builder, Case
from tests.quantization.schemes import apply

STATIC = ("int8", "int8-a16")
SAMPLES, TIME, DIM = 64, 8, 16

LEAST = 0.03
"""Mean error, in standard deviations of an output, that each of these models stays below; each was above .1."""


def padded(lengths: np.ndarray) -> np.ndarray:
    """1 where a step is hidden."""
    return (np.arange(TIME) >= lengths[:, None]).astype(np.float32)[:, None]


def attention(
    hide: Callable[[Builder], str], seen: Callable[[Builder, str, str], dict[str, int]] | None = None
) -> Case:
    """x, hidden (samples, 1, steps) -> softmax(x Q (x K)^T + mask) x V; hide makes the mask, seen more results."""
    b = Builder(scale=0.3)
    b.feed("x", b.numbers(SAMPLES, TIME, DIM))
    b.feed("hidden", padded(b.random.integers(1, TIME, SAMPLES)))
    q, k, v = (b.add("MatMul", ["x", b.weight(f"w{name}", DIM, DIM)], name) for name in "qkv")
    scores = b.add("MatMul", [q, b.add("Transpose", [k], "k/turned", perm=[0, 2, 1])], "scores")
    mask = hide(b)
    masked = b.add("Add", [scores, mask], "masked")
    y = b.add("MatMul", [b.add("Softmax", [masked], "weights", axis=-1), v], "y")
    return b.case({y: 3, **(seen(b, mask, masked) if seen else {})})


def times(b: Builder) -> str:
    return b.add("Mul", ["hidden", b.constant("size", np.float32(-1e4))], "mask")


def pooled(b: Builder, mask: str, masked: str) -> dict[str, int]:
    turned = b.add("Transpose", [mask], "turned", perm=[0, 2, 1])
    large = b.add("Mul", ["x", b.constant("fifty", np.float32(50))], "large")
    return {b.add("ReduceMax", [b.add("Add", [large, turned], "seen")], "pool", axes=[1]): 3}


def shown(b: Builder, mask: str, masked: str) -> dict[str, int]:
    return {mask: 3}


def sum_shown(b: Builder, mask: str, masked: str) -> dict[str, int]:
    return {masked: 3}


@pytest.mark.parametrize("seen", [pooled, shown, sum_shown])
def test_a_mask_is_made_small_for_the_softmax_alone(seen: Callable[..., dict[str, int]], tmp_path: Path) -> None:
    assert apply("int8-a16", attention(times, seen), tmp_path).error < LEAST


def test_a_given_mask_that_others_read_is_made_small_for_the_softmax_alone(tmp_path: Path) -> None:
    case = attention(lambda b: "hidden", pooled)
    case.feeds["hidden"][:] *= -1e4
    assert apply("int8-a16", case, tmp_path).error < LEAST


def given(b: Builder) -> str:
    return b.add("Mul", ["hidden", b.constant("one", np.float32(1))], "mask")


def divided(b: Builder) -> str:
    less = b.add("Neg", ["hidden"], "less")
    return b.add("Div", [less, b.constant("small", np.float32(1e-9))], "mask")


@pytest.mark.parametrize(("hide", "size"), [(given, -1e4), (given, -1e9), (divided, 1.0)])
def test_a_mask_that_hid_nothing_on_the_calibration_data_hides_later(
    hide: Callable[[Builder], str], size: float, tmp_path: Path
) -> None:
    case = attention(hide)
    nothing = {"x": case.feeds["x"], "hidden": np.zeros((SAMPLES, 1, TIME), np.float32)}
    case.feeds["hidden"][:] *= size
    assert apply("int8-a16", case, tmp_path, seen=nothing).error < LEAST


def small() -> Case:
    b = Builder()
    return b.case({b.dense(b.feed("x", b.numbers(SAMPLES, DIM)), "dense", DIM, DIM): 2})


SCHEMES = ("fp16", "int4", "int8", "int8-a16", "int8-dynamic")


@pytest.mark.parametrize("scheme", SCHEMES)
def test_an_operation_that_reads_what_nothing_gives_is_an_input_error(scheme: str, tmp_path: Path) -> None:
    source = small().save(tmp_path / "float.onnx")
    artifact, model = inspect(source), onnx.load(source)
    model.graph.node[1].input[1] = "dense/bjas"
    onnx.save(model, source)
    with pytest.raises(InputError, match=r"dense/Add reads 'dense/bjas', which nothing gives"):
        find_scheme("onnx", scheme).quantize(artifact, {}, Options())


def test_a_model_that_the_runtime_does_not_run_is_an_input_error(tmp_path: Path) -> None:
    source = small().save(tmp_path / "float.onnx")
    artifact, model = inspect(source), onnx.load(source)
    model.graph.node[0].op_type = "MatMu|"
    onnx.save(model, source)
    scheme = find_scheme("onnx", "int8-a16")
    with pytest.raises(InputError, match=r"the float file cannot be run: .*MatMu"):
        scheme.calibrate(artifact, Options(), [small().feeds])


@pytest.mark.parametrize(
    ("scheme", "package", "extras"),
    [(scheme, "onnxruntime", "quantize,cpu") for scheme in SCHEMES]
    + [(scheme, "onnx_ir", "quantize") for scheme in SCHEMES if scheme != "int8-a16"],
)
def test_a_missing_package_is_named_with_the_line_that_installs_it(
    scheme: str, package: str, extras: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = small()
    source, found = inspect(case.save(tmp_path / "float.onnx")), find_scheme("onnx", scheme)
    for name in [name for name in sys.modules if name.startswith(f"{package}.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UnavailableError, match=f"needs the package '{package}") as caught:
        found.quantize(source, found.calibrate(source, Options(), [case.feeds]) if found.calibrate else {}, Options())
    assert caught.value.hint == f'pip install "mh-edge[{extras}]"'


def table(worst: float) -> Case:
    """Rows of a table, one of which no sample asks for, through a product."""
    b = Builder()
    rows = b.numbers(200, 32)
    rows[7] = worst
    found = b.add("Gather", [b.constant("table", rows), b.feed("ids", b.random.integers(8, 200, (SAMPLES, 6)))], "rows")
    return b.case({found: 3, b.dense(found, "dense", 32, 32): 3})


@pytest.mark.parametrize("scheme", [*STATIC, "int8-dynamic"])
@pytest.mark.parametrize(("worst", "why"), [(-1e4, MASKING), (-np.inf, NOT_FINITE), (np.nan, NOT_FINITE)])
def test_a_table_with_the_rows_of_a_mask_stays_float(scheme: str, worst: float, why: str, tmp_path: Path) -> None:
    made = apply(scheme, table(worst), tmp_path)
    assert made.kept["rows"] == why
    assert scheme == "int8-a16" or np.array_equal(made.found[0], made.truth[0])
    assert 0 < made.error < LEAST


@pytest.mark.parametrize("scheme", [*STATIC, "int8-dynamic", "int4"])
@pytest.mark.parametrize("part", ["kernel", "bias"])
def test_constants_that_are_not_finite_stay_float(scheme: str, part: str, tmp_path: Path) -> None:
    b = Builder()
    x = b.feed("x", b.numbers(SAMPLES, 64))
    whole, broken = b.dense(x, "whole", 64, 64), b.dense(x, "broken", 64, 64)
    case = b.case({whole: 2, broken: 2})
    tensor = next(one for one in case.model.graph.initializer if one.name == f"broken/{part}")
    values = numpy_helper.to_array(tensor).copy()
    values[..., 3] = np.nan
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    made = apply(scheme, case, tmp_path)
    if part == "kernel" or scheme in STATIC:
        assert NOT_FINITE in {why for name, why in made.kept.items() if name.startswith("broken/")}
    assert not any(name.startswith("whole/") for name in made.kept)
    assert scheme == "int8-a16" or np.isnan(made.found[1][:, 3]).all()  # integers go on behind the product
    assert np.isfinite(made.found[0]).all()


@pytest.mark.parametrize("scheme", STATIC)
def test_a_result_that_is_also_cut_off_at_0_is_not_cut_off_itself(scheme: str, tmp_path: Path) -> None:
    b = Builder()
    x = b.feed("x", b.numbers(SAMPLES, 8, 6, 6))
    raw = b.add("Conv", [x, b.weight("kernel", 16, 8, 3, 3), b.weight("bias", 16)], "raw")
    made = apply(scheme, b.case({raw: 4, b.add("Relu", [raw], "cut"): 4}), tmp_path)
    assert made.error < LEAST
    assert (made.found[0] < 0).any()


@pytest.mark.parametrize("scheme", STATIC)
@pytest.mark.parametrize("beta", [0.5, 2.0])
@pytest.mark.parametrize("shape", [(64,), (1,), (1, 1), ()])
def test_any_gemm(scheme: str, beta: float, shape: tuple[int, ...], tmp_path: Path) -> None:
    b = Builder()
    bias = b.constant("c", np.asarray(10 * b.numbers(*shape), np.float32))
    x = b.feed("x", b.numbers(SAMPLES, 64))
    y = b.add("Gemm", [x, b.weight("kernel", 64, 64), bias], "y", alpha=0.5, beta=beta)
    assert 0 < apply(scheme, b.case({y: 2}), tmp_path).error < LEAST


@pytest.mark.parametrize("scheme", STATIC)
def test_a_weight_that_is_read_both_ways(scheme: str, tmp_path: Path) -> None:
    b = Builder()
    ids = b.feed("ids", b.random.integers(0, 200, (SAMPLES,)))
    rows = b.add("Gather", [b.weight("table", 200, 64), ids], "rows")
    there = b.add("Gemm", [rows, b.weight("kernel", 64, 64)], "there", transB=1)
    back = b.add("Gemm", [there, "kernel"], "back")
    made = apply(scheme, b.case({back: 2, b.add("Gemm", [back, "table"], "y", transB=1): 2}), tmp_path)
    assert 0 < made.error < LEAST


def test_a_transposed_convolution_in_groups(tmp_path: Path) -> None:
    b = Builder()
    x = b.feed("x", b.numbers(SAMPLES, 8, 6, 6))
    y = b.add("ConvTranspose", [x, b.weight("kernel", 8, 6, 3, 3), b.weight("bias", 12)], "y", group=2)
    assert 0 < apply("int8-a16", b.case({y: 4}), tmp_path).error < LEAST


def test_a_product_without_a_name_is_no_score_because_its_result_is(tmp_path: Path) -> None:
    b = Builder()
    x = b.feed("x", b.numbers(SAMPLES, 64))
    hidden = b.feed("hidden", np.zeros((SAMPLES, 64), np.float32))
    logits = b.add("MatMul", [x, b.weight("kernel", 64, 64)], "logits", name="")
    y = b.add("Softmax", [b.add("Add", [logits, hidden], "masked", name="")], "y", name="", axis=-1)
    made = apply("int8", b.case({y: 2}), tmp_path)
    assert made.ops["QuantizeLinear"] == 1
    assert made.kept["logits"] == SCORES


@pytest.mark.parametrize("scheme", STATIC)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_file_without_integers_is_none_of_a_scheme(scheme: str, dtype: type, tmp_path: Path) -> None:
    b = Builder()
    x = b.feed("x", b.numbers(SAMPLES, 64).astype(dtype))
    case = b.case({b.add("Relu", [x], "y"): 2})
    case.model.graph.output[0].type.tensor_type.elem_type = case.model.graph.input[0].type.tensor_type.elem_type
    with pytest.raises(ConversionError, match="that int8"):
        apply(scheme, case, tmp_path)


@pytest.mark.parametrize("scheme", STATIC)
def test_names_that_the_quantizer_makes_itself(scheme: str, tmp_path: Path) -> None:
    b = Builder()
    x = b.feed("x", b.numbers(SAMPLES, 64))
    given = b.add("MatMul", [x, b.weight("x_scale", 64, 64)], "x_quantized", name="x_QuantizeLinear")
    cut = b.add("Relu", [given], "x_zero_point", name="x_zero_point_DequantizeLinear")
    more = b.add("MatMul", [cut, b.weight("x'", 64, 64)], "x_DequantizeLinear_Output", name="x")
    y = b.add("MatMul", [more, b.weight("x/dq", 64, 64)], "y_QuantizeLinear_Input", name="x/q")
    assert 0 < apply(scheme, b.case({y: 2, more: 2}), tmp_path).error < LEAST


def infinite(b: Builder) -> str:
    b.constant("nothing", np.float32(0))
    truth = b.add("Cast", ["hidden"], "hidden/truth", to=TensorProto.BOOL)
    return b.add("Where", [truth, b.constant("beyond", np.float32(-np.inf)), "nothing"], "mask")


@pytest.mark.parametrize(
    ("scheme", "note"), [("int8", HIDDEN_ROWS), ("int8-a16", HIDDEN_ROWS), ("int8-dynamic", SPREADS)]
)
def test_rows_that_infinity_hides_wholly_are_told(scheme: str, note: str, tmp_path: Path) -> None:
    made = apply(scheme, attention(infinite), tmp_path)
    assert (note in made.quantized.notes, made.error < LEAST) == (True, True)
    assert note not in apply(scheme, attention(times), tmp_path).quantized.notes


@pytest.mark.parametrize("size", [-1e4, -3e38])
def test_rows_that_a_given_mask_hides_wholly(size: float, tmp_path: Path) -> None:
    """-1e4 leaves the scores their differences, -3e38 makes all steps weigh the same."""
    case = attention(lambda b: "hidden")
    case.feeds["hidden"][::3] = 1
    case.feeds["hidden"][:] *= size
    assert apply("int8-a16", case, tmp_path).error < LEAST
