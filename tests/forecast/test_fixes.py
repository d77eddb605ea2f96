"""Each fix that a forecast names, done on real files of ours: the forecast must change for the better."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

import mh_edge
from mh_edge.forecast.forecasting import forecast
from mh_edge.forecast.result import Forecast
from mh_edge.quantization.quantizing import quantize

TIME, CLASSES = 6, 4
Make = Callable[..., Path]


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Make:
    """make("--batch 1", "--scheme int8") -> the masked attention of this file, exported and quantized so."""
    import keras

    from mh_edge.layers import MultiHeadAttention

    keras.utils.set_random_seed(0)
    x, valid = keras.Input((None, 8), name="x"), keras.Input((None,), dtype="bool", name="valid")
    h = keras.layers.Dense(64, name="embed")(x)
    h = keras.layers.LayerNormalization()(h + MultiHeadAttention(head_num=2, name="attention")(h, mask=valid))
    y = keras.layers.Dense(CLASSES, name="classes")(keras.layers.GlobalAveragePooling1D()(h))
    model = keras.Model([x, valid], y, name="small")
    folder = tmp_path_factory.mktemp("fixes")
    made: dict[str, Path] = {}

    def export(kind: str, options: Mapping[str, object]) -> Path:
        name = f"{kind}{sorted(options.items())}".translate(str.maketrans("", "", " '()[],"))
        if name not in made:
            target = folder / f"{name}.{kind}"
            mh_edge.export(model, target, formats=(kind,), verify=False, **options)
            made[name] = target
        return made[name]

    def build(kind: str, scheme: str = "", **options: object) -> Path:
        path = export(kind, options)
        if not scheme:
            return path
        target = path.with_suffix(f".{scheme}.{kind}")
        if not target.exists():
            quantize(path, target, scheme=scheme, calibration="random", timed=False)
        return target

    return build


FIXED = {"batch": 1, "sequence": TIME}


def fixes(found: Forecast) -> dict[str, int]:
    """Fix -> the nodes that it is named for."""
    together: dict[str, int] = {}
    for one in found.blockers:
        together[one.fix] = together.get(one.fix, 0) + one.count
    return together


def share(found: Forecast) -> float:
    return found.nodes / found.total


@pytest.mark.parametrize("name", ["nnapi", "qnn"])
def test_sizes(make: Make, name: str) -> None:
    free = forecast(make("onnx"), [name])[name]
    assert free.nodes <= 1
    assert fixes(free)["export --batch 1 --sequence N"] > 10
    fixed = forecast(make("onnx", **FIXED), [name])[name]
    assert share(fixed) > 0.6
    assert not any("size" in one.reason for one in fixed.blockers)
    half = forecast(make("onnx", batch=1), [name])[name]
    assert set(fixes(half)) >= {"export --sequence N"}


@pytest.mark.parametrize("name", ["nnapi", "coreml"])
def test_the_form_of_attention(make: Make, name: str) -> None:
    fused, plain = (forecast(make("onnx", runtime=one, **FIXED), [name])[name] for one in ("cpu", "plugins"))
    assert fixes(fused)["export --runtime plugins"] == 1
    assert "export --runtime plugins" not in fixes(plain)
    assert share(plain) > share(fused)
    assert plain.partitions < fused.partitions


@pytest.mark.parametrize(
    ("name", "scheme", "fix"),
    [
        ("qnn", "int8", "qnn-a16w8"),
        ("qnn", "int8-a16", "qnn-a16w8"),
        ("qnn", "int4", "qnn-a16w8"),
        ("nnapi", "int4", "int8"),
        ("nnapi", "int8-dynamic", "int8"),
        ("nnapi", "int8-a16", "int8"),
        ("nnapi", "fp16", "int8"),
        ("coreml", "int8", "fp16"),
        ("coreml", "int8-dynamic", "fp16"),
        ("coreml", "int4", "fp16"),
    ],
)
def test_the_scheme_of_an_onnx_file(make: Make, name: str, scheme: str, fix: str) -> None:
    was, now = (forecast(make("onnx", one, runtime="plugins", **FIXED), [name])[name] for one in (scheme, fix))
    assert fixes(was)[f"quantize --scheme {fix}"] > 0
    assert f"quantize --scheme {fix}" not in fixes(now)
    assert share(now) > share(was)


def test_the_sizes_of_a_tflite_file(make: Make) -> None:
    free, fixed = forecast(make("tflite")), forecast(make("tflite", sequence=TIME))
    for name in ("nnapi", "qnn"):
        assert fixes(free[name])["export --sequence N"] > 10
        assert "export --sequence N" not in fixes(fixed[name])
        assert share(fixed[name]) > share(free[name])


@pytest.mark.parametrize(
    ("name", "scheme", "fix"),
    [
        ("nnapi", "int16x8", "int8"),
        ("xnnpack", "int16x8", "int8"),
        ("litert-gpu", "int16x8", "int8"),
        ("coreml", "int8", "fp16"),
    ],
)
def test_the_scheme_of_a_tflite_file(make: Make, name: str, scheme: str, fix: str) -> None:
    was, now = (forecast(make("tflite", one, sequence=TIME), [name])[name] for one in (scheme, fix))
    assert sum(count for text, count in fixes(was).items() if fix in text) > 3
    assert not any(fix in text for text in fixes(now))
    assert share(now) > share(was)


def test_a_recurrent_layer_names_no_activations_that_are_implied(tmp_path: Path) -> None:
    """QNN takes no LSTM or GRU that names any, so that those of Keras's defaults are left out."""
    import keras

    x = keras.Input((TIME, 8), name="x")
    y = keras.layers.Dense(CLASSES)(keras.layers.Bidirectional(keras.layers.GRU(4))(x))
    path = tmp_path / "gru.onnx"
    mh_edge.export(keras.Model(x, y), path, verify=False, batch=1)
    assert forecast(path, ["qnn"])["qnn"].whole
