"""Keras itself, as a baseline beside the runtimes: the model compiled by tf.function, which is the fastest that it
offers without XLA.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np

from mh_edge.packages import require, version
from mh_edge.quiet import quiet
from mh_edge.runtimes.base import Session
from mh_edge.runtimes.placement import Placement
from mh_edge.signature import Signature


class KerasSession(Session):
    """A Keras model file. settings: "import" (modules, separated by commas, that register custom layers), "unsafe"."""

    device = "keras"
    runtime = "Keras"
    formats = ("keras",)
    packages = ("keras",)
    extra = "export"
    takes = ("import", "unsafe")

    @classmethod
    def load(cls) -> str:
        os.environ["KERAS_BACKEND"] = "tensorflow"
        with quiet():
            require("keras", cls.extra, "the baseline")
        return version("keras") or ""

    def _open(self) -> Signature:
        import tensorflow as tf

        from mh_edge.models import load_model
        from mh_edge.program import program

        if self.threads is not None:
            tf.config.threading.set_intra_op_parallelism_threads(self.threads)
            tf.config.threading.set_inter_op_parallelism_threads(self.threads)
        modules = [name for name in self.settings.get("import", "").split(",") if name]
        with quiet():
            model = load_model(self.path, custom_modules=modules, unsafe="unsafe" in self.settings)
            self._program = program(model)
        traced = self._program
        self._function = tf.function(lambda *flat: traced.call(flat), autograph=False)
        self._tensor = tf.constant
        return self._program.signature

    def _run(self, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
        return self._prepared(feeds)()

    def _prepared(self, feeds: dict[str, np.ndarray]) -> Callable[[], list[np.ndarray]]:
        def call() -> list[np.ndarray]:
            outputs: list[Any] = self._function(*map(self._tensor, feeds.values()))
            return [np.asarray(output) for output in outputs]

        return call

    def placement(self) -> Placement:
        """TensorFlow runs all of it."""
        return Placement(1, 1, 1, (), "Keras is the baseline, no device")

    def close(self) -> None:
        del self._function, self._program
