"""Files that the real keras-multi-head wrote open in Keras 3 and compute what they computed there.

The files and expected outputs in fixtures/reference/ are those of fixtures/make_reference.py.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest

from mh_edge.errors import InputError
from mh_edge.layers import MultiHead, MultiHeadAttention
from mh_edge.models import load_model, load_weights, upgrade

REFERENCE = Path(__file__).parent / "fixtures" / "reference"
CASES = sorted(path.stem for path in REFERENCE.glob("*.npz"))

# Two float32 evaluations of these small models differ by rounding alone: at most 3e-7 of the output's scale was seen.
TOLERANCE = 1e-5
# Scores at -10000 have a float32 spacing of 1e-3, so the weights of a fully masked row keep only about three digits.
MASKED_ROW_TOLERANCE = 4e-4
# The last row of the batch is fully masked in the cases whose inputs are ids, and in these.
MASKED_ROW = 2
ALSO_MASKED = ("attention_masking", "heads_bidirectional")


def file(case: str, suffix: str = ".h5") -> Path:
    return REFERENCE / f"{case}{suffix}"


def feeds(case: str) -> tuple[list[np.ndarray], list[np.ndarray]]:
    with np.load(file(case, ".npz"), allow_pickle=False) as arrays:
        return [arrays[key] for key in arrays if key[0] == "x"], [arrays[key] for key in arrays if key[0] == "y"]


def run(model: keras.Model, inputs: list[np.ndarray]) -> list[np.ndarray]:
    outputs = model(inputs if len(inputs) > 1 else inputs[0], training=False)
    return [keras.ops.convert_to_numpy(output) for output in keras.tree.flatten(outputs)]


def mismatches(case: str, model: keras.Model) -> list[str]:
    """What differs from the reference by more than is allowed; empty when the model is the one that was saved."""
    inputs, expected = feeds(case)
    has_masked_row = case in ALSO_MASKED or inputs[0].dtype == np.int32
    found = []
    for number, (got, wanted) in enumerate(zip(run(model, inputs), expected, strict=True)):
        if got.shape != wanted.shape:
            found.append(f"output {number} has shape {got.shape}, not {wanted.shape}")
            continue
        scale = np.abs(wanted).max()
        for row in range(len(wanted)):
            allowed = MASKED_ROW_TOLERANCE if has_masked_row and row == MASKED_ROW else TOLERANCE
            error = np.abs(got[row] - wanted[row]).max() / scale
            if not error <= allowed:
                found.append(f"output {number}, row {row}: off by {error:.1e} of the scale")
    return found


def forget(model: keras.Model) -> None:
    for variable in model.variables:
        if variable.dtype == "float32":
            variable.assign(np.full(variable.shape, 0.3))


def edited(case: str, folder: Path, edit: Callable[[Any], None]) -> Path:
    """A copy of a case's whole-model file after `edit(open file)`."""
    copy = folder / "edited.h5"
    shutil.copy(file(case), copy)
    with h5py.File(copy, "r+") as opened:
        edit(opened)
    return copy


def edit_config(change: Callable[[str], str]) -> Callable[[Any], None]:
    def edit(opened: Any) -> None:
        opened.attrs["model_config"] = change(opened.attrs["model_config"])

    return edit


def rename_weights(layer: str, rename: Callable[[int, str], str]) -> Callable[[Any], None]:
    def edit(opened: Any) -> None:
        group = opened["model_weights"][layer]
        old = [str(name) for name in group.attrs["weight_names"]]
        arrays = [group[name][()] for name in old]
        for part in list(group):
            del group[part]
        new = [rename(number, name) for number, name in enumerate(old)]
        for name, array in zip(new, arrays, strict=True):
            group[name] = array
        group.attrs["weight_names"] = new

    return edit


def test_fixtures_cover_every_case() -> None:
    assert len(CASES) == 23
    for case in CASES:
        assert all(file(case, suffix).exists() for suffix in (".h5", ".weights-only.h5", ".weights.h5"))


@pytest.mark.parametrize("case", CASES)
def test_whole_model_and_weights_compute_what_the_reference_computed(case: str) -> None:
    model = load_model(file(case))
    assert mismatches(case, model) == []
    for suffix in (".weights-only.h5", ".weights.h5", ".h5"):
        forget(model)
        assert mismatches(case, model) != []
        load_weights(model, file(case, suffix))
        assert mismatches(case, model) == []


@pytest.mark.parametrize("case", [case for case in CASES if case != "scaled_dot_product"])
def test_comparison_fails_when_a_weight_changes_by_one_percent(case: str) -> None:
    model = load_model(file(case))
    # not a bias: that of the keys shifts all scores of a row alike, which softmax does not see
    changed = [variable for variable in model.weights if len(variable.shape) > 1] or model.weights
    changed[-1].assign(changed[-1] * 1.01)
    assert mismatches(case, model) != []


