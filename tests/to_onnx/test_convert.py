"""The file as a whole: names, opsets, bytes, external data, and what is refused."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import onnx
import onnxruntime
import pytest
import tf2onnx
from keras import layers

import mh_edge_onnx
from mh_edge.errors import ConversionError, InputError, UsageError
from mh_edge.layers import MultiHead, MultiHeadAttention
from mh_edge.opsets import OLDEST_RUNTIME
from mh_edge.program import program
from mh_edge.rules import Case, Rule, RuleSet
from mh_edge.verification import verify
from mh_edge.verification.domains import derive
from mh_edge_onnx import writing
from to_onnx.conversion import checked, convert, proven


def tagger():
    """Everything at once: ids, masks, attention, parallel heads with a rule and without one, a shared layer."""
    keras.utils.clear_session(free_memory=False)  # layers are numbered from 1 again
    keras.utils.set_random_seed(2)
    ids = keras.Input((None,), dtype="int32", name="ids")
    x = layers.Embedding(11, 6, mask_zero=True)(ids)
    x = MultiHeadAttention(2, history_only=True)(x)
    shared = layers.Dense(6, activation="gelu")
    x = shared(shared(x))
    heads = MultiHead([layers.Conv1D(4, size, padding="same") for size in (3, 5)])(x)
    states = MultiHead(layers.Bidirectional(layers.LSTM(3)), layer_num=2, hidden_dim=5)(x)
    return keras.Model(ids, {"heads": heads, "states": states})


def test_names_and_free_dims_of_the_file(tmp_path):
    _, path = convert(tagger(), tmp_path / "x.onnx")
    session = onnxruntime.InferenceSession(path)
    assert [(item.name, item.shape) for item in session.get_inputs()] == [("ids", ["batch", "sequence"])]
    assert [(item.name, item.shape) for item in session.get_outputs()] == [
        ("heads", ["batch", "sequence", 4, 2]),
        ("states", ["batch", 6, 2]),
    ]


def test_fixed_sizes_are_in_the_file(tmp_path):
    _, path = convert(tagger(), tmp_path / "x.onnx", batch=2, sequence=5)
    session = onnxruntime.InferenceSession(path)
    assert session.get_inputs()[0].shape == [2, 5]
    assert session.get_outputs()[0].shape == [2, 5, 4, 2]


def test_every_opset(tmp_path):
    source = derive(program(tagger()))
    paths = {}
    for opset in OLDEST_RUNTIME:
        (paths[opset],) = mh_edge_onnx.convert(source, source.signature, opset=opset).save(tmp_path / f"{opset}.onnx")
        checked(paths[opset])
        assert [(item.domain, item.version) for item in onnx.load(paths[opset]).opset_import] == [("", opset)]
    result = verify(source, list(paths.values()))
    assert [one.passed for one in result.candidates] == [True] * len(OLDEST_RUNTIME), result.to_json()


def test_every_initializer_is_used(tmp_path):
    x = keras.Input((None, 4))
    model = keras.Model(x, layers.Bidirectional(layers.LSTM(4, return_sequences=True))(layers.Masking()(x)))
    _, path = convert(model, tmp_path / "x.onnx")
    graph = onnx.load(path).graph
    assert {item.name for item in graph.initializer} <= {name for node in graph.node for name in node.input}


def missing_weight(ctx, layer, inputs, masks):
    return ctx.op("Mul", inputs[0], ctx.weight(layer.nope))


def unknown_operation(ctx, layer, inputs, masks):
    return ctx.op("Hadamard", inputs[0])


def nothing(ctx, layer, inputs, masks):
    return None


@pytest.mark.parametrize(
    ("lower", "said"),
    [(missing_weight, "AttributeError.*nope"), (unknown_operation, "Hadamard"), (nothing, "returned None")],
)
def test_a_mistake_in_a_rule_names_the_rule(lower, said, monkeypatch):
    broken = Rule("onnx", layers.Dense, lower, (Case("any", tagger),), lambda layer: None)
    monkeypatch.setattr("mh_edge_onnx.building.rules_for", lambda target: RuleSet(target, {layers.Dense: broken}))
    source = program(keras.Sequential([keras.Input((3,)), layers.Dense(2, name="first")]))
    with pytest.raises(ConversionError, match=rf"the ONNX rule for Dense \(.*test_convert\).*'first'.*{said}"):
        mh_edge_onnx.convert(source, source.signature)


def test_rules_are_counted_by_layer_call():
    source = program(tagger())
    rules = mh_edge_onnx.convert(source, source.signature).rules
    assert {
        name: rules[name] for name in ("Bidirectional", "Dense", "Embedding", "MultiHead", "MultiHeadAttention")
    } == {
        "Bidirectional": 1,
        "Dense": 2,
        "Embedding": 1,
        "MultiHead": 2,
        "MultiHeadAttention": 1,
    }


SCRIPT = """
import sys
from pathlib import Path
import mh_edge_onnx
from mh_edge.program import program
from mh_edge.rules import Case, Rule, RuleSet
from to_onnx.test_convert import tagger
for name in sys.argv[1:]:
    source = program(tagger())
    mh_edge_onnx.convert(source, source.signature).save(Path(name))
