"""mh_edge.quantize from end to end, on small models of ours in both formats."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

import mh_edge
from mh_edge.artifact import Artifact, manifest_path, read_manifest
from mh_edge.errors import InputError, NotEqualError, UsageError
from mh_edge.quantization import GateError
from mh_edge.quantization.auto.parts import parts
from mh_edge.quantization.scheme import schemes_for
from mh_edge.runtimes import open_session
from tests.test_startup import KERAS, imported

Arrays = dict[str, np.ndarray]
ONE_OF_EACH = [("onnx", "int8"), ("onnx", "int8-dynamic"), ("tflite", "int8"), ("tflite", "int8-dynamic")]


@pytest.fixture
def source(exported: Mapping[str, Artifact], tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A copy of the small model, of the format in the parameter, with its manifest."""
    found = exported[getattr(request, "param", "onnx")].path
    shutil.copy(manifest_path(found), tmp_path)
    return Path(shutil.copy(found, tmp_path))


@pytest.mark.parametrize(("source", "scheme"), ONE_OF_EACH, indirect=["source"])
def test_a_file_smaller_than_float_and_much_like_it(source: Path, scheme: str, samples: Arrays) -> None:
    result = mh_edge.quantize(source, scheme=scheme, calibration=samples, evaluation=samples, timed=False)
    written = source.with_name(f"small.{scheme}{source.suffix}")
    assert result.artifact is not None
    assert result.artifact.path == written
    assert written.stat().st_size < 0.8 * source.stat().st_size
    assert result.verdict.size_ratio == written.stat().st_size / source.stat().st_size
    assert result.verdict.samples == 64
    assert result.verdict.sqnr_db > 20
    recorded = read_manifest(written)
    assert recorded is not None
    assert recorded.quantized is not None
    assert recorded.quantized["scheme"] == scheme
    assert recorded.signature.inputs[0].shape == mh_edge.inspect(source).signature.inputs[0].shape
    with open_session(written) as session, open_session(source) as reference:
        rows = 1 if source.suffix == ".tflite" else 5
        feeds = {name: array[:rows] for name, array in samples.items()}
        lost = np.abs(session.run(feeds)["classes"] - reference.run(feeds)["classes"]).max()
        assert 0 < lost < 0.1


@pytest.mark.parametrize(("source", "scheme"), ONE_OF_EACH, indirect=["source"])
def test_the_manifest_is_a_recipe_that_gives_the_same_bytes_without_data(
    source: Path, scheme: str, samples: Arrays, tmp_path: Path
) -> None:
    (embed,) = (part.name for part in parts(mh_edge.inspect(source)) if "embed" in part.name)
    first = mh_edge.quantize(source, scheme=scheme, calibration=samples, keep_float=embed, timed=False).artifact
    assert first is not None
    again = tmp_path / "again"
    repeated = mh_edge.quantize(source, again, recipe=manifest_path(first.path))
    second = repeated.artifact
    assert repeated.verdict is None
    assert second is not None
    assert second.path.read_bytes() == first.path.read_bytes()
    other = mh_edge.quantize(source, again, scheme=scheme, calibration=samples, timed=False).artifact
    assert other is not None
    assert other.path.read_bytes() != first.path.read_bytes()


def test_a_recipe_of_another_file_needs_data_and_says_so(source: Path, samples: Arrays, tmp_path: Path) -> None:
    made = mh_edge.quantize(source, scheme="int8", calibration=samples, timed=False).artifact
    assert made is not None
    other = tmp_path / "other.onnx"
    other.write_bytes(source.read_bytes() + b"\x3a\x00")  # an empty graph field merges into the one there is
    with pytest.raises(InputError, match="needs calibration data"):
        mh_edge.quantize(other, recipe=manifest_path(made.path), timed=False)
    result = mh_edge.quantize(other, recipe=manifest_path(made.path), calibration=samples, timed=False)
    assert "its ranges are not" in result.notes[0]


def test_a_gate_that_is_not_passed_leaves_the_target_as_it_was(source: Path, samples: Arrays) -> None:
    target = source.with_name("small.int8.onnx")
    target.write_bytes(b"what was there")
    before = sorted(source.parent.iterdir())
    with pytest.raises(GateError, match=r"nothing was written: .*100") as caught:
        mh_edge.quantize(source, scheme="int8", calibration=samples, evaluation=samples, max_drop="100dB", timed=False)
    assert isinstance(caught.value, NotEqualError)
    assert caught.value.outcome.artifact is None
    assert caught.value.outcome.verdict.sqnr_db < 100
    assert target.read_bytes() == b"what was there"
    assert sorted(source.parent.iterdir()) == before
    passed = mh_edge.quantize(
        source, scheme="int8", calibration=samples, evaluation=samples, max_drop="10dB", timed=False
    )
    assert passed.artifact is not None
    assert passed.artifact.quantized is not None
    assert passed.artifact.quantized["gate"] == {"kind": "db", "limit": 10}


def test_a_speed_that_is_not_reached_is_a_gate_too(source: Path, samples: Arrays) -> None:
    with pytest.raises(GateError, match="times as fast as float; asked for: 1000"):
        mh_edge.quantize(source, scheme="int8", calibration=samples, evaluation=samples, min_speedup=1000.0)
    assert list(source.parent.glob("*.int8*")) == []


def test_an_interrupted_run_leaves_nothing(source: Path, samples: Arrays) -> None:
    before = sorted(source.parent.iterdir())

    def interrupted(step: str, done: int | None = None, total: int | None = None) -> None:
        del done, total
        if step == "writing":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        mh_edge.quantize(source, scheme="int8", calibration=samples, timed=False, progress=interrupted)
    assert sorted(source.parent.iterdir()) == before


