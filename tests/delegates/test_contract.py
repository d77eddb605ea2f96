"""The contract on the devices of this environment, which MH_EDGE_DEVICES names: "openvino qnn"."""

from __future__ import annotations

import os

import pytest

from runtimes.contract import Contract

VARIABLE = "MH_EDGE_DEVICES"


@pytest.fixture(params=os.environ.get(VARIABLE, "").split() or [""])
def device(request: pytest.FixtureRequest) -> str:
    if not request.param:
        pytest.fail(f"{VARIABLE} names no device of this environment")
    found: str = request.param
    return found


class TestContract(Contract):
    pass
