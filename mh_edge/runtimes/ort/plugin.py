"""What the devices share that a package of its own brings to ONNX Runtime as a plugin execution provider."""

from __future__ import annotations

import functools
from typing import Any, ClassVar

from mh_edge.errors import UnavailableError
from mh_edge.packages import require, version
from mh_edge.runtimes.base import first_line
from mh_edge.runtimes.ort.session import OrtSession, failures


class PluginSession(OrtSession):
    """An .onnx file in ONNX Runtime on the device of a plugin; what the plugin does not take runs on the CPU, and shows
    in the placement.

    An adapter names the `module` of the plugin, and says in `_lacking` why the plugin lists no device here.
    """

    module: ClassVar[str]
    """The plugin's Python package."""

    @classmethod
    def load(cls) -> str:
        number = super().load()
        plugin = require(cls.module, cls.extra, f"the device {cls.device!r}")
        _register(plugin.get_ep_name(), plugin.get_library_path())
        if not cls._devices():
            raise UnavailableError(*cls._lacking())
        return f"{number} with {cls.plugin} {version(str(cls.plugin))}"

    @classmethod
    def _devices(cls) -> list[Any]:
        """What the plugin lists of this machine."""
        import onnxruntime

        return [device for device in onnxruntime.get_ep_devices() if device.ep_name == cls.provider]

    @classmethod
    def _lacking(cls) -> tuple[str, str]:
        """Why the plugin lists no device, or cannot use the one it lists -> and the line that mends it."""
        return (
            f"{cls.plugin} offers no device that works on this machine",
            f"pip install --force-reinstall {cls.plugin}",
        )

    def _device(self) -> Any:
        """The one of the plugin's devices to use."""
        return self._devices()[0]

    def _made(self, onnxruntime: Any, options: Any) -> Any:
        try:
            options.add_provider_for_devices([self._device()], self._provider_options())
            # A list of `providers` beside that would open the file on the CPU.
            return onnxruntime.InferenceSession(self._model(), options, enable_fallback=0)
        except RuntimeError as error:  # what ONNX Runtime itself refuses has other classes: the plugin did not start
            raise self._unstarted(error) from error

    def _model(self) -> str | bytes:
        """What ONNX Runtime is given to open: the path of the file, or its content."""
        return str(self.path)

    def _unstarted(self, error: Exception) -> UnavailableError:
        """What to raise where the plugin itself, and not the file, is what failed."""
        reason, fix = self._lacking()
        return UnavailableError(f"{reason}: {_own_words(error)}", fix)


@functools.cache
def _register(name: str, library: str) -> None:
    """Make a plugin known to ONNX Runtime, once a process. It is never taken back: some abort when they are."""
    import onnxruntime

    try:
        onnxruntime.register_execution_provider_library(name, library)
    except failures() as error:
        raise UnavailableError(
            f"ONNX Runtime {onnxruntime.__version__} refuses the plugin {library}: {first_line(error)}",
            "pip install --upgrade onnxruntime",
        ) from error


def _own_words(error: Exception) -> str:
    """The end of a message that begins with places in ONNX Runtime's source."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1].rpartition(" was false. ")[2] if lines else type(error).__name__