@pytest.mark.parametrize("case", CASES)
def test_upgraded_file_loads_in_keras_and_gives_identical_outputs(case: str, tmp_path: Path) -> None:
    upgrade(file(case), tmp_path / "new.keras")
    inputs, _ = feeds(case)
    old, new = run(load_model(file(case)), inputs), run(keras.models.load_model(tmp_path / "new.keras"), inputs)
    for one, other in zip(old, new, strict=True):
        np.testing.assert_array_equal(one, other)


def test_one_input_and_one_output_are_tensors_and_several_are_lists() -> None:
    inputs, expected = feeds("attention_query_key_value")
    assert tuple(load_model(file("attention_query_key_value"))(inputs).shape) == expected[0].shape
    inputs, expected = feeds("keras_layers")
    several = load_model(file("keras_layers"))
    assert several.input.name == "x"
    assert [tuple(output.shape) for output in several(inputs[0])] == [output.shape for output in expected]


def test_layers_keep_their_arguments() -> None:
    attention = load_model(file("attention_history")).get_layer("Multi-Head")
    assert isinstance(attention, MultiHeadAttention)
    assert (attention.head_num, attention.use_bias, attention.history_only) == (2, False, True)
    assert attention.kernel_regularizer.l2 == pytest.approx(1e-3)
    assert attention.kernel_constraint.max_value == 3.0
    heads = load_model(file("heads_bidirectional")).get_layer("Multi-Head-Attention")
    assert isinstance(heads, MultiHead)
    assert [head.name for head in heads.layers] == ["LSTM_1", "LSTM_2"]
    assert heads.reg_index == [1, 4]
    assert heads.reg_slice == [(slice(None), slice(8, 12))] * 2
    assert heads.reg_factor == [0.1, 0.1]


def test_same_file_with_the_words_of_other_versions(tmp_path: Path) -> None:
    """Registered names as prefixes, no modules, no input layer, and weight names without `sub_0`."""

    def older(text: str) -> str:
        config = json.loads(text)
        first, *others = config["config"]["layers"]
        assert first["class_name"] == "InputLayer"
        config["config"]["layers"] = others
        text = (
            json.dumps(config).replace('"module": "keras.layers", ', "").replace('"module": "keras.initializers", ', "")
        )
        text = text.replace(', "registered_name": null', "")
        return text.replace('"MultiHead"', '"keras_multi_head>MultiHead"')

    def edit(opened: Any) -> None:
        edit_config(older)(opened)
        rename_weights("Multi-LSTMs", lambda number, name: f"lstm_cell_{number // 3}/{name.rsplit('/')[-1]}")(opened)

    path = edited("heads_lstm_masked", tmp_path, edit)
    with h5py.File(path) as opened:
        assert "module" not in opened.attrs["model_config"]
        assert "sub_0" not in str(list(opened["model_weights/Multi-LSTMs"].attrs["weight_names"]))
    assert mismatches("heads_lstm_masked", load_model(path)) == []


def test_config_of_a_sequential_as_a_list_and_a_custom_prefix(tmp_path: Path) -> None:
    def oldest(text: str) -> str:
        config = json.loads(text)
        config["config"] = config["config"]["layers"]
        return json.dumps(config).replace('"MultiHeadAttention"', '"Custom>MultiHeadAttention"')

    path = edited("attention_self", tmp_path, edit_config(oldest))
    assert mismatches("attention_self", load_model(path)) == []


def test_names_that_say_nothing_leave_the_order(tmp_path: Path) -> None:
    path = edited("heads_dense", tmp_path, rename_weights("Multi-Dense", lambda number, name: f"variable_{number}:0"))
    assert mismatches("heads_dense", load_model(path)) == []


def test_names_cut_into_numbered_attributes(tmp_path: Path) -> None:
    def cut(opened: Any) -> None:
        attributes = opened["model_weights/Multi-Dense"].attrs
        names = attributes["weight_names"]
        del attributes["weight_names"]
        attributes["weight_names0"], attributes["weight_names1"] = names[:4], names[4:]

    assert mismatches("heads_dense", load_model(edited("heads_dense", tmp_path, cut))) == []


@pytest.mark.parametrize("frozen", [False, True])
def test_weights_of_a_frozen_layer_fit_a_trainable_one_and_back(frozen: bool) -> None:
    """All shapes are equal there, so only the names can tell gamma from variance."""
    model = load_model(file("heads_batch_normalization"))
    model.get_layer("Multi-Norm").trainable = not frozen
    forget(model)
    case = "heads_frozen" if frozen else "heads_batch_normalization"
    load_weights(model, file(case, ".weights-only.h5"))
    assert mismatches(case, model) == []