def test_what_the_verdict_was_taken_on_is_said(source: Path, samples: Arrays) -> None:
    on_calibration = mh_edge.quantize(source, scheme="int8", calibration=samples, timed=False).verdict
    assert "CALIBRATION data" in on_calibration.on
    on_nothing = mh_edge.quantize(source, scheme="int8-dynamic", timed=False).verdict
    assert "RANDOM NUMBERS" in on_nothing.on
    at_random = mh_edge.quantize(source, scheme="int8", calibration="random", timed=False)
    assert at_random.verdict is not None
    assert "RANDOM NUMBERS" in at_random.verdict.on
    judged = mh_edge.quantize(source, scheme="int8", calibration="random", evaluation=samples, timed=False)
    assert "RANDOM NUMBERS" in judged.notes[0]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"scheme": "int9"}, "no scheme 'int9'"),
        ({"scheme": "int16x8"}, "no scheme 'int16x8'.*scheme of .tflite"),
        ({"scheme": None}, "no scheme was named"),
        ({"max_drop": "1%"}, "--max-drop needs data"),
        ({"scheme": "auto"}, "auto needs to know"),
        ({"evaluation": "random"}, "say nothing about accuracy"),
        ({"min_speedup": 0.0}, "min-speedup is 0.0"),
        ({"min_speedup": 1.1}, "cannot be judged without timing"),
        ({"output": "other.tflite"}, "no .onnx file"),
        ({"output": "small.onnx"}, "the float file itself"),
        ({"scheme": "int8-dynamic", "integer_io": True}, "takes no --integer-io"),
        ({"keep_float": "nonsense"}, "called 'nonsense'.*Its layers are embed, attention"),
    ],
)
def test_wrong_usage_is_a_sentence(
    source: Path, given: dict[str, object], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(source.parent)
    with pytest.raises(UsageError, match=message):
        mh_edge.quantize(source, **{"scheme": "int8", "timed": False, **given})  # type: ignore[arg-type]


def test_a_quantized_file_is_not_quantized_again(source: Path, samples: Arrays) -> None:
    made = mh_edge.quantize(source, scheme="int8", calibration=samples, timed=False).artifact
    assert made is not None
    with pytest.raises(InputError, match=r"quantized already \(int8\)"):
        mh_edge.quantize(made.path, scheme="int8", calibration=samples)
    manifest_path(made.path).unlink()
    with pytest.raises(InputError, match="quantized already: it holds DequantizeLinear, QuantizeLinear"):
        mh_edge.quantize(made.path, scheme="int8", calibration=samples)


@pytest.mark.slow
@pytest.mark.parametrize("source", ["onnx", "tflite"], indirect=True)
def test_auto_chooses_among_what_passes_and_its_recipe_repeats_it(
    source: Path, samples: Arrays, tmp_path: Path
) -> None:
    result = mh_edge.quantize(
        source, scheme="auto", calibration=samples, evaluation=samples, max_drop="30dB", timed=False
    )
    assert result.artifact is not None
    assert result.ladder is not None
    best = result.ladder.best
    assert best is not None
    assert best.verdict.sqnr_db >= 30
    sizes = [step.verdict.size_ratio for step in result.ladder.steps if not step.failed]
    assert best.verdict.size_ratio == min(size for size in sizes if size is not None)
    again = mh_edge.quantize(source, tmp_path / "again", recipe=manifest_path(result.artifact.path), timed=False)
    assert again.artifact is not None
    assert again.artifact.path.read_bytes() == result.artifact.path.read_bytes()
    with pytest.raises(GateError, match="nothing was written"):
        mh_edge.quantize(source, scheme="auto", calibration=samples, evaluation=samples, max_drop="500dB", timed=False)


@pytest.mark.parametrize("source", ["onnx", "tflite"], indirect=True)
@pytest.mark.parametrize("keys", [("artifact", "metrics", "kept_float", "scheme")])
def test_json_has_the_keys_of_the_contract(source: Path, keys: tuple[str, ...], samples: Arrays) -> None:
    labels = np.arange(64) % 4
    evaluation = {**samples, "labels": labels}
    found = mh_edge.quantize(source, scheme="fp16", evaluation=evaluation, timed=True).to_json()
    assert found.keys() >= set(keys)
    assert found["metrics"].keys() >= {
        "top1_agreement", "accuracy_float", "accuracy", "sqnr_db", "mean_error_std", "max_error_std", "size_ratio",
        "latency_ratio",
    }  # fmt: skip
    assert 0 <= found["metrics"]["accuracy"] <= 1
    assert found["metrics"]["latency_ratio"] > 0
    json.dumps(found["kept_float"])


@pytest.mark.parametrize("source", ["onnx", "tflite"], indirect=True)
def test_neither_tensorflow_nor_keras_is_imported(source: Path, samples: Arrays, tmp_path: Path) -> None:
    data = tmp_path / "data.npz"
    np.savez(data, **samples)
    args = ["quantize", str(source), "--scheme", "int8", "--calibration", str(data), "--no-timing", "-q"]
    found = imported(f"from mh_edge.cli import main\nassert main({args}) == 0")
    assert found.isdisjoint(KERAS)
    assert source.with_name(f"small.int8{source.suffix}").is_file()


@pytest.mark.parametrize("kind", ["onnx", "tflite"])
def test_every_scheme_says_in_one_line_what_it_is(kind: str) -> None:
    for found in schemes_for(kind).values():
        assert 10 < len(found.summary) < 120, found.name
