"""The adapters: what a file says of itself, results, and a sentence for everything that does not fit."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers
from onnx import TensorProto, helper, save_model

import artifacts
from mh_edge.artifact import Manifest, file_sha256
from mh_edge.errors import InputError, UnavailableError, UsageError
from mh_edge.runtimes import open_session
from mh_edge.runtimes.base import Session
from mh_edge.signature import Signature

RNG = np.random.default_rng(0)
KERNEL, BIAS = RNG.standard_normal((6, 5)).astype("float32"), RNG.standard_normal(5).astype("float32")
ROWS = RNG.standard_normal((3, 6)).astype("float32")


@pytest.fixture(scope="module")
def onnx_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return artifacts.affine_onnx(tmp_path_factory.mktemp("files") / "affine.onnx", KERNEL, BIAS, op="Relu")


@pytest.fixture(scope="module")
def tflite_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    x = keras.Input((None, 6), name="x")
    model = keras.Model(x, layers.Dense(5, activation="relu", name="y")(x))
    model.set_weights([KERNEL, BIAS])
    return artifacts.to_tflite(model, tmp_path_factory.mktemp("files") / "dense.tflite", batch=1)


def test_onnx_runs_and_tells_its_signature(onnx_file: Path) -> None:
    with open_session(onnx_file) as session:
        assert session.runtime == "ONNX Runtime"
        assert [(t.name, t.dtype, t.shape) for t in session.signature.inputs] == [("x", "float32", ("batch", 6))]
        assert [(t.name, t.dtype, t.shape) for t in session.signature.outputs] == [("y", "float32", ("batch", 5))]
        got = session.run({"x": ROWS})["y"]
    np.testing.assert_allclose(got, np.maximum(ROWS @ KERNEL + BIAS, 0), atol=1e-6)


def test_tflite_is_resized_to_each_feed(tflite_file: Path) -> None:
    with open_session(tflite_file) as session:
        assert session.runtime == "LiteRT"
        (x,) = session.signature.inputs
        assert (x.name, x.dtype, x.shape) == ("x", "float32", (1, "x_dim_1", 6))
        (y,) = session.signature.outputs
        for length in (4, 1, 9, 9):
            rows = RNG.standard_normal((1, length, 6)).astype("float32")
            np.testing.assert_allclose(session.run({"x": rows})[y.name], np.maximum(rows @ KERNEL + BIAS, 0), atol=1e-6)


def test_names_come_from_the_signature_of_the_file(tmp_path: Path) -> None:
    with open_session(artifacts.stateful_tflite(tmp_path / "state.tflite")) as session:
        assert [tensor.name for tensor in session.signature.inputs] == ["x"]
        assert [tensor.name for tensor in session.signature.outputs] == ["y"]
        one = session.run({"x": np.ones((1, 4), "float32")})["y"]
        two = session.run({"x": np.ones((1, 4), "float32")})["y"]
        np.testing.assert_array_equal(one, np.full((1, 4), 2.0))  # results are copies: the second run left the first
        np.testing.assert_array_equal(two, np.full((1, 4), 3.0))


@pytest.mark.parametrize(
    ("feeds", "message"),
    [
        ({}, "no array for input 'x'"),
        ({"x": ROWS, "more": ROWS}, "no input 'more'"),
        ({"x": ROWS.astype("float64")}, "is float32, the array given is float64"),
        ({"x": ROWS[:, :5]}, r"shape \(batch, 6\), the array given has \(3, 5\): axis 1 must be 6, not 5"),
        ({"x": ROWS[0]}, r"shape \(batch, 6\), the array given has \(6,\)"),
    ],
)
def test_feeds_that_do_not_fit_are_refused(onnx_file: Path, feeds: dict[str, np.ndarray], message: str) -> None:
    with open_session(onnx_file) as session, pytest.raises(InputError, match=message):
        session.run(feeds)


def test_int64_is_not_cast_to_int32(tmp_path: Path) -> None:
    ids = keras.Input((None,), dtype="int32", name="ids")
    model = keras.Model(ids, layers.Embedding(7, 3, name="y")(ids))
    for path in (
        artifacts.to_onnx(model, tmp_path / "ids.onnx"),
        artifacts.to_tflite(model, tmp_path / "ids.tflite", batch=1),
    ):
        with open_session(path) as session:
            with pytest.raises(InputError, match=r"is int32, the array given is int64"):
                session.run({"ids": np.ones((1, 4), "int64")})
            assert next(iter(session.run({"ids": np.ones((1, 4), "int32")}).values())).shape == (1, 4, 3)


def test_what_the_runtime_refuses_is_a_sentence_and_the_session_lives_on(tmp_path: Path) -> None:
    ids = keras.Input((None,), dtype="int32", name="ids")
    path = artifacts.to_onnx(keras.Model(ids, layers.Embedding(7, 3, name="y")(ids)), tmp_path / "ids.onnx")
    with open_session(path) as session:
        with pytest.raises(InputError, match=r"ONNX Runtime cannot run .* on this feed: .*out of data bounds"):
            session.run({"ids": np.full((1, 4), 99, "int32")})
        session.run({"ids": np.ones((1, 4), "int32")})


def test_a_scalar_stays_one(tmp_path: Path) -> None:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [])
    graph = helper.make_graph(
        [helper.make_node("Neg", ["x"], ["y"])], "g", [x], [helper.make_tensor_value_info("y", 1, [])]
    )
    path = tmp_path / "scalar.onnx"
    save_model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    with open_session(path) as session:
        assert session.run({"x": np.array(2, "float32")})["y"].shape == ()


def test_a_free_size_is_one_size(tmp_path: Path) -> None:
    a, b = keras.Input((None, 2), name="a"), keras.Input((None, 2), name="b")
    path = artifacts.to_onnx(keras.Model([a, b], layers.Add(name="y")([a, b])), tmp_path / "sum.onnx")
    import onnx

    model = onnx.load(path)
    for value in model.graph.input:
        value.type.tensor_type.shape.dim[1].dim_param = "sequence"
    onnx.save(model, path)
    with open_session(path) as session, pytest.raises(InputError, match=r"'sequence' of .* is 3 in input 'a' and 4"):
        session.run({"a": np.ones((1, 3, 2), "float32"), "b": np.ones((1, 4, 2), "float32")})


@pytest.mark.parametrize("suffix", ["onnx", "tflite"])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"is empty \(0 bytes\)"),
        (b"PK\x03\x04 a zip archive, not a model at all", "bad"),
        (b"\x1c\x00\x00\x00TFL3" + bytes(200), "bad"),
    ],
    ids=["empty", "foreign", "headed"],
)
def test_a_file_that_is_no_model_is_refused(tmp_path: Path, suffix: str, content: bytes, message: str) -> None:
    path = tmp_path / f"bad.{suffix}"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        open_session(path)
    assert caught.value.exit_code == 3


def test_a_truncated_file_is_refused(onnx_file: Path, tflite_file: Path, tmp_path: Path) -> None:
    for whole in (onnx_file, tflite_file):
        path = tmp_path / f"cut{whole.suffix}"
        path.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
        with pytest.raises(InputError, match="cut"):
            open_session(path)


@pytest.mark.parametrize("tensor", ["x", "y"])
def test_a_name_that_is_no_text_is_refused(tmp_path: Path, tensor: str) -> None:
    names = ("input_of_it", "y") if tensor == "x" else ("x", "output_of_it")
    path = artifacts.affine_onnx(tmp_path / "bad.onnx", KERNEL, BIAS, names=names)
    path.write_bytes(path.read_bytes().replace(b"_of_it", b"_of_\xff\xfe"))
    with pytest.raises(InputError, match=r"cannot open .*bad\.onnx"):
        open_session(path)


def test_a_tensor_name_that_is_no_text_is_refused(tflite_file: Path, tmp_path: Path) -> None:
    path = tmp_path / "bad.tflite"
    path.write_bytes(tflite_file.read_bytes().replace(b"Tensordot/MatMul", b"Tensordot/Mat\xff\xfel"))
    with pytest.raises(InputError, match="is not a TFLite model that LiteRT can run"):
        open_session(path)


def test_paths_that_are_no_artifact(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no file"):
        open_session(tmp_path / "absent.onnx")
    (tmp_path / "folder.tflite").mkdir()
    with pytest.raises(InputError, match="is a folder"):
        open_session(tmp_path / "folder.tflite")
    with pytest.raises(UsageError, match=r"suffix '\.h5'") as caught:
        open_session(tmp_path / "model.h5")
    assert ".onnx or .tflite" in caught.value.hint


def test_flex_operations_are_named(tmp_path: Path) -> None:
    x = keras.Input((None, 4), name="x")
    model = keras.Model(x, keras.ops.cumprod(x, axis=1))
    path = artifacts.to_tflite(model, tmp_path / "flex.tflite", flex=True, batch=1)
    with pytest.raises(InputError, match="needs TensorFlow itself on the device for FlexCumprod"):
        open_session(path)


def test_a_missing_runtime_names_the_pip_line(
    onnx_file: Path, tflite_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UnavailableError) as caught:
        open_session(onnx_file)
    assert 'pip install "mh-edge[cpu]"' in caught.value.hint
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
    with pytest.raises(UnavailableError) as caught:
        open_session(tflite_file)
    assert 'pip install "mh-edge[litert]"' in caught.value.hint


def test_comparing_two_artifacts_imports_no_tensorflow(onnx_file: Path) -> None:
    code = (
        "import sys; from mh_edge.verification import verify;"
        f"found = verify({str(onnx_file)!r}, [{str(onnx_file)!r}], atol=0.0);"
        "print(found.passed, 'tensorflow' in sys.modules, 'keras' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["True", "False", "False"]


def test_the_base_class_is_abstract() -> None:
    with pytest.raises(TypeError, match="abstract"):
        Session("any.onnx")  # type: ignore[abstract]


def _denormal_product(path: Path) -> float:
    """1e-30 * 1e-10, which float32 holds as a denormal only, computed by the file in a process of its own: ONNX Runtime
    takes the option from the first session of a process.
    """
    code = (
        "import sys, numpy as np\n"
        "from mh_edge.runtimes import open_session\n"
        "print(float(open_session(sys.argv[1]).run({'x': np.full((1, 1), 1e-30, 'float32')})['y'][0, 0]))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    return float(done.stdout)


def _hinted(path: Path, options: dict[str, str]) -> None:
    """Write a manifest with these session options beside the file."""
    Manifest(
        format="onnx",
        sha256=file_sha256(path),
        opset=17,
        signature=Signature((), ()),
        rules={},
        notes=(),
        choices=(),
        session_options=options,
        data=(),
        versions={},
        verified=None,
        recipe={},
    ).write(path)


def test_session_options_of_the_manifest_are_applied(tmp_path: Path) -> None:
    path = artifacts.affine_onnx(tmp_path / "tiny.onnx", np.full((1, 1), 1e-10), np.zeros(1))
    assert _denormal_product(path) == pytest.approx(1e-40, rel=1e-3)
    _hinted(path, {"session.set_denormal_as_zero": "1"})
    assert _denormal_product(path) == 0.0


@pytest.mark.parametrize("options", [{"session.load_model_format": "ORT"}, {"session.set_denormal_as_zero": "x"}])
def test_other_options_of_a_manifest_are_not(tmp_path: Path, options: dict[str, str]) -> None:
    path = artifacts.affine_onnx(tmp_path / "tiny.onnx", KERNEL, BIAS)
    _hinted(path, options)
    with open_session(path) as session:
        np.testing.assert_allclose(session.run({"x": ROWS})["y"], ROWS @ KERNEL + BIAS, atol=1e-6)
