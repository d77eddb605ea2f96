"""quiet(): what TensorFlow's and LiteRT's native code prints of its own accord is left out; nothing else is lost.

    from mh_edge.quiet import quiet
    with quiet():
        import keras

They write information and warnings (the CPU's instructions, missing GPU drivers, delegates, types that an optimizer
passes over) straight to descriptor 2, partly before any setting is read. That descriptor is turned aside for a while;
afterwards every line in it that is not such a message is written where it was going.
"""

from __future__ import annotations

import contextlib
import functools
import io
import logging
import os
import re
import sys
import tempfile
import threading
from collections.abc import Iterator
from typing import TextIO

LEVEL = "TF_CPP_MIN_LOG_LEVEL"
EVERYTHING, FATAL_ONLY = "0", "3"

NOISE = re.compile(
    rb"""
      [IW]\d{4}\ \d\d:\d\d:                             # absl: I0000 00:00:1795429182.582452   28614 port.cc:153] ...
    | \d{4}-\d\d-\d\d\ \d\d:\d\d:\d\d\.\d+:\ [IW]\      # TensorFlow: 2026-01-31 09:41:00.123456: I tensorflow/core/...
    | WARNING:\ All\ log\ messages\ before\ absl::
    | To\ enable\ the\ following\ instructions:
    | INFO:\ .*(TensorFlow\ Lite|XNNPACK)
    """,
    re.VERBOSE,
)
"""How the lines begin that are left out. Errors (E) and fatal errors (F) are none of them."""

_aside = threading.Lock()


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Within it, or within a function that it decorates, native information and warnings are not printed.

    What Python prints is not delayed; other native lines come when it ends. With TF_CPP_MIN_LOG_LEVEL set below 3
    nothing is left out. Descriptor 2 belongs to the whole process, so one context at a time turns it aside: another
    within it, or in another thread, changes nothing.
    """
    if os.environ.get(LEVEL, FATAL_ONLY) != FATAL_ONLY or not _aside.acquire(blocking=False):
        yield
        return
    try:
        with log_level(FATAL_ONLY), _native_lines_filtered():
            yield
    finally:
        _aside.release()


@contextlib.contextmanager
def log_level(level: str) -> Iterator[None]:
    """TensorFlow reads its level once, when it is loaded: within this, it reads this one."""
    before = os.environ.get(LEVEL)
    os.environ[LEVEL] = level
    try:
        yield
    finally:
        if before is None:
            del os.environ[LEVEL]
        else:
            os.environ[LEVEL] = before


@contextlib.contextmanager
def loggers_at(level: int, *names: str) -> Iterator[None]:
    """Within it Python's loggers of these names pass on this level and above."""
    loggers = [logging.getLogger(name) for name in names]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(level)
    try:
        yield
    finally:
        for logger, was in zip(loggers, before, strict=True):
            logger.setLevel(was)


@contextlib.contextmanager
def terminal() -> Iterator[TextIO]:
    """sys.stderr, or a second way to it when it is descriptor 2 itself."""
    try:
        shared = sys.stderr.fileno() == 2
    except io.UnsupportedOperation:
        shared = False
    if not shared:
        yield sys.stderr
        return
    stream = _second_way()
    os.dup2(2, stream.fileno())
    yield stream
    stream.flush()


@functools.cache
def _second_way() -> TextIO:
    """One for the whole process and never closed: a logger that is made meanwhile keeps it as its stream."""
    return os.fdopen(os.dup(2), "w", encoding="utf-8", errors="replace", buffering=1)


@contextlib.contextmanager
def _native_lines_filtered() -> Iterator[None]:
    try:
        kept = os.dup(2)
    except OSError:  # closed: nothing can be printed there
        yield
        return
    sys.stderr.flush()
    with tempfile.TemporaryFile() as lines:
        try:
            with terminal() as stream, contextlib.redirect_stderr(stream):
                os.dup2(lines.fileno(), 2)
                try:
                    yield
                finally:
                    os.dup2(kept, 2)
        finally:
            os.close(kept)
            lines.seek(0)
            # Nobody may be reading any more, which is no reason to fail.
            with contextlib.suppress(OSError), open(2, "wb", closefd=False) as out:
                out.writelines(line for line in lines if not NOISE.match(line))
