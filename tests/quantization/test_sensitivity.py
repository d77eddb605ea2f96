"""Sensitivity: each layer alone, ranked by what it costs, on some of the calibration data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mh_edge.artifact import Artifact
from mh_edge.errors import ConversionError
from mh_edge.progress import Progress
from mh_edge.quantization.auto import sensitivity as module
from mh_edge.quantization.auto.parts import Share, Weight, parts, rewrite, weights
from mh_edge.quantization.auto.sensitivity import beginning, keeping, sensitivity
from mh_edge.quantization.data.sets import Batch, open_data
from mh_edge.quantization.judging.measuring import Measure
from mh_edge.quantization.judging.verdict import Verdict
from mh_edge.quantization.scheme import Options, Quantized, Ranges, Scheme, belongs

HARM = {"classes": 0.2, "embed": 0.002, "heads/Conv": 0.02}
"""Factor by which the fake scheme gets the weights of a layer wrong."""


def off_by(source: Artifact, ranges: Ranges, options: Options) -> Quantized:
    """A fake scheme: every weight of the layers in HARM is larger by that factor."""
    changed = {
        name: value * (1 + factor)
        for layer, factor in HARM.items()
        if not belongs(f"{layer}/MatMul", options.keep_float) and layer not in options.keep_float
        for name, (_, value) in weights(source).items()
        if name.startswith({"heads/Conv": "heads/relu_head/"}.get(layer, layer))
    }
    if not changed:
        raise ConversionError("there is nothing to quantize.")

    def save(path: Path) -> tuple[Path]:
        rewrite(source, changed, path)
        return (path,)

    return Quantized(save)


FAKE = Scheme("onnx", "int8", off_by, None, ("keep_float",))


@pytest.fixture(scope="module")
def ranked(exported: Mapping[str, Artifact], samples: dict[str, np.ndarray]) -> tuple[module.Sensitivity, ...]:
    data = open_data(samples, exported["onnx"].signature, purpose="calibration")
    return sensitivity(exported["onnx"], FAKE, {}, Options(), data)


def test_the_layers_are_ranked_by_harm_and_those_without_any_are_left_out(
    ranked: tuple[module.Sensitivity, ...],
) -> None:
    assert [one.name for one in ranked] == ["classes", "heads/Conv", "embed"]
    assert ranked[0].sqnr_db < ranked[1].sqnr_db - 10 < ranked[2].sqnr_db - 20
    assert ranked[0].error_std > 10 * ranked[2].error_std > 0
    assert ranked[2].top1_agreement is not None
    assert ranked[2].top1_agreement > 0.9
    assert ranked[2].to_json()["part"] == "embed"


def test_what_the_user_keeps_in_float_is_not_measured(
    exported: Mapping[str, Artifact], samples: dict[str, np.ndarray]
) -> None:
    data = open_data(samples, exported["onnx"].signature, purpose="calibration")
    found = sensitivity(exported["onnx"], FAKE, {}, Options(keep_float=("classes",)), data)
    assert [one.name for one in found] == ["heads/Conv", "embed"]


def test_a_head_is_measured_as_its_own_columns_rounded(
    exported: Mapping[str, Artifact], samples: dict[str, np.ndarray]
) -> None:
    """A layer of which only one head cannot be rounded: that head stands before the other ones."""
    source = exported["onnx"]
    wide = next(part for part in parts(source) if part.name == "wide")

    def coarse(source: Artifact, ranges: Ranges, options: Options) -> Quantized:
        changed = {} if "wide" in options.keep_float else {name: value * 1.1 for name, (_, value) in held.items()}
        return Quantized(lambda path: (rewrite(source, changed, path), (path,))[1])

    (share,) = wide.heads[1]
    weight, value = weights(source)[share.weight]
    spoilt = value.copy()
    spoilt[1::3, 0, 0, 2] += 100.0 * (np.arange(16) + 1)  # one tap of head 1: the others round to nothing beside it
    held = {share.weight: (weight, spoilt)}
    path = source.path.with_name("spoilt.onnx")
    rewrite(source, {share.weight: spoilt}, path)
    data = open_data(samples, source.signature, purpose="calibration")
    found = sensitivity(
        replace(source, path=path), Scheme("onnx", "int8", coarse, None, ("keep_float",)), {}, Options(), data
    )
    assert sorted(one.name for one in found) == ["wide", "wide, head 0", "wide, head 1", "wide, head 2"]
    heads = [one for one in found if one.head is not None]
    assert heads[0].head == 1
    assert heads[0].bytes == value.size // 3 * 3


@pytest.mark.parametrize(("bits", "expected"), [(8, [10, 127, -50, 6]), (4, [18, 127, -54, 0])])
def test_a_share_is_rounded_with_the_scale_of_each_whole_channel(bits: int, expected: list[int]) -> None:
    """127 is the largest of a channel: at 8 bits the step is 1, at 4 bits 127 / 7 = 18.14."""
    value = np.array([[10.4, 127, -50.3, 6.4]], "f4")
    rounded = module._rounded(Share("w", 0, 1, 0, 4), Weight("w", (1, 4), 0), value, bits)
    np.testing.assert_allclose(rounded, [expected], atol=0.6)
    part = module._rounded(Share("w", 0, 1, 2, 4), Weight("w", (1, 4), 0), value, bits)
    np.testing.assert_array_equal(part[:, :2], value[:, :2])
    np.testing.assert_array_equal(part[:, 2:], rounded[:, 2:])
    assert not module._rounded(Share("w", 0, 1, 0, 4), Weight("w", (1, 4), 0), value * 0, bits).any()


def test_only_the_beginning_of_the_data_is_read(
    exported: Mapping[str, Artifact], samples: dict[str, np.ndarray]
) -> None:
    whole = open_data(samples, exported["onnx"].signature, purpose="calibration", batch=8)
    read = []

    def batches() -> Iterator[Batch]:
        for batch in whole.batches():
            read.append(batch.first)
            yield batch

    some = beginning(replace(whole, batches=batches), 20)
    assert sum(batch.count for batch in some.batches()) == 24
    assert read == [0, 8, 16]
    assert some.samples == 20
    assert beginning(whole, 1000).samples == 64


def test_a_model_too_large_to_try_all_at_once_is_measured_in_lots(
    exported: Mapping[str, Artifact],
    samples: dict[str, np.ndarray],
    ranked: tuple[module.Sensitivity, ...],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lots = []
    measured = Measure.verdicts

    def counted(measure: Measure, source: Artifact, files: Mapping[str, Path], tell: Progress) -> dict[str, Verdict]:
        lots.append(len(files))
        return measured(measure, source, files, tell)

    monkeypatch.setattr(Measure, "verdicts", counted)
    monkeypatch.setattr(module, "OPEN_BYTES", exported["onnx"].bytes * 3 // 2)
    data = open_data(samples, exported["onnx"].signature, purpose="calibration")
    assert sensitivity(exported["onnx"], FAKE, {}, Options(), data) == ranked
    assert lots == [2, 1]


def test_keeping_adds_names_once(exported: Mapping[str, Artifact]) -> None:
    found = parts(exported["onnx"])
    kept = keeping(Options(keep_float=("mine", "embed")), found[:2])
    assert kept.keep_float == ("mine", "embed", "attention")
