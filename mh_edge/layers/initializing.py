"""Initial values for several weights from one initializer."""

from __future__ import annotations

from typing import Any

import keras


def fresh(initializer: Any) -> Any:
    """The initializer with random numbers of its own.

    An initializer of Keras 3 gives the same numbers each time it is asked, seed or no seed; without this, the kernels
    of query, key and value would start equal.
    """
    return initializer.clone() if isinstance(initializer, keras.initializers.Initializer) else initializer
