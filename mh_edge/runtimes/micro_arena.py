"""The least arena with which TFLite Micro takes a file, as a program: FILE ENOUGH -> bytes on standard output.

It is a program, and tries each size in a child of its own, because an arena that is too small ends some of TFLite
Micro's kernels with a segmentation fault.
"""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path
from typing import Any

ALIGNMENT = 16
"""TFLite Micro lays tensors at multiples of this."""


def least(runtime: Any, content: bytes, enough: int) -> int:
    """By bisection. enough: a size that is known to fit."""
    small = 0
    enough = -(-enough // ALIGNMENT) * ALIGNMENT
    while enough - small > ALIGNMENT:
        middle = (small + enough) // 2 // ALIGNMENT * ALIGNMENT
        if fits(runtime, content, middle):
            enough = middle
        else:
            small = middle
    return enough


def fits(runtime: Any, content: bytes, arena: int) -> bool:
    """Whether the interpreter can be made with an arena of so many bytes; a crash is a no."""
    child = os.fork()
    if child == 0:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        try:
            runtime.Interpreter.from_bytes(content, arena_size=arena)
        except RuntimeError:
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


if __name__ == "__main__":
    path, enough_bytes = sys.argv[1:]
    print(least(importlib.import_module("tflite_micro").runtime, Path(path).read_bytes(), int(enough_bytes)))
