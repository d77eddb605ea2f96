"""What a TFLite rule works with.

A rule builds TensorFlow operations in the place of the layer's own, in the form that TFLite's kernels and delegates
take whole. Sizes that are fixed are read from the tensors' static shapes; weights are the layer's variables, used like
tensors.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import keras
import tensorflow as tf

from mh_edge.artifact import Choice
from mh_edge.layers.multi_head import accepted
from mh_edge.rules import Rule

Tensor = Any
"""A tf.Tensor."""
Inputs = Sequence[Tensor]
Masks = Sequence[Tensor | None]

PREFIX = "mh_edge."
"""The name scope `mh_edge.<rule>` is in the name of every tensor that a rule made, so that the file says who made
what.
"""


def scope(rule: str) -> str:
    """The name scope of what a rule emits."""
    return PREFIX + rule


class Context:
    """merge: whether parallel heads may become one operation. used: how many layers each rule has lowered. choices:
    what the rules told of the forms they chose. arguments: those of the layer call that is being lowered, by name, for
    rules that need more than inputs and masks.
    """

    def __init__(self, merge: bool = True) -> None:
        self.merge = merge
        self.used: Counter[str] = Counter()
        self.choices: list[Choice] = []
        self.arguments: Mapping[str, Any] = {}
        self._path: list[str] = []

    @contextmanager
    def within(self, rule: Rule, layer: keras.Layer, arguments: Mapping[str, Any]) -> Iterator[None]:
        """While a rule lowers a layer: its use is counted, and what it chooses is told of this layer."""
        self.used[rule.name] += 1
        self._path.append(layer.name)
        outer, self.arguments = self.arguments, arguments
        try:
            yield
        finally:
            self._path.pop()
            self.arguments = outer

    def chose(self, choice: str, why: str) -> None:
        """Tell which of several forms this layer call was given."""
        self.choices.append(Choice("/".join(self._path), choice, why))

    def call(self, layer: keras.Layer, x: Tensor, mask: Tensor | None = None, **arguments: Any) -> Any:
        """What the layer returns: from its own rule, or from its own body when it has none."""
        return layer(x, **accepted(layer, mask=mask, training=False, **arguments))


def dense(x: Tensor, kernel: Any, bias: Any = None) -> Tensor:
    """x W + b over the last axis as one FULLY_CONNECTED, whatever the rank of x and without asking for its shape."""
    product = tf.matmul(x, tf.convert_to_tensor(kernel))
    return product if bias is None else product + tf.convert_to_tensor(bias)


def sizes(x: Tensor) -> list[Any]:
    """Each size of x: a number where it is fixed, else a scalar tensor."""
    return [tf.shape(x)[axis] if size is None else size for axis, size in enumerate(x.shape)]


def reshape(x: Tensor, shape: Sequence[Any]) -> Tensor:
    """x in this shape, of numbers and scalar tensors; a single free size is inferred instead of being asked for."""
    free = [axis for axis, size in enumerate(shape) if not isinstance(size, int)]
    return tf.reshape(x, [-1 if [axis] == free else size for axis, size in enumerate(shape)])
