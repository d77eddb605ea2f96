"""A model of this kit in a program of your own:

    from sample import Model

    model = Model("NAME")  # as `python selftest.py` names it; Model() for the only one
    outputs = model({"x": x})  # arrays by name -> arrays by name

A model that keeps states (a stream) gets them from the call before, zeros at first; `reset` begins a new stream. As a
program it calls a model again and again with the rows of an .npz, an array for each input whose first axis counts the
calls (or the samples, where the axis of the batch is left out), and writes what comes out in the same way:

    python sample.py NAME inputs.npz outputs.npz
"""

# ruff: noqa: B905 - Python 3.9 knows no zip(strict=)

from __future__ import annotations

import importlib
import importlib.util
import json
import sys
from pathlib import Path

import numpy as np

KIT = Path(__file__).resolve().parent

RUNTIMES = {
    "onnxruntime": ("onnx", "onnxruntime"),
    "ai-edge-litert": ("tflite", "ai_edge_litert"),
    "tflite-runtime": ("tflite", "tflite_runtime"),
}
"""What runs a model: its name for pip -> the format that it takes, the module to import."""


class Model:
    """A model of the kit. name: may be left out where the kit holds one. runtime: of RUNTIMES; the first that is
    installed. threads: for its computations.
    """

    def __init__(self, name: str | None = None, runtime: str | None = None, threads: int = 1) -> None:
        entries = json.loads((KIT / "bundle.json").read_text(encoding="utf-8"))["artifacts"]
        names = [entry["name"] for entry in entries]
        if name not in names and not (name is None and len(names) == 1):
            raise SystemExit(f"Name one of the models of this kit: {', '.join(names)}.")
        self.entry = entries[0 if name is None else names.index(name)]
        self.inputs = {tensor["name"]: tensor for tensor in self.entry["signature"]["inputs"]}
        self.states = {state["input"]: state["output"] for state in self.entry["signature"]["states"]}
        self.runtime = runtime or next(iter(installed(self.entry["format"])), "")
        if not self.runtime:
            known = [one for one, (kind, _) in RUNTIMES.items() if kind == self.entry["format"]]
            raise SystemExit(f"Nothing here runs {self.entry['name']}: pip install {known[0]}")
        opened = _onnx if self.entry["format"] == "onnx" else _tflite
        self._run = opened(self.entry, RUNTIMES[self.runtime][1], threads)
        self.reset()

    def reset(self) -> None:
        """Begin a new stream."""
        self._kept: dict[str, np.ndarray] = {}

    def __call__(self, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Run once. Arrays are made what the model takes (float64 becomes float32)."""
        missing = [name for name in self.inputs if name not in arrays and name not in self.states]
        if missing or not arrays.keys() <= self.inputs.keys():
            raise ValueError(f"{self.entry['name']} takes {', '.join(self.inputs)}; given is {', '.join(arrays)}.")
        feeds = {name: np.asarray(array, self.inputs[name]["dtype"]) for name, array in arrays.items()}
        feeds = {**self._zeros(feeds), **self._kept, **feeds}
        outputs = self._run({name: feeds[name] for name in self.inputs})
        self._kept = {name: outputs[after] for name, after in self.states.items()}
        return outputs

    def _zeros(self, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """States of a new stream; their free sizes are those that the other inputs have."""
        sizes = {size: n for name, x in feeds.items() for size, n in zip(self.inputs[name]["shape"], x.shape)}
        return {
            name: np.zeros([sizes.get(size, size) for size in self.inputs[name]["shape"]], self.inputs[name]["dtype"])
            for name in self.states
            if name not in feeds
        }


def installed(kind: str) -> list[str]:
    """The runtimes here that take a format."""
    return [name for name, (one, module) in RUNTIMES.items() if one == kind and importlib.util.find_spec(module)]


def _onnx(entry, module, threads):
    onnxruntime = importlib.import_module(module)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3  # errors
    for key, value in entry["session_options"].items():
        options.add_session_config_entry(key, value)
    path = str(KIT / entry["path"])
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    names = [one.name for one in session.get_outputs()]
    return lambda feeds: dict(zip(names, session.run(None, feeds)))


def _tflite(entry, module, threads):
    interpreter = importlib.import_module(f"{module}.interpreter").Interpreter(
        model_path=str(KIT / entry["path"]), num_threads=threads
    )
    places = [one["index"] for one in interpreter.get_input_details()]
    outputs = interpreter.get_output_details()
    names = [one["name"] for one in entry["signature"]["outputs"]]
    shapes = []

    def run(feeds):
        now = [array.shape for array in feeds.values()]
        if now != shapes:  # a free size stands as 1 in the file
            for place, shape in zip(places, now):
                interpreter.resize_tensor_input(place, shape)
            interpreter.allocate_tensors()
            shapes[:] = now
        for place, array in zip(places, feeds.values()):
            interpreter.set_tensor(place, array)
        interpreter.invoke()
        return {name: interpreter.get_tensor(one["index"]) for name, one in zip(names, outputs)}

    return run


def main(name: str, source: str, target: str) -> None:
    """Call it with each row."""
    model = Model(name)
    with np.load(source, allow_pickle=False) as arrays:
        rows = {key: arrays[key] for key in arrays.files}
    if len({len(array) for array in rows.values()}) != 1:
        raise SystemExit(f"The arrays of {source} differ in their first axis, which counts the calls.")
    samples = all(array.ndim == len(model.inputs[key]["shape"]) for key, array in rows.items() if key in model.inputs)
    calls = [model({key: x[None] if samples else x for key, x in zip(rows, row)}) for row in zip(*rows.values())]
    join = np.concatenate if samples else np.stack
    stacked = {key: join([call[key] for call in calls]) for key in calls[0]}
    np.savez(target, **stacked)
    for key, array in stacked.items():
        print(f"{target}: {key} {array.dtype} {array.shape}")


if __name__ == "__main__":
    if len(sys.argv) != 4:
        raise SystemExit(__doc__)
    main(*sys.argv[1:])
