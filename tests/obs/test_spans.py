"""Totals add up to the story's time; what lasts is seen from outside."""

import threading
import time

import pytest

from apriel_mcore.obs import spans
from apriel_mcore.obs.spans import STORY, span, timed


def test_a_verb_inside_a_verb_counts_once() -> None:
    spans.drain()

    @span("inner")
    def inner() -> None:
        time.sleep(0.01)

    @span("outer")
    def outer() -> None:
        inner()
        raise KeyError

    with pytest.raises(KeyError):
        outer()
    inner()
    drained = spans.drain()
    assert drained.totals.keys() == {"outer", "inner"}
    assert drained.totals["inner"] < 0.02 <= drained.totals["outer"] + drained.totals["inner"]
    assert [one.name for one in drained.spans] == ["inner", "outer", "inner"]
    assert spans.drain().totals == {}


def test_what_goes_on_is_seen_by_another_thread() -> None:
    spans.drain()  # what other tests of this process left
    seen: list[spans.Span] = []
    with timed("answer", lane="server-1"):
        watcher = threading.Thread(target=lambda: seen.extend(spans.doing()))
        watcher.start()
        watcher.join()
    assert [(one.name, one.lane) for one in seen] == [("answer", "server-1")]
    assert spans.doing() == []
    assert STORY not in {one.lane for one in spans.drain().spans}
