"""What tests of judges share."""

import gc

import pytest

from apriel_mcore.verify import math


@pytest.fixture(scope="session")
def math_library() -> None:
    """Warm as in a judge's process, and with as little for the collector to visit.

    All that thousands of tests have made takes it a large part of what the alarm grants an answer.
    """
    math.warm_up()
    gc.collect()
    gc.freeze()
