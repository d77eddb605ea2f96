"""What other libraries say, cut down to the sentence in it."""

from __future__ import annotations

import re

BOLD = re.compile(r"\x1b\[1m(.*?)\x1b\[0m", re.DOTALL)
"""Keras repeats what a layer raised in bold, between words of its own and a list of the arguments."""

INFERENCE_FAILED = "Error encountered:"
"""What Keras puts before it where it was inferring a shape."""


def said(error: BaseException) -> str:
    """The first line of an error's message that says something; its class where it says nothing."""
    text = str(error)
    while (inner := BOLD.search(text)) is not None:
        text = inner[1]
    text = text.rpartition(INFERENCE_FAILED)[2]
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
