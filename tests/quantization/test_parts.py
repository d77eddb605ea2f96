"""Parts: the layers and heads of a file, and that naming one selects exactly its operations."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import keras
import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

import mh_edge
from mh_edge.artifact import Artifact
from mh_edge.errors import UsageError
from mh_edge.inspection import inspect
from mh_edge.layers import MultiHead
from mh_edge.quantization.auto.parts import REST, Part, parts, resolved, rewrite, weights
from mh_edge.quantization.onnx import model as onnxmodel
from mh_edge.quantization.scheme import belongs
from mh_edge.quantization.tflite import model as litert
from mh_edge.runtimes import open_session

FORMATS = ("onnx", "tflite")


def selected(source: Artifact, part: Part) -> list[str]:
    """What the schemes would keep in float when they are given the part's names."""
    if source.format == "onnx":
        return [node.name for node in onnxmodel.nodes(onnxmodel.load(source)) if belongs(node.name, part.names)]
    return [one.name for one in litert.operations(litert.read(source.path)) if one.belongs(part.names)]


def by_layer(found: tuple[Part, ...]) -> dict[str, Part]:
    return {part.name: part for part in found}


@pytest.mark.parametrize("format", FORMATS)
def test_each_operation_is_in_one_part_and_the_names_of_a_part_select_exactly_it(
    exported: Mapping[str, Artifact], format: str
) -> None:
    source = exported[format]
    found = parts(source)
    every = [name for part in found for name in part.operations]
    assert len(every) == len(set(every)) == sum(source.ops.values())
    for part in found:
        assert selected(source, part) == list(part.operations), part.name


def test_layers_of_an_onnx_file(exported: Mapping[str, Artifact]) -> None:
    found = {part.name: part for part in parts(exported["onnx"])}
    assert list(found) == ["embed", "attention", "heads/Conv", "heads/Conv_1", "wide", "classes", REST]
    assert found["embed"].weights == 8 * 64
    assert found["classes"].weights == 48 * 6 * 4 + 4
    assert found["heads/Conv"].weights == 64 * 3 * 4 + 4
    assert found["attention"].names == ("attention",)
    assert found[REST].names == found[REST].operations


def test_layers_of_a_tflite_file(exported: Mapping[str, Artifact]) -> None:
    found = by_layer(parts(exported["tflite"]))
    assert {"embed", "attention", "wide", "classes"} <= found.keys()
    assert found["embed"].weights == 8 * 64
    assert found["embed"].operations == ("small_1/embed_1/mh_edge.Dense/MatMul1",)
    assert [found[name].weights for name in ("heads/relu_head", "heads/tanh_head")] == [64 * 3 * 4 + 4] * 2


@pytest.mark.parametrize("format", FORMATS)
def test_names_of_users_become_names_that_the_schemes_know(exported: Mapping[str, Artifact], format: str) -> None:
    source = exported[format]
    found = by_layer(parts(source))
    names = ["embed", "wide", "attention"]
    assert resolved((), source) == ()
    if format == "onnx":
        assert resolved(names, source) == tuple(names)
    else:
        for name in names:
            of_layer = found[name].operations
            assert resolved([name], source) == of_layer
            assert resolved([f"{name}_1"], source) == resolved([f"small_1/{name}_1"], source) == of_layer
            assert resolved(of_layer, source) == of_layer
        apart = [found[f"heads/{head}"].operations for head in ("relu_head", "tanh_head")]
        assert resolved(["heads/tanh_head"], source) == apart[1]
        assert set(resolved(["heads"], source)) > {*apart[0], *apart[1]}
    with pytest.raises(UsageError, match=r"is called 'nonsense'.*Its layers are .*embed"):
        resolved(["nonsense", "embed"], source)


def test_a_product_that_bears_the_next_layers_name_is_kept_with_its_own_layer(exported: Mapping[str, Artifact]) -> None:
    """The converter fuses a reshape of the next layer into it; the weight says whose it is."""
    source = exported["tflite"]
    products = [one for one in litert.operations(litert.read(source.path)) if one.kind == "FULLY_CONNECTED"]
    (stranger,) = (one.name for one in products if one.belongs(["small_1/heads_1"]))
    assert stranger in resolved(["attention"], source)
    assert stranger not in resolved(["heads"], source)


@pytest.mark.parametrize("masked", [False, True])
def test_a_recurrent_layer_is_one_part(masked: bool, tmp_path: Path) -> None:
    """Unrolled, each step is a product with the same weight; with a mask, all steps are a loop."""
    x = keras.Input((4, 8), name="x")
    h = keras.layers.Masking()(x) if masked else x
    h = keras.layers.Flatten()(MultiHead(keras.layers.LSTM(5), layer_num=3, name="heads")(h))
    y = keras.layers.Dense(1, name="value")(h)
    made = mh_edge.export(keras.Model(x, y), tmp_path, formats=("tflite",), verify=False)
    found = by_layer(parts(inspect(made.artifacts[0].path)))
    assert [name for name, part in found.items() if part.weights > 1] == ["heads", "value"]


