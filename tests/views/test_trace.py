"""A trace is what Perfetto takes: slices of a lane nest, every lane has a name, times are the spans'."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apriel_mcore.errors import InputError
from apriel_mcore.obs.spans import STORY, Span
from apriel_mcore.obs.timeline import Timeline
from apriel_mcore.views import trace

SPANS = st.builds(
    Span,
    st.sampled_from(["train", "answer"]),
    st.sampled_from([STORY, "server-0", "judges of math"]),
    st.integers(0, 50).map(float),
    st.integers(0, 20).map(float),
)


def spans_by_lane(events: list[dict[str, Any]]) -> dict[tuple[int, int], list[tuple[float, float]]]:
    lanes: dict[tuple[int, int], list[tuple[float, float]]] = {}
    for event in events:
        if event["ph"] == "X":
            lanes.setdefault((event["pid"], event["tid"]), []).append(
                (event["ts"], event["ts"] + event["dur"])
            )
    return lanes


@given(st.lists(SPANS, min_size=1, max_size=60))
def test_slices_of_a_lane_nest(found: list[Span]) -> None:
    slices = [trace.Slice("trainer" if one.lane == STORY else one.lane, one, 1) for one in found]
    events = list(trace.events(slices))
    lanes = spans_by_lane(events)
    assert sum(map(len, lanes.values())) == len(found)
    for lane in lanes.values():
        for i, (start, end) in enumerate(lane):
            for later_start, later_end in lane[i + 1 :]:
                assert later_start >= end or later_end <= end, "overlaps without nesting"
                assert later_start >= start
    named = {event["pid"] for event in events if event.get("name") == "process_name"}
    assert {pid for pid, _ in lanes} == named
    counters = [event for event in events if event["ph"] == "C"]
    assert all(event["args"]["spans"] >= 0 for event in counters)
    by_pid = {event["pid"]: event["args"]["spans"] for event in counters}
    assert set(by_pid.values()) <= {0}, "every counter ends at none"


def write_timeline(run: Path) -> None:
    (run / "events.jsonl").touch()
    for rank in (0, 1):
        timeline = Timeline(run / "timeline", rank=rank, attempt=1)
        for step in (1, 2, 3):
            start = 1000.0 + 10 * step
            spans = [Span("wait", STORY, start, 2.0), Span("train", STORY, start + 2, 5.0)]
            if rank == 0:
                spans += [Span("answer", "server-0", start - 1, 2.5), Span("answer", "server-0", start, 2.5)]
            timeline.write(step, spans)


def test_a_trace_is_written_from_the_timelines_of_all_ranks(tmp_path: Path) -> None:
    write_timeline(tmp_path)
    (tmp_path / "timeline" / "rank1.jsonl").open("a").write('{"step": 4, "ra')
    path = trace.write(tmp_path, steps=(2, 3), out=None)
    events = json.loads(gzip.decompress(path.read_bytes()))["traceEvents"]
    names = {event["args"]["name"] for event in events if event["name"] == "process_name"}
    assert sum(name.startswith("trainer rank") for name in names) == 2
    assert "server-0" in names
    assert {event["args"]["step"] for event in events if event["ph"] == "X"} == {2, 3}
    assert min(event["ts"] for event in events if event["ph"] == "X") == 0.0


def test_a_run_without_a_timeline_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no run"):
        trace.write(tmp_path, steps=None, out=None)
    (tmp_path / "events.jsonl").touch()
    with pytest.raises(InputError, match="no timeline; a run writes it"):
        trace.write(tmp_path, steps=None, out=None)
    write_timeline(tmp_path)
    with pytest.raises(InputError, match="7 to 9: it has 1 to"):
        trace.write(tmp_path, steps=(7, 9), out=None)
