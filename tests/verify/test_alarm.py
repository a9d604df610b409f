"""The soft limit interrupts work, not waiting, and is gone afterwards."""

import signal
import time

import pytest

from apriel_mcore.verify.alarm import OutOfTime, time_limit


def spin(seconds: float) -> None:
    limit = time.process_time() + seconds
    while time.process_time() < limit:
        pass


def test_work_beyond_the_limit_is_interrupted() -> None:
    start = time.process_time()
    with pytest.raises(OutOfTime), time_limit(0.1):
        spin(5)
    assert time.process_time() - start < 1


def test_a_library_that_catches_everything_does_not_catch_it() -> None:
    with pytest.raises(OutOfTime), time_limit(0.1):
        try:
            spin(5)
        except Exception:
            pytest.fail("caught")


def test_waiting_is_free_and_nothing_stays_armed() -> None:
    with time_limit(0.1):
        time.sleep(0.2)
    assert signal.getitimer(signal.ITIMER_PROF) == (0.0, 0.0)
