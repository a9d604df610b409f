"""Several results side by side: pairs by problem, lengths, buckets, and what cannot be compared."""

from pathlib import Path
from xml.etree import ElementTree

import msgspec
import pytest

from apriel_mcore.errors import InputError
from apriel_mcore.evaluation import compare, view
from apriel_mcore.evaluation.result import OWN, Counts, Result, TaskResult, means, point_of, read, write
from apriel_mcore.evaluation.subject import Subject


def counts(correct: int, tokens: int) -> Counts:
    return Counts(judged=4, correct=correct, tokens=4 * tokens)


def task(
    name: str, problems: dict[str, tuple[int, int]], *, budgets: tuple[int, ...] = (8, 32)
) -> TaskResult:
    """Problem id to right answers of four, and tokens."""
    return TaskResult(
        name=name,
        kind="benchmark",
        about="",
        samples=4,
        temperature=0.6,
        top_p=0.95,
        problem_ids=list(problems),
        levels=["hard" if key.startswith("h") else "easy" for key in problems],
        left_out={},
        constant=None,
        points=[
            point_of(budget, False, [counts(c, min(t, budget)) for c, t in problems.values()])
            for budget in budgets
        ],
    )


def result(name: str, *tasks: TaskResult) -> Result:
    subject = Subject(name=name, kind="folder", where="x", digest=name)
    return Result(subject=subject, recipe="r", tasks=list(tasks), seconds=1.0, generated=1, time=0.0)


BEFORE = result("before", task("gsm8k", {"e1": (4, 30), "e2": (2, 20), "h1": (0, 32), "h2": (0, 32)}))
AFTER = result("after", task("gsm8k", {"h1": (2, 16), "e1": (4, 15), "e2": (4, 10), "x": (0, 1)}))


def test_pairs_are_by_problem_and_not_by_place() -> None:
    first, *_ = compare.changes(BEFORE, AFTER)
    assert first.accuracy.num_problems == 3
    assert first.accuracy.change.value == pytest.approx((0 + 0.5 + 0.5) / 3)
    largest = next(row for row in compare.changes(BEFORE, AFTER) if row.budget == "32")
    assert largest.tokens_ratio is not None
    assert largest.tokens_ratio.value == pytest.approx((16 + 15 + 10) / (30 + 20 + 32))
    assert largest.tokens_ratio_solved is not None
    assert largest.tokens_ratio_solved.value == 0.5, "on the one problem that both always solve"


def test_the_mean_ratio_weighs_tasks_the_same() -> None:
    """As accuracy does, and the mean tokens of `eval`: four problems of one task are no more than one."""
    before = result("before", task("a", dict.fromkeys("pqrs", (4, 30))), task("b", {"t": (4, 10)}))
    after = result("after", task("a", dict.fromkeys("pqrs", (4, 15))), task("b", {"t": (4, 20)}))
    mean = compare.changes(before, after)[-1]
    assert (mean.task, mean.budget) == ("mean", "32")
    for ratio in (mean.tokens_ratio, mean.tokens_ratio_solved):
        assert ratio is not None and ratio.value == pytest.approx((15 + 20) / (30 + 10))


def test_buckets_are_the_same_for_all_models() -> None:
    rows = {bucket.name: bucket for bucket in compare.by_difficulty([BEFORE, AFTER])}
    assert {name: row.num_problems for name, row in rows.items()} == {
        "always solved": 1,
        "1/3 or less fail": 1,
        "most fail": 1,
    }
    assert rows["most fail"].accuracy_R == [0.0, 0.5]
    levels = {bucket.name: bucket for bucket in compare.by_level([BEFORE, AFTER])}
    assert (levels["easy"].num_problems, levels["hard"].tokens_R) == (2, [32.0, 16.0])


def test_a_third_is_at_the_edge_whatever_the_order() -> None:
    """1 - (1 + 1 + 0) / 3 exceeds 1 / 3 in floating point."""
    solved = {"p": (4, 4, 0), "q": (0, 4, 4), "r": (4, 0, 0), "s": (0, 0, 4)}
    three = [
        result(str(n), task("t", {name: (correct_R[n], 8) for name, correct_R in solved.items()}))
        for n in range(3)
    ]
    found = {bucket.name: bucket.num_problems for bucket in compare.by_difficulty(three)}
    assert found == {"1/3 or less fail": 2, "2/3 or less fail": 2}


def test_nothing_in_common_is_told() -> None:
    other = result("other", task("aime25", {"e1": (1, 1)}))
    with pytest.raises(InputError, match="no task, budget and problem in common"):
        compare.changes(BEFORE, other)
    with pytest.raises(InputError, match="no task, budget and problem in common"):
        compare.changes(BEFORE, result("other", task("gsm8k", {"e1": (1, 1)}, budgets=(64,))))


def test_means_are_over_tasks() -> None:
    both = result("both", task("a", {"p": (4, 8)}), task("b", {"q": (0, 8), "r": (0, 8)}))
    assert [(mean.budget, mean.accuracy.value) for mean in means(both.tasks)] == [("8", 0.5), ("32", 0.5)]
    uneven = result("uneven", task("a", {"p": (4, 8)}), task("b", {"q": (0, 8)}, budgets=(8,)))
    assert [mean.budget for mean in means(uneven.tasks)] == ["8"], "32 is not a budget of both"


