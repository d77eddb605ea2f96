"""Models as others write them, each of which was once quantized to something else than it computes."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from mh_edge.errors import InputError, UnavailableError
from mh_edge.inspection import inspect
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
