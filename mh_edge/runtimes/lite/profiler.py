"""LiteRT's profiler, which only its C library offers: the time of each operation, in XNNPACK and in loops too.

The library is the libLiteRt.so of the wheel; names and structures are those of litert/c/*.h in LiteRT 2.3. Those of
another version may differ, so its profiler is not touched.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from ctypes import byref, c_bool, c_char_p, c_int, c_int32, c_int64, c_size_t, c_uint, c_uint32, c_uint64, c_void_p
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mh_edge.errors import InputError
from mh_edge.packages import require, version
from mh_edge.runtimes.lite.file import plain_name

KNOWN = "2.3."
PROFILING = {"runtime_options_string": "enable_profiling = true\n"}
CPU = 1
RUNTIME_FOLDER, TEXT = 22, 8  # tags of an option of the environment and of its value
TO_WRITE = 1  # how a buffer is locked
RANK = 0x7F  # the bit above says whether there are strides

INVOKE, OPERATION, KERNEL = 1, 2, 8
"""Kinds of events: a graph begins; an operation; a kernel of a delegate, whose place is counted in the delegate's
part.
"""


@dataclass(frozen=True)
class Event:
    """name: of the operation ("WHILE") or of the delegate's kernel ("Softmax (NC, F32)"). kind: see above. us:
    microseconds. place: among the operations of the graph. graph: 0 is the main one, others are bodies of loops.
    """

    name: str
    kind: int
    us: int
    place: int
    graph: int


class _Value(ctypes.Structure):
    _fields_ = (("type", c_int), ("value", c_void_p))


class _Option(ctypes.Structure):
    _fields_ = (("tag", c_int), ("value", _Value))


class _Layout(ctypes.Structure):
    _fields_ = (("rank", c_uint), ("dims", c_int32 * 8), ("strides", c_uint32 * 8))


class _Tensor(ctypes.Structure):
    _fields_ = (("element", c_int), ("layout", _Layout))


class _Event(ctypes.Structure):
    _fields_ = (
        ("tag", c_char_p), ("kind", c_int), ("start", c_uint64), ("us", c_uint64), ("memory", c_size_t * 6),
        ("place", c_int64), ("graph", c_int64), ("source", c_int),
    )  # fmt: skip


# Texts of options are Python's to free.
_nothing = ctypes.CFUNCTYPE(None, c_void_p)(lambda _: None)


def known() -> bool:
    """Whether the installed LiteRT is a version whose profiler is known."""
    return (version("ai-edge-litert") or "").startswith(KNOWN)


def events(path: Path, feeds: Mapping[str, np.ndarray], calls: int, options: Mapping[str, str]) -> list[Event]:
    """What the profiler records in so many calls on the CPU, after one that it does not see.

    options: of the kernels, as TOML under the name that LiteRT gives them. Raises InputError when the library refuses
    something.
    """
    with ExitStack() as leaving:
        return _Model(path, {**PROFILING, **options}, leaving).profiled(feeds, calls)


class _Model:
    def __init__(self, path: Path, options: Mapping[str, str], leaving: ExitStack) -> None:
        package = Path(require("ai_edge_litert", "litert", "LiteRT's profiler").__path__[0])
        self._path, self._leaving = path, leaving
        self._library = ctypes.CDLL(str(package / "libLiteRt.so"))
        folder = ctypes.create_string_buffer(str(package).encode())
        option = _Option(RUNTIME_FOLDER, _Value(TEXT, ctypes.addressof(folder)))
        self._environment = self._made("Environment", "CreateEnvironment", c_int(1), byref(option))
        file = c_char_p(str(path).encode())
        self._model = self._made("Model", "CreateModelFromFile", self._environment, file)
        chosen = self._made("Options", "CreateOptions")
        self._ask("SetOptionsHardwareAccelerators", chosen, c_int(CPU))
        self._texts = [ctypes.create_string_buffer(text.encode()) for text in options.values()]
        for name, text in zip(options, self._texts, strict=True):
            content = ctypes.cast(text, c_void_p)
            opaque = self._made("", "CreateOpaqueOptions", c_char_p(name.encode()), content, _nothing)
            self._ask("AddOpaqueOptions", chosen, opaque)
        what = self._environment, self._model, chosen
        self._compiled = self._made("CompiledModel", "CreateCompiledModel", *what)
        self._signature = self._made("", "GetModelSignature", self._model, c_size_t(0))

    def profiled(self, feeds: Mapping[str, np.ndarray], calls: int) -> list[Event]:
        call = self._prepared(feeds)
        profiler = self._made("", "CompiledModelGetProfiler", self._compiled)
        call()
        self._ask("StartProfiler", profiler)
        for _ in range(calls):
            call()
        self._ask("StopProfiler", profiler)
        count = c_int()
        self._ask("GetNumProfilerEvents", profiler, byref(count))
        found = (_Event * count.value)()
        self._ask("GetProfilerEvents", profiler, count, found)
        return [Event(one.tag.decode(), one.kind, one.us, one.place, one.graph) for one in found]

    def _prepared(self, feeds: Mapping[str, np.ndarray]) -> Callable[[], None]:
        inputs, outputs = self._tensors("Input"), self._tensors("Output")
        for place, (name, tensor) in enumerate(inputs.items()):
            shape = feeds[name].shape
            if tuple(tensor.layout.dims[: tensor.layout.rank & RANK]) != shape:
                self._resize(place, shape)
                tensor.layout.dims[: len(shape)] = shape
        layouts = (_Layout * len(outputs))()
        count = c_size_t(len(outputs))
        self._ask("GetCompiledModelOutputTensorLayouts", self._compiled, c_size_t(0), count, layouts, c_bool(True))
        for layout, tensor in zip(layouts, outputs.values(), strict=True):
            tensor.layout = layout
        given, taken = self._buffers("Input", inputs.values()), self._buffers("Output", outputs.values())
        for buffer, name in zip(given, inputs, strict=True):
            self._write(c_void_p(buffer), np.ascontiguousarray(feeds[name]))
        what = c_size_t(len(given)), given, c_size_t(len(taken)), taken
        return lambda: self._ask("RunCompiledModel", self._compiled, c_size_t(0), *what)

    def _tensors(self, end: str) -> dict[str, _Tensor]:
        """The inputs or outputs by the names that sessions give them."""
        count = c_size_t()
        self._ask(f"GetNumSignature{end}s", self._signature, byref(count))
        found = {}
        for place in map(c_size_t, range(count.value)):
            name = self._made("", f"GetSignature{end}Name", self._signature, place)
            handle = self._made("", f"GetSignature{end}TensorByIndex", self._signature, place)
            tensor = _Tensor()
            self._ask("GetRankedTensorType", handle, byref(tensor))
            found[plain_name(ctypes.string_at(name).decode())] = tensor
        return found

    def _resize(self, place: int, shape: Sequence[int]) -> None:
        dims = (c_int * len(shape))(*shape)
        what = c_size_t(0), c_size_t(place), dims, c_size_t(len(shape))
        self._ask("CompiledModelResizeInputTensor", self._compiled, *what)

    def _buffers(self, end: str, tensors: Iterable[_Tensor]) -> ctypes.Array[c_void_p]:
        found = []
        for place, tensor in enumerate(tensors):
            where = self._compiled, c_size_t(0), c_size_t(place)
            needs = self._made("", f"GetCompiledModel{end}BufferRequirements", *where)
            what = self._environment, byref(tensor), needs
            found.append(self._made("TensorBuffer", "CreateManagedTensorBufferFromRequirements", *what))
        return (c_void_p * len(found))(*(buffer.value for buffer in found))

    def _write(self, buffer: c_void_p, array: np.ndarray) -> None:
        memory = c_void_p()
        self._ask("LockTensorBuffer", buffer, byref(memory), c_int(TO_WRITE))
        ctypes.memmove(memory, array.ctypes.data, array.nbytes)
        self._ask("UnlockTensorBuffer", buffer)

    def _made(self, kind: str, function: str, *arguments: object) -> c_void_p:
        """What a function gives in its last argument. kind: of what must be destroyed at the end."""
        handle = c_void_p()
        self._ask(function, *arguments, byref(handle))
        if kind:
            self._leaving.callback(self._library[f"LiteRtDestroy{kind}"], handle)
        return handle

    def _ask(self, function: str, *arguments: object) -> None:
        if status := self._library[f"LiteRt{function}"](*arguments):
            raise InputError(
                f"LiteRT's profiler cannot run {self._path}: {function} gives the status {status}.",
                "Leave out --ops; the latency is measured without it.",
            )
