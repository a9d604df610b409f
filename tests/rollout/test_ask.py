"""Which groups come of answers whose judge breaks, does not decide, or is late."""

import asyncio
from pathlib import Path

import msgspec

from apriel_mcore.config.load import load
from apriel_mcore.data.sampler import Ticket
from apriel_mcore.errors import NoOpinion, VerifierError
from apriel_mcore.fakes import FakePool
from apriel_mcore.rollout.ask import Asker
from apriel_mcore.rollout.reference import NoScorer
from apriel_mcore.seams import Sampling
from apriel_mcore.types import Group, Problem, Verdict

QUICKSTART = Path(__file__).parents[2] / "recipes" / "quickstart.toml"
TICKET = Ticket(problem_id="p", epoch=0, attempt=0, group_id=7, domain="math", version=0)
PROBLEM = Problem(
    id="p",
    domain="math",
    source="s",
    messages=(),
    verifier="math",
    reference={},
    split_key="p",
    prompt_T=(1,),
)


class Judge:
    """Right, but for the first answers: `trouble` is raised for them, or slept through."""

    def __init__(self, trouble: Exception | float, *, num: int) -> None:
        self._trouble = trouble
        self._left = num
        self.texts: list[str] = []

    async def grade(self, problem: Problem, text: str) -> Verdict:
        self.texts.append(text)
        self._left -= 1
        if self._left >= 0:
            if isinstance(self._trouble, Exception):
                raise self._trouble
            await asyncio.sleep(self._trouble)
        return Verdict(score=1.0, success=True, status="correct")

    def metrics(self) -> dict[str, float]:
        return {}


def asked(judge: Judge) -> tuple[Group | None, dict[str, int]]:
    recipe = load(QUICKSTART, ["rollout.group_size=4", "rollout.group_deadline_s=0.2"])
    asker = Asker(FakePool(), judge, NoScorer())
    group = asyncio.run(asker.group(TICKET, PROBLEM, recipe))
    return group, {cause: count for cause, count in asker.lost.items() if count}


def test_a_broken_judge_costs_the_rollout() -> None:
    group, lost = asked(Judge(VerifierError("crashed"), num=2))
    assert group is not None
    assert (len(group.rollouts_G), group.id, lost) == (2, 7, {"judge": 2})


def test_the_judge_reads_the_beginning_that_stands_in_the_prompt() -> None:
    judge = Judge(0.0, num=0)
    problem = msgspec.structs.replace(PROBLEM, prefill="<think>\n")
    asker = Asker(FakePool(), judge, NoScorer())
    rollout = asyncio.run(asker.rollout(problem, Sampling(max_tokens=5, temperature=1.0)))
    assert judge.texts == ["<think>\n" + rollout.text]


def test_a_judge_that_does_not_decide_costs_the_group() -> None:
    group, lost = asked(Judge(NoOpinion("no reply"), num=1))
    assert group is None
    assert lost == {"judge": 1, "with_its_group": 3}


def test_an_answer_that_waits_for_its_verdict_at_the_deadline_costs_the_group() -> None:
    group, lost = asked(Judge(5.0, num=1))
    assert group is None
    assert lost == {"deadline": 1, "with_its_group": 3}
