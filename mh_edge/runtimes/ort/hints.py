"""Which of ONNX Runtime's session options are taken from a manifest or a bundle: others could do more than change the
speed, such as write files.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

HINTS = {"session.set_denormal_as_zero": ("0", "1")}
"""Those, with their values."""


def hints(options: Mapping[str, Any]) -> dict[str, str]:
    """The options that are taken, of those given."""
    return {key: value for key, value in options.items() if value in HINTS.get(key, ())}
