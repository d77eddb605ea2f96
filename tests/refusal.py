"""What every refusal has: its kind, a sentence, and a hint how to go on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from mh_edge.errors import InputError, MhEdgeError


def refused(action: Callable[[], Any], error: type[MhEdgeError] = InputError) -> MhEdgeError:
    """The error the action ends with: of this kind, a sentence, and a hint."""
    with pytest.raises(error) as caught:
        action()
    assert caught.value.message
    assert caught.value.hint
    return caught.value
