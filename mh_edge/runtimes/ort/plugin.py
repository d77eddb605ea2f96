"""What the devices share that a package of its own brings to ONNX Runtime as a plugin execution provider."""

from __future__ import annotations

import functools
import os
import tempfile
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from mh_edge.errors import UnavailableError, UsageError
from mh_edge.packages import pip_line, require, version
from mh_edge.runtimes.base import first_line
from mh_edge.runtimes.ort.session import OrtSession, failures

STDERR = 2
"""The descriptor to which ONNX Runtime logs."""


class PluginSession(OrtSession):
    """An .onnx file in ONNX Runtime on the device of a plugin; what the plugin does not take runs on the CPU, and shows
    in the placement.

    An adapter names the `module` of the plugin and the `known_settings`, and says in `_lacking` why the plugin lists no
    device here. notes: what must be known of its times.
    """

    packages = ("onnxruntime", "onnxruntime-gpu")
    module: ClassVar[str]
    """The plugin's Python package."""
    known_settings: ClassVar[tuple[str, ...]] = ()
    """The names that `settings` may hold."""
    talkative: ClassVar[int | None] = None
    """The severity at which the plugin logs why it does not take a node; None where it never does."""

    notes: tuple[str, ...] = ()

    @classmethod
    def load(cls) -> str:
        number = super().load()
        plugin = require(cls.module, cls.extra, f"the device {cls.device!r}")
        _register(plugin.get_ep_name(), plugin.get_library_path())
        if not cls._devices():
            reason, fix = cls._lacking()
            raise UnavailableError(reason, fix)
        return f"{number} with {cls.plugin} {version(str(cls.plugin))}"

    @classmethod
    def _devices(cls) -> list[Any]:
        """What the plugin lists of this machine."""
        import onnxruntime

        return [device for device in onnxruntime.get_ep_devices() if device.ep_name == cls.provider]

    @classmethod
    def _lacking(cls) -> tuple[str, str]:
        """Why the plugin lists no device, or cannot use the one it lists -> and the line that mends it."""
        return f"{cls.plugin} lists no device on this machine", f"{pip_line(cls.extra)} --force-reinstall"

    def _device(self) -> Any:
        """The one of the plugin's devices to use."""
        return self._devices()[0]

    def _provider_options(self) -> dict[str, str]:
        return {}

    def _options(self, onnxruntime: Any) -> Any:
        options = super()._options(onnxruntime)
        options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
        options.add_provider_for_devices([self._device()], self._provider_options())
        return options

    def _made(self, onnxruntime: Any, options: Any) -> Any:
        unknown = sorted(set(self.settings) - set(self.known_settings))
        if unknown:
            known = f"It takes: {', '.join(self.known_settings)}." if self.known_settings else "It takes none."
            raise UsageError(f"the device {self.device!r} has no setting {unknown[0]!r}.", known)
        try:
            # A `providers` list beside would open it on the CPU, and `enable_fallback` would try that after a failure.
            return onnxruntime.InferenceSession(str(self.path), options, enable_fallback=0)
        except RuntimeError as error:  # what ONNX Runtime itself refuses has other classes: the plugin did not start
            reason, fix = self._lacking()
            raise UnavailableError(f"{reason}: {_own_words(error)}", fix) from error

    def reasons(self) -> Mapping[str, str]:
        """Why the plugin did not take a node -> by its name, what it logs of that when it opens the file once more."""
        if self.talkative is None:
            return {}
        import onnxruntime

        options = self._options(onnxruntime)
        options.log_severity_level = self.talkative
        return self._said_of_nodes(written(lambda: self._made(onnxruntime, options)))

    @staticmethod
    def _said_of_nodes(log: str) -> Mapping[str, str]:
        """Name of a node -> the reason, out of a log."""
        del log
        return {}


@functools.cache
def _register(name: str, library: str) -> None:
    """Make a plugin known to ONNX Runtime, once a process; it is never taken back, in which some abort."""
    import onnxruntime

    try:
        onnxruntime.register_execution_provider_library(name, library)
    except failures() as error:
        raise UnavailableError(
            f"ONNX Runtime {onnxruntime.__version__} refuses the plugin {library}: {first_line(error)}",
            "pip install --upgrade onnxruntime",
        ) from error


def _own_words(error: RuntimeError) -> str:
    """The end of a message that begins with places in ONNX Runtime's source."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1].rpartition(" was false. ")[2] if lines else type(error).__name__


def written(call: Callable[[], object]) -> str:
    """What is written to the process's standard error during the call, by native code too."""
    kept = os.dup(STDERR)
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), STDERR)
        try:
            call()
        finally:
            os.dup2(kept, STDERR)
            os.close(kept)
        file.seek(0)
        return file.read().decode(errors="replace")
