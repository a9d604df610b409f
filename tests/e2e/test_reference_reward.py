"""Reference log-probs of a real vLLM server are those that it samples with, and see the reasoning."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from apriel_mcore.config.load import load
from apriel_mcore.data.prompts import Renderer
from apriel_mcore.loss.reward import shape_group
from apriel_mcore.rollout.reference import ReferenceScorer
from apriel_mcore.seams import Sampling
from apriel_mcore.types import Group, Message, Problem, Rollout, Verdict

pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("server")]

QUICKSTART = Path(__file__).parents[2] / "recipes" / "quickstart.toml"
RECIPE = ["domains.math.reference_reward.kind=probability", "reward.length.kind=none"]


def rollout(renderer: Renderer, text: str) -> Rollout:
    tokens_T, _ = renderer.encode_with_ends(text)
    return Rollout(
        tokens_T=tokens_T,
        logprobs_T=(-0.5,) * len(tokens_T),
        text=text,
        finish="stop",
        version_first=0,
        version_last=0,
        verdict=Verdict(score=0.0, success=False, status="wrong"),
        seconds=1.0,
        server="a",
    )


def test_prompt_logprobs_are_the_sampling_logprobs(live_pool: Any) -> None:
    async def scenario() -> None:
        pool, prompt_T = live_pool.pool, tuple(range(40, 90))
        answer = await pool.generate(prompt_T, Sampling(max_tokens=12, temperature=1.0))
        scores_T = await pool.logprobs((*prompt_T, *answer.tokens_T))
        gaps = [abs(a - b) for a, b in zip(scores_T[-len(answer.tokens_T) :], answer.logprobs_T, strict=True)]
        assert max(gaps) < 0.02

    live_pool.run(scenario())


def test_a_group_is_scored_by_its_reasoning(live_pool: Any, tiny_llama: Path) -> None:
    renderer = Renderer(tiny_llama)
    asked = (Message("user", "How many?"),)
    problem = Problem(
        id="p",
        domain="math",
        source="s",
        messages=asked,
        verifier="math",
        reference={"answer": "12", "format": "boxed"},
        split_key="p",
        prompt_T=renderer.render(asked),
    )
    texts = (r"a dozen, so \boxed{7}", r"\boxed{7}", r"a dozen, so \boxed{13} or what", "no idea")
    group = Group(
        id=0, problem=problem, rollouts_G=tuple(rollout(renderer, text) for text in texts), version=0
    )
    recipe = load(QUICKSTART, RECIPE)
    scored = live_pool.run(ReferenceScorer(live_pool.pool, renderer).scored(group, recipe))
    first, bare, twin, none = (r.reference_logprobs_T for r in scored.rollouts_G)
    whole_T = (*problem.prompt_T, *renderer.encode_with_ends(r"a dozen, so \boxed{12")[0])
    (expected_T,) = live_pool.run(live_pool.pool.score(whole_T))
    assert first == pytest.approx(expected_T[-2:], abs=0.02)
    assert (len(first), twin, none) == (2, first, ())
    assert bare == pytest.approx(scored.alone_logprobs_T, abs=0.02)  # nothing was thought
    assert first != pytest.approx(bare, abs=1e-4)
    rewards_G = [shaped.task for shaped in shape_group(scored, recipe)]
    assert rewards_G[3] == 0.0 and all(0.0 <= reward <= 1.0 for reward in rewards_G)


def test_many_groups_at_once_go_through_the_pools_places(live_pool: Any) -> None:
    async def scenario() -> None:
        texts = [(*range(40, 90), 40 + number) for number in range(40)]
        scores = await asyncio.gather(*(live_pool.pool.logprobs(text_T) for text_T in texts))
        assert {len(score_T) for score_T in scores} == {50}

    live_pool.run(scenario())