"""


def test_the_same_model_gives_the_same_bytes_in_every_process(tmp_path):
    roots = [str(Path(__file__).parents[levels]) for levels in (1, 2)] + [str(Path(__file__).parents[2] / "converters")]
    files = []
    for seed in ("1", "2"):
        names = [str(tmp_path / f"{seed}_{turn}.onnx") for turn in range(2)]
        environment = {"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(roots), "TF_CPP_MIN_LOG_LEVEL": "3"}
        subprocess.run([sys.executable, "-c", SCRIPT, *names], check=True, env=environment, capture_output=True)
        files += [Path(name).read_bytes() for name in names]
    assert len(set(files)) == 1


def test_large_weights_go_to_external_data_named_by_its_hash(tmp_path, monkeypatch):
    monkeypatch.setattr(writing, "EXTERNAL_DATA_LIMIT", 1000)
    model = keras.Sequential([keras.Input((64,)), layers.Dense(32), layers.Dense(4)])
    source = program(model)
    path, data = mh_edge_onnx.convert(source, source.signature).save(tmp_path / "big.onnx")
    assert sorted(tmp_path.iterdir()) == sorted([path, data])
    assert data.name == f"big.{writing.file_sha256(data)[:16]}.data"
    x = np.random.default_rng(0).normal(size=(3, 64)).astype("float32")
    got = onnxruntime.InferenceSession(path).run(None, {source.signature.inputs[0].name: x})[0]
    np.testing.assert_allclose(got, model(x), atol=1e-6)


class Noisy(layers.Layer):
    def call(self, x):
        return x + keras.random.normal(keras.ops.shape(x))


class NoisyLoop(layers.Layer):
    def call(self, x):
        import tensorflow as tf

        return tf.while_loop(lambda n, _: n < 3, lambda n, y: (n + 1, y + tf.random.normal(tf.shape(y))), (0, x))[1]


class Counting(layers.Layer):
    def build(self, shape):
        self.count = self.add_weight(shape=(), initializer="zeros", trainable=False)

    def call(self, x):
        self.count.assign_add(1.0)
        return x + self.count


class Unique(layers.Layer):
    def call(self, x):
        import tensorflow as tf

        return tf.raw_ops.Betainc(a=tf.abs(x) + 1, b=tf.abs(x) + 1, x=tf.sigmoid(x))


@pytest.mark.parametrize(
    ("layer", "error", "said"),
    [
        (Noisy, InputError, "draws random numbers"),
        (NoisyLoop, InputError, "draws random numbers"),
        (Counting, InputError, "assigns to"),
        (Unique, ConversionError, "Betainc"),
    ],
)
def test_what_no_file_can_express_is_refused(layer, error, said):
    x = keras.Input((3,))
    source = program(keras.Model(x, layer()(x)))
    with pytest.raises(error, match=said) as raised:
        mh_edge_onnx.convert(source, source.signature)
    assert raised.value.hint


@pytest.mark.parametrize("options", [{"opset": 9}, {"opset": 99}, {"runtime": "toaster"}])
def test_unknown_targets_are_refused(options):
    source = program(keras.Sequential([keras.Input((3,)), layers.Dense(2)]))
    with pytest.raises(UsageError):
        mh_edge_onnx.convert(source, source.signature, **options)


def test_the_model_is_as_it_was_afterwards():
    model = tagger()
    ids = np.array([[1, 2, 0], [3, 0, 4]], "int32")
    before = model(ids)
    source = program(model)
    mh_edge_onnx.convert(source, source.signature)
    assert not [layer.name for layer in model._flatten_layers() if "call" in vars(layer)]
    for name, value in model(ids).items():
        np.testing.assert_array_equal(value, before[name])


def test_an_input_that_nothing_reads_is_an_input_of_the_file(tmp_path):
    x, unused = keras.Input((3,), name="x"), keras.Input((None, 2), name="unused")
    model = keras.Model([unused, x], layers.Dense(2, name="y")(x))
    source, path = convert(model, tmp_path / "x.onnx")
    session = onnxruntime.InferenceSession(path)
    assert [item.name for item in session.get_inputs()] == ["unused", "x"]
    feeds = {"unused": np.zeros((4, 5, 2), np.float32), "x": np.ones((4, 3), np.float32)}
    np.testing.assert_allclose(session.run(None, feeds)[0], source.run(feeds)["y"], rtol=1e-5)


def test_a_name_that_tensorflow_cannot_trace_is_a_sentence(tmp_path):
    model = keras.Sequential([keras.Input((3,)), layers.Activation("relu", name="with space")])
    with pytest.raises(ConversionError, match="'with space' is not a valid scope name"):
        convert(model, tmp_path / "x.onnx")


def test_what_tf2onnx_stumbles_over_is_a_sentence(tmp_path, monkeypatch):
    def stumble(*args, **kwargs):
        raise AssertionError("a form of Conv2D that nobody foresaw")

    monkeypatch.setattr("tf2onnx.convert.from_graph_def", stumble)
    with pytest.raises(ConversionError, match="a form of Conv2D that nobody foresaw"):
        convert(tagger(), tmp_path / "x.onnx")


def test_a_table_is_a_sentence(tmp_path):
    model = keras.Sequential([keras.Input((3,), dtype="int64"), layers.IntegerLookup(vocabulary=[5, 7])])
    with pytest.raises(InputError, match="in a table"):
        convert(model, tmp_path / "x.onnx")


def test_a_graph_in_which_tf2onnx_loses_an_axis_is_made_again(tmp_path, monkeypatch):
    """It does so now and then with convolutions of one channel; here the first time, and then every time."""
    real, made = tf2onnx.convert.from_graph_def, []

    def losing(*args, **options):
        proto, storage = real(*args, **options)
        made.append(proto)
        if len(made) == 1 or always:
            output = proto.graph.output[0]
            proto.graph.node.append(onnx.helper.make_node("Flatten", [output.name], ["flat"]))
            output.name = "flat"
        return proto, storage

    monkeypatch.setattr(tf2onnx.convert, "from_graph_def", losing)
    always = False
    model = keras.Sequential([keras.Input((None, None, 1)), layers.Conv2D(1, 3, padding="same")])
    assert proven(model, tmp_path / "x.onnx").passed
    assert len(made) > 1
    always = True
    with pytest.raises(ConversionError, match="another number of axes"):
        convert(model, tmp_path / "x.onnx")


def test_a_rank_that_tf2onnx_has_wrong_is_not_believed(tmp_path, monkeypatch):
    """It forgets it now and then, which depends on the order of its sets; here it always does."""
    real = tf2onnx.convert.from_graph_def

    def forgetful(*args, **options):
        proto, storage = real(*args, **options)
        proto.graph.output[0].type.tensor_type.shape.dim.add().dim_value = 1
        return proto, storage

    monkeypatch.setattr(tf2onnx.convert, "from_graph_def", forgetful)
    heads = MultiHead([layers.Conv2D(1, 2, padding="same"), layers.Conv2D(1, 3, padding="same", activation="silu")])
    assert proven(keras.Sequential([keras.Input((None, None, 1)), heads, layers.ReLU()]), tmp_path / "x.onnx").passed
