"""Counts and percentiles of the judges, by domain."""

import pytest

from apriel_mcore.errors import Starved, VerifierError
from apriel_mcore.verify.tally import Counts, Tally, TimedOut, Unreachable, note


def test_only_timed_jobs_are_in_the_percentiles_and_losses_count() -> None:
    tally = Tally()
    with tally.job("math", timed=False):
        pass
    assert "math.p99_s" not in tally.metrics()
    with pytest.raises(VerifierError), tally.job("math", timed=True) as counts:
        counts.crashed += 1
        raise VerifierError("broken")
    metrics = tally.metrics()
    assert metrics["math.p50_s"] == metrics["math.p99_s"] >= 0
    assert (metrics["math.crashed"], metrics["math.lost"], metrics["queue"]) == (1.0, 1.0, 0.0)


def test_the_queue_is_what_waits_now() -> None:
    tally = Tally()
    with tally.queue(), tally.queue():
        assert tally.metrics()["queue"] == 2
    assert tally.metrics()["queue"] == 0


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (Starved("x"), Counts(starved=1)),
        (TimedOut("x"), Counts(timed_out=1)),
        (Unreachable("x"), Counts(unreachable=1)),
        (VerifierError("x"), Counts(crashed=1)),
    ],
)
def test_each_cause_has_its_count(error: VerifierError, expected: Counts) -> None:
    counts = Counts()
    note(counts, error)
    assert counts == expected
