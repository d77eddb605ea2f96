"""export(state_io=True): states as inputs and outputs, on both runtimes, over several calls, against Keras."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers

import mh_edge
from mh_edge.artifact import read_manifest
from mh_edge.errors import InputError
from mh_edge.layers import MultiHead
from mh_edge.runtimes import open_session
from mh_edge.signature import State
from mh_edge.streaming import stream, stream_notes
from mh_edge.verification.domains import derive

ROWS = (None, 4)
FORMATS = ("onnx", "tflite")


def over(*stack, shape=ROWS, **options):
    """A functional model: the layers one after the other."""
    x = y = keras.Input(shape, name="x", **options)
    for layer in stack:
        y = layer(y)
    return keras.Model(x, y)


def lstm(name="first", **options):
    return layers.LSTM(3, return_sequences=True, bias_initializer="normal", name=name, **options)


def nested():
    inner = keras.Sequential([keras.Input(ROWS), layers.SimpleRNN(3, return_sequences=True, name="inner")])
    return over(inner, layers.Dense(2))


MODELS = {
    "sequential": lambda: keras.Sequential([keras.Input(ROWS), lstm(), layers.GRU(2, name="second")]),
    "nested": nested,
    "heads": lambda: over(MultiHead(lstm("head"), layer_num=2)),
    "stacked": lambda: over(
        layers.RNN([layers.LSTMCell(3), layers.GRUCell(2)], return_sequences=True, name="stack"), layers.Dense(2)
    ),
}
STATES = {
    "sequential": ["first_state_h", "first_state_c", "second_state_h"],
    "nested": ["inner_state_h"],
    "heads": ["head_1_state_h", "head_1_state_c", "head_2_state_h", "head_2_state_c"],
    "stacked": ["stack_0_state_h", "stack_0_state_c", "stack_1_state_h"],
}


@pytest.fixture(params=MODELS)
def exported(request, tmp_path):
    """(model, states, files) of every kind of model, the richest in both formats."""
    keras.utils.set_random_seed(5)
    model = MODELS[request.param]()
    formats = FORMATS if request.param in ("sequential", "stacked") else "onnx"
    result = mh_edge.export(model, tmp_path, formats=formats, state_io=True, name="m")
    return model, STATES[request.param], result


@pytest.fixture(scope="module")
def streamed(tmp_path_factory):
    """(model, file) of one LSTM."""
    keras.utils.set_random_seed(3)
    model = over(lstm())
    (artifact,) = mh_edge.export(model, tmp_path_factory.mktemp("streamed"), state_io=True).artifacts
    return model, artifact.path


def fed_in_pieces(path, x, pieces):
    """A user's loop: the manifest says which output feeds which input."""
    states = read_manifest(path).signature.states
    with open_session(path) as session:
        shapes = {item.name: item.shape[1:] for item in session.signature.inputs}
        own = next(name for name in shapes if name not in {state.input for state in states})
        carried = {state.input: np.zeros((len(x), *shapes[state.input]), "float32") for state in states}
        shown = []
        for piece in np.split(x, pieces, axis=1):
            outputs = session.run({own: piece, **carried})
            carried = {state.input: outputs.pop(state.output) for state in states}
            shown.append(next(iter(outputs.values())))
    return shown


def test_pieces_add_up_to_the_whole(exported):
    model, states, result = exported
    x = np.random.default_rng(0).normal(size=(1, 12, 4)).astype("float32")
    whole = model.predict(x, verbose=0)
    for artifact in result.artifacts:
        assert [state.input for state in artifact.signature.states] == states
        assert artifact.signature.states[0] == State(states[0], f"{states[0]}_out")
        assert artifact.to_json()["states"][0] == {"input": states[0], "output": f"{states[0]}_out"}
        assert artifact.verified["passed"]
        assert any("over 4 calls" in row["kind"] for row in artifact.verified["classes"])
        assert any("in pieces gives what the model gives on the whole" in note for note in artifact.notes)
        shown = fed_in_pieces(artifact.path, x, 4)
        got = shown[-1] if whole.ndim == 2 else np.concatenate(shown, axis=1)
        np.testing.assert_allclose(got, whole, atol=2e-6)
        forgetful = [fed_in_pieces(artifact.path, piece, 1)[0] for piece in np.split(x, 4, axis=1)]
        assert np.abs(forgetful[-1] - shown[-1]).max() > 1e-3


