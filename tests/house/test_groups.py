"""Tests of one group run one after another: what they share is there once."""

import os

import pytest


@pytest.mark.xdist_group("kept-together")
def test_a_group_is_known_to_the_scheduler(request: pytest.FixtureRequest) -> None:
    """It reads it from the name; with a pytest that does not fit, pytest-xdist drops the group silently."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        pytest.skip("one process: nothing is distributed")
    assert request.node.nodeid.endswith("@kept-together")