def test_tasks_with_a_budget_each_have_a_mean_that_says_so() -> None:
    """The quickstart's domains have one budget each, and 16 was added to all of them."""
    before, after = (
        result(
            name,
            task("math", {"p": (correct, 30)}, budgets=(8, 16)),
            task("code", {"q": (correct, 30)}, budgets=(16, 48)),
        )
        for name, correct in (("before", 0), ("after", 4))
    )
    assert [(mean.budget, mean.tokens.value) for mean in means(after.tasks)] == [("16", 16), (OWN, 19)]
    rows = [row for row in compare.changes(before, after) if row.task == "mean"]
    assert [(row.budget, row.accuracy.change.value) for row in rows] == [("16", 1.0), (OWN, 1.0)]
    plot = view.plots([before, after], with_published=False)["Mean of math, code"]
    assert "after, each its own: 1.000 at 19.0 tokens" in plot
    assert "after, 16: 1.000 at 16.0 tokens" in plot


def test_forced_answers_have_means_of_their_own() -> None:
    one = task("a", {"p": (4, 8)}, budgets=(8,))
    forced = [msgspec.structs.replace(point, forced=True) for point in one.points]
    both = msgspec.structs.replace(one, points=[*one.points, *forced])
    found = means([both, msgspec.structs.replace(both, name="b")])
    assert [(mean.budget, mean.forced) for mean in found] == [("8", False), ("8", True)]
    assert [mean.forced for mean in means([both, one])] == [False]


def test_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = [tmp_path / "a.json", tmp_path / "b.json"]
    for path, one in zip(paths, (BEFORE, AFTER), strict=True):
        write(one, path)
        assert read(path) == one
    outputs = view.Outputs(
        svg=tmp_path / "p.svg", html=tmp_path / "p.html", json=tmp_path / "p.json", with_published=True
    )
    view.run(paths, outputs)
    assert "before -> after" in capsys.readouterr().out
    ElementTree.fromstring((tmp_path / "p.svg").read_text())
    page = (tmp_path / "p.html").read_text()
    assert (
        "most fail" in page
        and "<script" not in page
        and "http://" not in page.replace("http://www.w3.org", "")
    )
    assert b'"difficulty"' in (tmp_path / "p.json").read_bytes()
    with pytest.raises(InputError, match="--name"):
        view.run([paths[0], paths[0]], outputs)
    (tmp_path / "bad.json").write_text('{"format": 1}')
    with pytest.raises(InputError, match="not a result"):
        read(tmp_path / "bad.json")


@pytest.mark.parametrize("flag", ["svg", "html", "json"])
def test_a_file_that_cannot_be_written_is_told_before_any_work(tmp_path: Path, flag: str) -> None:
    nothing = view.Outputs(svg=None, html=None, json=None, with_published=False)
    (tmp_path / "file").touch()
    for path in (Path("/proc/nobody/page"), tmp_path / "file" / "page", tmp_path):
        outputs = msgspec.structs.replace(nothing, **{flag: path})
        with pytest.raises(InputError, match=f"--{flag} {path}: cannot be written: "):
            view.run([tmp_path / "no-result.json"], outputs)


def test_what_else_differs_is_told() -> None:
    one, other = task("a", {"p": (4, 8), "q": (4, 8)}), task("a", {"q": (4, 8), "r": (4, 8), "s": (4, 8)})
    warmer = msgspec.structs.replace(other, temperature=1.0, top_p=1.0, samples=8)
    before = result("before", one, task("b", {"p": (4, 8)}))
    after = msgspec.structs.replace(result("after", warmer), recipe="other")
    assert compare.unlike([before, before]) == []
    assert compare.unlike([before, before, after]) == [
        "recipe: r in before, other in after",
        "before alone has b",
        "temperature of a: 0.6 in before, 1.0 in after",
        "top_p of a: 0.95 in before, 1.0 in after",
        "samples of a: 4 in before, 8 in after",
        "problems of a: 2 in before, 3 in after; the 1 whose prompts are the same are compared",
    ]


def test_what_the_paper_does_not_report_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = tmp_path / "one.json"
    write(result("mine", task("aime25", {"p": (4, 8)}), task("gsm8k", {"p": (4, 8)})), one)
    outputs = view.Outputs(svg=tmp_path / "p.svg", html=None, json=None, with_published=True)
    note = "--published: the paper reports no gsm8k"
    assert note in view.run([one], outputs).notes[0]
    assert note in capsys.readouterr().out
    with pytest.raises(InputError, match="--svg or --html"):
        view.run([one], msgspec.structs.replace(outputs, svg=None))


def test_published_rows_stand_beside_their_benchmark_only() -> None:
    aime = result("mine", task("aime25", {"p": (4, 8)}))
    (plot,) = view.plots([aime], with_published=True).values()
    assert "Qwen3-14B (published), Qwen3-14B, 32768: 0.680 at 16900.0 tokens" in plot
    (plot,) = view.plots([aime], with_published=False).values()
    assert "published" not in plot
    assert "published" not in next(iter(view.plots([BEFORE], with_published=True).values()))