def test_weights_go_by_order_into_layers_with_other_names() -> None:
    inputs = keras.Input((6, 8))
    heads = [keras.layers.Conv1D(4, size, padding="same") for size in (3, 5, 7)]
    outputs = keras.layers.GlobalMaxPooling2D()(MultiHead(heads, name="anything")(inputs))
    model = keras.Model(inputs, outputs)
    load_weights(model, file("heads_convolution", ".weights-only.h5"))
    assert mismatches("heads_convolution", model) == []


def small(units: int = 3, heads: int = 3, extra: bool = False) -> keras.Model:
    layers = [keras.Input((None, 8)), MultiHead(keras.layers.Dense(units, activation="tanh"), layer_num=heads)]
    return keras.Sequential([*layers, *([keras.layers.Dense(2)] if extra else [])])


@pytest.mark.parametrize(
    ("model", "sentence"),
    [
        ({"units": 4}, r"Multi-Dense/sub_0/kernel:0 is \(8, 3\), .*kernel takes \(8, 4\)"),
        ({"heads": 2}, r"holds 6 weights for the layer 'multi_head.*' \(Multi-Dense/sub_0/kernel:0, .*which has 4"),
        ({"extra": True}, r"holds weights for 1 layers \(Multi-Dense\), the model has 2 layers"),
    ],
)
def test_weights_that_do_not_fit_are_named_and_nothing_is_changed(model: dict[str, Any], sentence: str) -> None:
    built = small(**model)
    before = built.get_weights()
    with pytest.raises(InputError, match=sentence):
        load_weights(built, file("heads_dense", ".weights-only.h5"))
    for one, other in zip(before, built.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("model", [{"units": 4}, {"heads": 4}, {"extra": True}])
def test_v3_weights_that_do_not_fit_leave_the_model_as_it_was(model: dict[str, Any]) -> None:
    built = small(**model)
    before = built.get_weights()
    with pytest.raises(InputError):
        load_weights(built, file("heads_dense", ".weights.h5"))
    for one, other in zip(before, built.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_v3_weights_of_more_layers_than_the_model_has(tmp_path: Path) -> None:
    small(extra=True).save_weights(tmp_path / "more.weights.h5")
    with pytest.raises(InputError, match=r"holds weights for 2 layers \(dense, multi_head\), the model has 1 layers"):
        load_weights(small(), tmp_path / "more.weights.h5")


def test_v3_weights_under_another_name_and_with_the_older_word(tmp_path: Path) -> None:
    model = load_model(file("heads_dense"))
    shutil.copy(file("heads_dense", ".weights.h5"), tmp_path / "renamed.h5")
    with h5py.File(tmp_path / "older.weights.h5", "w") as older, h5py.File(tmp_path / "renamed.h5") as newer:
        newer.copy("layers", older, name="_layer_checkpoint_dependencies")
    for name in ("renamed.h5", "older.weights.h5"):
        forget(model)
        load_weights(model, tmp_path / name)
        assert mismatches("heads_dense", model) == []


def test_option_that_keras_3_cannot_express_is_named(tmp_path: Path) -> None:
    change = edit_config(lambda text: text.replace('"time_major": false', '"time_major": true'))
    with pytest.raises(InputError, match="time_major"):
        load_model(edited("heads_lstm", tmp_path, change))


def test_raw_operation_is_named_with_a_way_on(tmp_path: Path) -> None:
    change = edit_config(lambda text: text.replace('"class_name": "Flatten"', '"class_name": "TFOpLambda"'))
    with pytest.raises(InputError, match=r"holds a TFOpLambda: a raw TensorFlow operation.*load_weights"):
        load_model(edited("heads_lstm", tmp_path, change))


def test_weight_missing_from_the_file_is_named(tmp_path: Path) -> None:
    def remove(opened: Any) -> None:
        del opened["model_weights/Multi-Dense/Multi-Dense/sub_1/kernel:0"]

    with pytest.raises(InputError, match=r"damaged.*Multi-Dense/sub_1/kernel:0"):
        load_model(edited("heads_dense", tmp_path, remove))


def test_weight_in_another_file_is_not_followed(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "elsewhere.h5", "w") as elsewhere:
        elsewhere["secret"] = np.zeros((8, 3), "float32")

    def link(opened: Any) -> None:
        group = opened["model_weights/Multi-Dense/Multi-Dense/sub_1"]
        del group["kernel:0"]
        group["kernel:0"] = h5py.ExternalLink(tmp_path / "elsewhere.h5", "secret")

    with pytest.raises(InputError, match=r"sub_1/kernel:0 lies in another file"):
        load_model(edited("heads_dense", tmp_path, link))
