"""Errors a user can cause, each with the exit code the command line gives for it.

An error is a sentence that says what is wrong and shows the value; `hint` is a second sentence that says what to do.
Anything that is not an `MhEdgeError` is a fault of this program and is reported as such.
"""

from __future__ import annotations


class MhEdgeError(Exception):
    """Base of every error meant for the user.

    message: what is wrong, with the value. hint: what to do about it (may be empty).
    """

    kind = "error"
    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} {self.hint}".rstrip()


class UsageError(MhEdgeError):
    """The command or call was put wrongly: an unknown option value, options that exclude each other."""

    kind = "usage"
    exit_code = 2


class InputError(MhEdgeError):
    """The input cannot be read, or holds something unsupported."""

    kind = "input"
    exit_code = 3


class ConversionError(MhEdgeError):
    """The model was read, but this target cannot express it, or the file could not be written."""

    kind = "conversion"
    exit_code = 4


class NotEqualError(MhEdgeError):
    """The files do not compute what the model computes."""

    kind = "not_equal"
    exit_code = 5


class UnavailableError(MhEdgeError):
    """The device or package asked for is not here; the hint is the line that installs it."""

    kind = "unavailable"
    exit_code = 6
