"""Which GPUs Vulkan offers on this machine, and what to install where it offers none."""

from __future__ import annotations

import ctypes
import platform
import struct
from dataclasses import dataclass

LOADER = "libvulkan.so.1"

# Of the Vulkan 1.0 header: the type of VkInstanceCreateInfo, VK_PHYSICAL_DEVICE_TYPE_CPU, and in
# VkPhysicalDeviceProperties (824 bytes; room is left for more) four integers before the type, then 256 bytes of name.
CREATE_INSTANCE, TYPE_CPU = 1, 4
PROPERTIES = struct.Struct("16xi256s")
PROPERTIES_BYTES = 4096

INSTALL = "sudo apt-get install -y libvulkan1 mesa-vulkan-drivers"
BACKPORTS = (
    "echo deb http://deb.debian.org/debian bookworm-backports main | sudo tee /etc/apt/sources.list.d/backports.list "
    "&& sudo apt-get update && sudo apt-get install -y -t bookworm-backports libvulkan1 mesa-vulkan-drivers"
)


@dataclass(frozen=True)
class Gpu:
    """A Vulkan device. software: it is a program on the CPU (llvmpipe, SwiftShader)."""

    name: str
    software: bool


class _InstanceInfo(ctypes.Structure):
    _fields_ = (
        ("type", ctypes.c_int), ("next", ctypes.c_void_p), ("flags", ctypes.c_uint32), ("application", ctypes.c_void_p),
        ("layers", ctypes.c_uint32), ("layer_names", ctypes.c_void_p),
        ("extensions", ctypes.c_uint32), ("extension_names", ctypes.c_void_p),
    )  # fmt: skip


def gpus() -> tuple[Gpu, ...]:
    """All that Vulkan lists, on Linux; none where there is a loader and no driver. Raises OSError without a loader."""
    vulkan = ctypes.CDLL(LOADER)
    instance = ctypes.c_void_p()
    if vulkan.vkCreateInstance(ctypes.byref(_InstanceInfo(type=CREATE_INSTANCE)), None, ctypes.byref(instance)) != 0:
        return ()
    try:
        count = ctypes.c_uint32()
        vulkan.vkEnumeratePhysicalDevices(instance, ctypes.byref(count), None)
        devices = (ctypes.c_void_p * count.value)()
        vulkan.vkEnumeratePhysicalDevices(instance, ctypes.byref(count), devices)
        return tuple(_gpu(vulkan, device) for device in devices)
    finally:
        vulkan.vkDestroyInstance(instance, None)


def _gpu(vulkan: ctypes.CDLL, device: int | None) -> Gpu:
    buffer = ctypes.create_string_buffer(PROPERTIES_BYTES)
    vulkan.vkGetPhysicalDeviceProperties(ctypes.c_void_p(device), buffer)
    kind, name = PROPERTIES.unpack_from(buffer)
    return Gpu(name.partition(b"\0")[0].decode(errors="replace"), kind == TYPE_CPU)


def why_none() -> tuple[str, str] | None:
    """Why Vulkan offers nothing here, and the line that mends it; None where it offers something."""
    try:
        if gpus():
            return None
        reason = "Vulkan finds no driver of a GPU"
    except OSError:
        reason = f"the Vulkan loader {LOADER} is not installed"
    return reason, install_line()


def notes() -> tuple[str, ...]:
    """What must be known of times that were taken through Vulkan on this machine."""
    return ("a software GPU on the CPU: its times say nothing about a GPU",) if only_software() else ()


def only_software() -> bool:
    """Whether Vulkan offers nothing but software GPUs."""
    try:
        found = gpus()
    except OSError:
        return False
    return bool(found) and all(gpu.software for gpu in found)


def install_line() -> str:
    """What installs Vulkan with drivers, software ones among them, on Debian and its kin."""
    try:
        old = platform.freedesktop_os_release().get("VERSION_CODENAME") == "bookworm"
    except OSError:
        old = False
    return BACKPORTS if old else INSTALL  # the drivers of Debian 12 itself are too old for WebGPU
