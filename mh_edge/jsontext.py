"""JSON text that any reader accepts: NaN and infinity become the strings "nan", "inf" and "-inf"."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping
from typing import Any


def dumps(data: Any, *, indent: int | None = None, ascii_only: bool = False) -> str:
    """Strict JSON, keys in the order given; the same data always gives the same text."""
    return json.dumps(_plain(data), indent=indent, ensure_ascii=ascii_only, allow_nan=False)


def print_json(data: Any) -> None:
    """On stdout, in characters that it knows: a name of a file may be no text."""
    text = dumps(data)
    try:
        text.encode(sys.stdout.encoding)
    except UnicodeEncodeError:
        text = dumps(data, ascii_only=True)
    print(text, flush=True)


def _plain(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
