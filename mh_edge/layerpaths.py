"""The layer in the name of an operation of a file, and what a user calls it.

In files of ours an operation is named `<layer path>/<operation>` (.onnx) or `<layer path>/mh_edge.<rule>/<operation>`
(.tflite, by the tensor it makes). The TFLite converter puts the model before each path and a number behind each name of
it, `model_1/dense_1`, which a user does not say.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable

MARK = "mh_edge."
"""What a segment that names a rule begins with."""

_NUMBERED = re.compile(r"_\d+$")
"""What the TFLite converter adds to the name of a layer."""


def names(paths: Iterable[str], format: str) -> dict[str, tuple[str, ...]]:
    """Path of each layer -> what a user may call it, the shortest last: that and, in a .tflite file, the path without
    the model (if all paths begin with one) and the rules, and that without numbers as well. The model itself has no
    name.
    """
    layers = {path for path in paths if path}
    if format == "onnx":
        return {layer: (layer,) for layer in layers}
    models = {layer.partition("/")[0] for layer in layers} if any("/" in layer for layer in layers) else set()
    found = {}
    for layer in sorted(layers):
        own = [segment for segment in layer.split("/") if not segment.startswith(MARK)][len(models) == 1 :]
        plain = "/".join(own), "/".join(_NUMBERED.sub("", segment) for segment in own)
        found[layer] = tuple(dict.fromkeys((layer, *plain))) if own else ()
    return found


def titles(paths: Iterable[str], format: str) -> dict[str, str]:
    """Path of each layer -> the shortest that it may be called, if no other layer is called that."""
    short = {layer: called[-1] for layer, called in names(paths, format).items() if called}
    times = Counter(short.values())
    return {layer: name if times[name] == 1 else layer for layer, name in short.items()}