def test_stateful_masked_model_call_by_call(tmp_path):
    """Against Keras with stateful=True, which keeps the mask beside the state that it carries."""
    keras.utils.set_random_seed(3)
    model = keras.Sequential(
        [keras.Input(batch_shape=(2, 3, 4)), layers.Masking(), layers.GRU(3, stateful=True, return_sequences=True)]
    )
    result = mh_edge.export(model, tmp_path, formats=FORMATS, batch=2, state_io=True, name="m")
    x = np.random.default_rng(0).normal(size=(2, 12, 4)).astype("float32")
    x[0, 4:8] = 0
    x[1, :2] = 0
    expected = [model(piece).numpy() for piece in np.split(x, 4, axis=1)]
    for artifact in result.artifacts:
        np.testing.assert_allclose(fed_in_pieces(artifact.path, x, 4), expected, atol=2e-6)
    assert model.layers[-1].stateful
    assert not model.layers[-1].return_state


def test_stateful_without_state_io_names_it(tmp_path):
    model = keras.Sequential([keras.Input(batch_shape=(1, 3, 4)), layers.LSTM(2, stateful=True)])
    with pytest.raises(InputError, match="stateful=True") as caught:
        mh_edge.export(model, tmp_path)
    assert "--state-io" in caught.value.hint


def test_a_model_that_looks_at_whole_pieces_says_so(tmp_path):
    model = over(layers.Conv1D(4, 3, padding="same"), lstm())
    (artifact,) = mh_edge.export(model, tmp_path, state_io=True).artifacts
    assert any("depends on where a sequence is cut" in note for note in artifact.notes)


@pytest.mark.parametrize("whole", [True, False])
def test_pieces_that_begin_masked_do_not_add_up(whole):
    """Keras gives zeros for a masked step that no step precedes in its piece, else the output before it."""
    masked = over(layers.Masking(), lstm() if whole else layers.GRU(2))
    (note,) = stream_notes(derive(stream(masked)))
    assert "depends on where a sequence is cut" in note
    zeros = over(layers.Masking(), lstm(zero_output_for_mask=True))
    assert "gives what the model gives on the whole" in stream_notes(derive(stream(zeros)))[0]


def test_verify_of_a_stream_takes_the_plain_model_and_real_feeds(streamed):
    model, path = streamed
    feeds = {"x": np.random.default_rng(0).normal(size=(3, 5, 4)).astype("float32")}
    assert mh_edge.verify(model, path, feeds=feeds).passed
    assert not mh_edge.verify(over(lstm()), path).passed


def test_a_state_that_is_not_handed_on_is_found(streamed, monkeypatch):
    """Single calls are equal all the same: only several calls in a row can tell."""
    from mh_edge.verification.calls import CallsTrial
    from mh_edge.verification.trial import Trial

    model, path = streamed
    honest = Trial.run

    def forgetting(self, arrays):
        if isinstance(self, CallsTrial):
            arrays = {name: array * 0 if "state" in name else array for name, array in arrays.items()}
        return honest(self, arrays)

    monkeypatch.setattr(Trial, "run", forgetting)
    verdict = mh_edge.verify(model, path)
    assert not verdict.passed
    assert "over 4 calls" in verdict.candidates[0].reasons[0]


REFUSED = {
    "no recurrent layer": lambda: over(layers.Dense(2)),
    "'both'.*reads time from the end": lambda: over(layers.Bidirectional(lstm(), name="both")),
    "'first'.*reads time from the end": lambda: over(lstm(go_backwards=True)),
    "'each'.*anew at every step": lambda: over(layers.TimeDistributed(layers.LSTM(2), name="each"), shape=(None, 5, 4)),
    "'clouds'.*size of an image": lambda: over(layers.ConvLSTM1D(2, 3, name="clouds"), shape=(None, 6, 4)),
}


@pytest.mark.parametrize("reason", REFUSED)
def test_what_cannot_stream_is_refused(reason):
    with pytest.raises(InputError, match=reason):
        stream(REFUSED[reason]())


def test_states_that_are_not_the_layers_own_are_refused():
    x, h = keras.Input(ROWS, name="x"), keras.Input((3,), name="h")
    with pytest.raises(InputError, match="'second' starts from a state that the model itself"):
        stream(keras.Model([x, h], layers.GRU(3, name="second")(x, initial_state=[h])))
    shared = layers.GRU(4, return_sequences=True, name="shared")
    with pytest.raises(InputError, match="'shared' is called 2 times"):
        stream(keras.Model(x, shared(shared(x))))


def test_states_that_have_no_name_of_their_own_are_refused():
    inner = keras.Sequential([keras.Input(ROWS), layers.GRU(4, return_sequences=True, name="same")])
    with pytest.raises(InputError, match="layer 'same' would be called 'same_state_h', and so is one of another layer"):
        stream(over(inner, layers.GRU(4, name="same")))
    x = keras.Input(ROWS, name="first_state_c")
    with pytest.raises(InputError, match=r"layer 'first' .*, and so is the input 'first_state_c' of the model"):
        stream(keras.Model(x, lstm()(x)))
    with pytest.raises(InputError, match=r"layer 'first' .*, and so is the output 'first_state_h_out' of the model"):
        stream(over(lstm(), layers.Dense(2, name="first_state_h_out")))
