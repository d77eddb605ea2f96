"""Keeps what TensorFlow, Keras, absl and the runtimes print away from the user's terminal, and out of `--json`.

They write through Python and straight to descriptors 1 and 2 alike, so both are turned aside while a command works.
"""

from __future__ import annotations

import contextlib
import ctypes
import io
import os
import sys
import warnings
from collections.abc import Iterator
from typing import TextIO

TENSORFLOW_FATAL_ONLY = "3"


@contextlib.contextmanager
def hushed(*, verbose: bool) -> Iterator[TextIO]:
    """Within it nothing reaches stdout, and stderr only when `verbose`; the stream given still leads to the real
    stderr.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", TENSORFLOW_FATAL_ONLY)
    sys.stdout.flush()
    sys.stderr.flush()
    with contextlib.ExitStack() as stack:
        terminal = stack.enter_context(_terminal())
        nowhere = stack.enter_context(open(os.devnull, "w", encoding="utf-8"))
        noise = terminal if verbose else nowhere
        stack.enter_context(_descriptor_turned(1, 2 if verbose else nowhere.fileno()))
        if not verbose:
            stack.enter_context(_descriptor_turned(2, nowhere.fileno()))
            stack.enter_context(warnings.catch_warnings())
            warnings.simplefilter("ignore")
        stack.enter_context(contextlib.redirect_stdout(noise))
        stack.enter_context(contextlib.redirect_stderr(noise))
        yield terminal


@contextlib.contextmanager
def _terminal() -> Iterator[TextIO]:
    """sys.stderr, or a second way to it when it is descriptor 2 itself."""
    try:
        shared = sys.stderr.fileno() == 2
    except io.UnsupportedOperation:
        shared = False
    if not shared:
        yield sys.stderr
        return
    with os.fdopen(os.dup(2), "w", encoding="utf-8", errors="replace", buffering=1) as stream:
        yield stream


@contextlib.contextmanager
def _descriptor_turned(descriptor: int, to: int) -> Iterator[None]:
    kept = os.dup(descriptor)
    os.dup2(to, descriptor)
    try:
        yield
    finally:
        # What C code printed may still lie in C's own buffers, and would come out after the way is turned back.
        ctypes.CDLL(None).fflush(None)
        os.dup2(kept, descriptor)
        os.close(kept)
