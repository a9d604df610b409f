"""What is asked of the shelf is what a look at every rollout would give."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from apriel_mcore.bench.made_run import append_step, make_run
from apriel_mcore.obs.trained import read_groups, step_file
from apriel_mcore.views.shelf import PAGE_ROWS, Query, Shelf


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("runs") / "one", steps=6, groups=5, group_size=4)


@pytest.fixture(scope="module")
def shelf(run: Path) -> Shelf:
    found = Shelf(run / "rollouts")
    found.refresh()
    return found


def test_a_row_is_what_was_trained(run: Path, shelf: Shelf) -> None:
    groups = read_groups(step_file(run / "rollouts", 4))
    rows = shelf.page(Query(step_min=4, step_max=4, descending=False))["rows"]
    rollouts = [(group, rollout) for group in groups for rollout in group.rollouts_G]
    assert len(rows) == len(rollouts)
    for row, (group, rollout) in zip(rows, rollouts, strict=True):
        assert row["domain"] == group.problem.domain
        assert (row["tokens"], row["status"]) == (len(rollout.tokens_T), rollout.verdict.status)
        assert row["lag"] == 3 - rollout.version_first
        assert rollout.text.endswith(row["end"])
        assert row["head"] == group.problem.messages[-1].content


@given(
    domain=st.sampled_from(["", "math", "code", "absent"]),
    finish=st.sampled_from(["", "whole", "truncated"]),
    low=st.integers(0, 40),
    span=st.integers(0, 60),
    order=st.sampled_from(["step", "tokens", "total", "lag"]),
    descending=st.booleans(),
)
def test_filters_and_order(
    shelf: Shelf, domain: str, finish: str, low: int, span: int, order: str, descending: bool
) -> None:
    query = Query(domain=domain, finish=finish, tokens_min=low, tokens_max=low + span)  # pyright: ignore
    everything = [shelf.row(row) for row in range(len(shelf))]
    wanted = [
        row
        for row in everything
        if (not domain or row["domain"] == domain)
        and (not finish or row["truncated"] == (finish == "truncated"))
        and low <= row["tokens"] <= low + span
    ]
    assert np.flatnonzero(shelf.matching(query)).tolist() == [row["row"] for row in wanted]
    ordered = Query(order=order, descending=descending)  # pyright: ignore[reportArgumentType]
    values = [row[order] for row in shelf.page(ordered)["rows"]]
    assert values == sorted((row[order] for row in everything), reverse=descending)[:PAGE_ROWS]


def test_a_search_reads_on_where_it_stopped(shelf: Shelf) -> None:
    query, found, asked = Query(text="THE ANSWER IS", domain="math"), 0, 0
    while query.offset >= 0:
        answer = shelf.search(query, seconds=0.0 if asked else 1e-4)
        found, asked = found + len(answer["rows"]), asked + 1
        if answer["next"] == query.offset:  # no time at all: give it some
            answer = shelf.search(query, seconds=5.0)
            found += len(answer["rows"])
        query = Query(text=query.text, domain="math", offset=answer["next"])
    assert found == int(shelf.matching(Query(domain="math")).sum())
    assert shelf.search(Query(text="no one says this"), seconds=5.0)["rows"] == []


def test_a_step_that_is_written_again_replaces_the_old_one(tmp_path: Path) -> None:
    run = make_run(tmp_path / "one", steps=5, groups=3, group_size=4)
    shelf = Shelf(run / "rollouts")
    shelf.refresh()
    append_step(run, 4, 5, seed=7)
    shelf.refresh()
    groups = read_groups(step_file(run / "rollouts", 4))
    assert shelf.column("step").max() == 4
    assert len(shelf) == 3 * 3 * 4 + sum(len(group.rollouts_G) for group in groups)
    last = int(shelf.column("group").max())
    assert shelf.group(last)["rollouts"][0]["text"] == groups[-1].rollouts_G[0].text


def test_a_text_that_was_removed_is_said(tmp_path: Path) -> None:
    run = make_run(tmp_path / "one", steps=2, groups=2, group_size=2)
    step_file(run / "rollouts", 2).unlink()
    shelf = Shelf(run / "rollouts")
    shelf.refresh()
    assert "removed" in shelf.page(Query())["rows"][0]["end"]
    found = shelf.search(Query(text="a"), seconds=5.0)
    assert found["next"] == -1 and {row["step"] for row in found["rows"]} == {1}
    with pytest.raises(FileNotFoundError):
        shelf.group(3)
    with pytest.raises(KeyError):
        shelf.group(4)
