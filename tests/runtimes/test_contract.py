"""The contract on the devices of the ordinary environment."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from mh_edge.errors import UnavailableError
from runtimes import fake_devices
from runtimes.contract import Contract

HERE = ("cpu", "xnnpack", "litert-builtin", "litert-reference", "tflite-micro")


@pytest.fixture(params=HERE)
def device(request: pytest.FixtureRequest) -> str:
    found: str = request.param
    return found


class TestContract(Contract):
    pass


@pytest.mark.parametrize(
    ("name", "check"),
    [
        ("fake-zeros", Contract.test_numbers_are_right_on_every_call),
        ("fake-zeros", Contract.test_two_sessions_at_once),
        ("fake-fallback", Contract.test_all_of_it_is_placed_on_the_device),
        ("fake-absent", Contract.test_it_says_what_it_is),
    ],
)
def test_a_broken_device_does_not_pass(
    name: str, check: Callable[[Contract, str], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_devices.installed(tmp_path, monkeypatch)
    check(Contract(), "fake-good")
    with pytest.raises((AssertionError, UnavailableError)):
        check(Contract(), name)