@pytest.mark.parametrize("format", FORMATS)
def test_heads_of_attention_share_out_its_weights(exported: Mapping[str, Artifact], format: str) -> None:
    source = exported[format]
    part = by_layer(parts(source))["attention"]
    held = weights(source)
    assert [len(shares) for shares in part.heads] == [4, 4]
    assert all(held[share.weight][1].shape == (64, 64) for shares in part.heads for share in shares)
    spans = [[(share.start, share.stop, share.step) for share in shares] for shares in part.heads]
    assert spans == [[(0, 32, 1)] * 4, [(32, 64, 1)] * 4]
    # Wq, Wk and Wv are cut by output channels, Wo by inputs.
    assert [share.axis == share.channels for share in part.heads[0]] == [True, True, True, False]


@pytest.mark.parametrize("format", FORMATS)
def test_a_share_of_attention_holds_what_only_that_head_uses(
    exported: Mapping[str, Artifact], samples: dict[str, np.ndarray], tmp_path: Path, format: str
) -> None:
    """Without its values or without its rows of Wo a head adds nothing: both files say the same."""
    source = exported[format]
    held = weights(source)
    outputs = []
    for number in (2, 3):
        share = by_layer(parts(source))["attention"].heads[1][number]
        changed = held[share.weight][1].copy()
        np.moveaxis(changed, share.axis, 0)[share.start : share.stop] = 0
        rewrite(source, {share.weight: changed}, tmp_path / f"{number}.{format}")
        outputs.append(run(tmp_path / f"{number}.{format}", samples))
    np.testing.assert_allclose(outputs[0], outputs[1], atol=1e-6)
    assert np.abs(outputs[0] - run(source.path, samples)).max() > 1e-3


@pytest.mark.parametrize("format", FORMATS)
def test_merged_heads_are_every_third_channel(exported: Mapping[str, Artifact], format: str) -> None:
    """Kernels of 1, 3 and 5 rows lie in one of 5: what a head does not reach is zero."""
    source = exported[format]
    part = by_layer(parts(source))["wide"]
    assert len(part.heads) == 3
    for shares, rows in zip(part.heads, (1, 3, 5), strict=True):
        (share,) = shares
        value = np.moveaxis(weights(source)[share.weight][1], share.channels, 0)[share.start : share.stop : share.step]
        assert value.shape[0] == 16
        taps = value.reshape(16, 8, 5) if format == "onnx" else value.reshape(16, 5, 8).swapaxes(1, 2)
        assert (np.abs(taps).max(axis=(0, 1)) > 0).sum() == rows


@pytest.mark.parametrize("format", FORMATS)
def test_a_file_rewritten_with_its_own_weights_computes_the_same(
    exported: Mapping[str, Artifact], samples: dict[str, np.ndarray], tmp_path: Path, format: str
) -> None:
    source = exported[format]
    rewrite(source, {name: value for name, (_, value) in weights(source).items()}, tmp_path / f"same.{format}")
    np.testing.assert_array_equal(run(tmp_path / f"same.{format}", samples), run(source.path, samples))


def run(path: Path, samples: dict[str, np.ndarray]) -> np.ndarray:
    with open_session(path) as session:
        return next(iter(session.run({name: array[:1] for name, array in samples.items()}).values()))


def test_foreign_files_are_cut_by_path_and_their_nameless_products_stand_alone(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    held = [numpy_helper.from_array(rng.normal(size=(4, 4)).astype("f4"), f"w{number}") for number in range(4)]
    nodes = [
        helper.make_node("MatMul", ["x", "w0"], ["a"], name="/block/proj/MatMul"),
        helper.make_node("Relu", ["a"], ["b"], name="/block/Relu"),
        helper.make_node("MatMul", ["b", "w1"], ["c"], name="/block/MatMul"),
        helper.make_node("MatMul", ["c", "w2"], ["d"]),
        helper.make_node("MatMul", ["d", "w3"], ["e"], name="last"),
        helper.make_node("Relu", ["e"], ["y"]),
    ]
    values = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["n", 4]) for name in "xy"]
    graph = helper.make_graph(nodes, "g", values[:1], values[1:], held)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path / "m.onnx")
    source = inspect(tmp_path / "m.onnx")
    found = {part.name: part.operations for part in parts(source)}
    assert found == {
        "/block/proj": ("/block/proj/MatMul",),
        "/block": ("/block/Relu", "/block/MatMul"),
        "d": ("d",),
        "last": ("last",),
        REST: ("y",),
    }
    for part in parts(source):
        assert selected(source, part) == list(part.operations)
        assert part.heads == ()


def test_a_fused_operation_is_of_the_layer_named_most_often() -> None:
    dense, attention = "m/dense/mh_edge.Dense", "m/mha/mh_edge.MultiHeadAttention"
    assert litert.own_names(f"{dense}/add;{attention}/MatMul;{attention}/add") == [
        f"{attention}/MatMul",
        f"{attention}/add",
    ]
    assert litert.own_names(f"{dense}/add;{attention}/MatMul") == [f"{attention}/MatMul"]
    assert litert.own_names(f"{dense}/MatMul") == [f"{dense}/MatMul"]
    fused = litert.Operation(0, 0, "FULLY_CONNECTED", (f"{dense}/add;{attention}/MatMul",), (), ())
    assert fused.belongs(["m/mha"])
    assert fused.belongs([fused.name])
    assert not fused.belongs(["m/dense"])
    assert litert.own_names("m/embedding/GatherV2;") == ["m/embedding/GatherV2"]
