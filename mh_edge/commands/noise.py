"""Keeps what TensorFlow, Keras, absl and the runtimes print away from the user's terminal, and out of `--json`.

They write through Python and straight to descriptors 1 and 2 alike, so both are turned aside while a command works.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
import warnings
from collections.abc import Iterator
from typing import TextIO

from mh_edge.quiet import EVERYTHING, FATAL_ONLY, log_level, terminal


@contextlib.contextmanager
def hushed(*, verbose: bool) -> Iterator[TextIO]:
    """Within it nothing reaches stdout, and stderr only when `verbose`; the stream given still leads to the real
    stderr.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    with contextlib.ExitStack() as stack:
        stack.enter_context(log_level(EVERYTHING if verbose else FATAL_ONLY))
        shown = stack.enter_context(terminal())
        nowhere = stack.enter_context(open(os.devnull, "w", encoding="utf-8"))
        noise = shown if verbose else nowhere
        stack.enter_context(_descriptor_turned(1, 2 if verbose else nowhere.fileno()))
        if not verbose:
            stack.enter_context(_descriptor_turned(2, nowhere.fileno()))
            stack.enter_context(warnings.catch_warnings())
            warnings.simplefilter("ignore")
        stack.enter_context(contextlib.redirect_stdout(noise))
        stack.enter_context(contextlib.redirect_stderr(noise))
        yield shown


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
