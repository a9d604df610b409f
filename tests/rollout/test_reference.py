"""Where a rollout's answer begins, and which tokens the servers are asked about."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apriel_mcore.config.load import load
from apriel_mcore.config.schema import BoundedDeviation, ReferenceProbability
from apriel_mcore.data.problems import Dataset
from apriel_mcore.errors import InputError
from apriel_mcore.fakes import FakePool
from apriel_mcore.rollout.reference import (
    ReferenceScorer,
    cut,
    own_answer,
    reference_answer,
    require_references,
)
from apriel_mcore.types import Group, Problem, Rollout, Verdict

QUICKSTART = Path(__file__).parents[2] / "recipes" / "quickstart.toml"
BOXED = "domains.math.reference_reward.kind=probability"
DEVIATION = "deviation.kind=bounded"


class Pairs:
    """A tokenizer of two bytes a token; 0 is a special token without text."""

    def encode_with_ends(self, text: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
        pairs = [text[start : start + 2].encode("latin-1") for start in range(0, len(text), 2)]
        ids = tuple(1 + pair[0] + 256 * (pair[1] + 1 if len(pair) > 1 else 0) for pair in pairs)
        return ids, tuple(min(2 * number + 2, len(text)) for number in range(len(pairs)))

    def decode(self, tokens_T: Sequence[int]) -> str:
        return "".join(self._text(token - 1) for token in tokens_T if token)

    def _text(self, code: int) -> str:
        return chr(code % 256) + (chr(code // 256 - 1) if code >= 256 else "")


class ScoringPool(FakePool):
    """Scores each token by its own id, and remembers what it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.scored_T: list[tuple[int, ...]] = []

    async def logprobs(self, tokens_T: Sequence[int]) -> list[float]:
        self.scored_T.append(tuple(tokens_T))
        return [-float(token) for token in tokens_T[1:]]


def problem(verifier: str = "math", **reference: Any) -> Problem:
    return Problem(
        id="p",
        domain="math",
        source="s",
        messages=(),
        verifier=verifier,
        reference=reference or {"answer": "12", "format": "boxed"},
        split_key="p",
        prompt_T=(901, 902),
    )


def rollout(text: str, tokens_T: tuple[int, ...] | None = None) -> Rollout:
    tokens_T = (*Pairs().encode_with_ends(text)[0], 0) if tokens_T is None else tokens_T
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


@pytest.mark.parametrize(
    ("text", "kept", "lead"),
    [
        (r"so \boxed{7}", 5, ""),  # "so", " \", "bo", "xe", "d{"
        (r"yes \boxed{7}", 5, "{"),  # the brace shares a token with the 7
        (r"\boxed{1} no, \boxed{ 7}", 11, ""),
        ("nothing here", None, None),
    ],
)
def test_the_answer_begins_after_the_last_mark(text: str, kept: int | None, lead: str | None) -> None:
    tokens_T, _ = Pairs().encode_with_ends(text)
    found = cut((*tokens_T, 0), text, "\\boxed{", Pairs().decode)
    if found is None:
        assert kept is None
    else:
        assert (len(found.reasoning_T), found.lead) == (kept, lead)


@given(st.text(st.characters(max_codepoint=255, min_codepoint=1), max_size=40))
def test_reasoning_and_lead_are_the_text_before_the_answer(before: str) -> None:
    text = f"{before}|| 7"
    found = cut(Pairs().encode_with_ends(text)[0], text, "||", Pairs().decode)
    assert found is not None
    assert Pairs().decode(found.reasoning_T) + found.lead == f"{before}|| "


def test_half_a_character_and_unfaithful_texts_are_tokenised_again() -> None:
    def decode(tokens_T: Sequence[int]) -> str:  # bytes, as a byte-level tokenizer has them
        return bytes(tokens_T).decode(errors="replace")

    text = "\u20ac\u20ac: 7"
    found = cut(tuple(text.encode()), text, "\u20ac", decode)
    assert found is not None
    assert (bytes(found.reasoning_T).decode(), found.lead) == ("\u20ac\u20ac", "")
    other = cut((1, 2, 3), "text of others: 7", ":", Pairs().decode)
    assert other is not None
    assert other == ((), "text of others: ")


def test_siblings_share_requests_and_the_reference_is_scored_alone_once() -> None:
    pool, recipe = ScoringPool(), load(QUICKSTART, [BOXED])
    texts = (r"so \boxed{7}", r"so \boxed{8}", r"yes \boxed{7}", "none")
    group = Group(id=0, problem=problem(), rollouts_G=tuple(map(rollout, texts)), version=0)
    scored = asyncio.run(ReferenceScorer(pool, Pairs()).scored(group, recipe))
    assert len(pool.scored_T) == 3  # alone, "so", "yes"
    ids_T, _ = Pairs().encode_with_ends("12")
    assert scored.rollouts_G[0].reference_logprobs_T == tuple(-float(token) for token in ids_T)
    assert scored.rollouts_G[1].reference_logprobs_T == scored.rollouts_G[0].reference_logprobs_T
    assert len(scored.rollouts_G[2].reference_logprobs_T) == 2  # "{1" and "2": both hold a part of it
    assert scored.rollouts_G[3].reference_logprobs_T == ()
    assert len(scored.alone_logprobs_T) == 2  # after "\boxed{", whose last brace shares a token with the 1
    so_T = (901, 902, *Pairs().encode_with_ends(r"so \boxed{12")[0])
    assert so_T in pool.scored_T
    assert [r.tokens_T for r in scored.rollouts_G] == [r.tokens_T for r in group.rollouts_G]


def test_own_answers_are_scored_in_the_place_of_the_reference() -> None:
    """One that is the reference costs nothing and has its very scores."""
    pool, recipe = ScoringPool(), load(QUICKSTART, [BOXED, BOXED.replace("kind=probability", DEVIATION)])
    texts = (r"so \boxed{7}", r"so \boxed{12}.", r"so \boxed{7", r"\boxed{}", "none")
    group = Group(id=0, problem=problem(), rollouts_G=tuple(map(rollout, texts)), version=0)
    scored = asyncio.run(ReferenceScorer(pool, Pairs()).scored(group, recipe))
    assert len(pool.scored_T) == 4  # alone, "so" with the reference, "so" with 7, empty box
    other, same, open_box, empty, none = scored.rollouts_G
    assert other.own_logprobs_T == tuple(-float(token) for token in Pairs().encode_with_ends("7")[0])
    assert (901, 902, *Pairs().encode_with_ends(r"so \boxed{7")[0]) in pool.scored_T
    assert same.own_logprobs_T == same.reference_logprobs_T == other.reference_logprobs_T
    assert [r.own_logprobs_T for r in (open_box, empty, none)] == [(), (), ()]


def test_an_answer_without_a_box_is_all_that_follows_the_mark() -> None:
    settings = ReferenceProbability(after="Answer:", deviation=BoundedDeviation())
    assert own_answer("Answer: 3. No. Answer:  a dozen \n", settings) == "a dozen"
    assert own_answer("Answer: 12[END FINAL RESPONSE] Bye", settings) == "12"
    assert own_answer("12", settings) == ""
    assert own_answer("Answer: 12", ReferenceProbability(after="Answer:")) == ""


def test_other_domains_are_left_as_they_are() -> None:
    pool, recipe = ScoringPool(), load(QUICKSTART, ["domains.code.reference_reward.kind=probability"])
    group = Group(id=0, problem=problem(), rollouts_G=(rollout("a"), rollout("b")), version=0)
    assert asyncio.run(ReferenceScorer(pool, Pairs()).scored(group, recipe)) is group
    assert not pool.scored_T


def test_the_reference_is_the_gold_as_it_stands_after_the_mark() -> None:
    boxed, after = ReferenceProbability(), ReferenceProbability(after="Answer:")
    assert reference_answer(problem(), boxed) == "12"
    logic = problem("logic", gold=r"<think>no</think>It is \boxed{Yes}.")
    assert reference_answer(logic, boxed) == "Yes"
    assert reference_answer(problem("logic", gold="Why not. Answer: Yes"), after) == "Yes"
    assert reference_answer(problem("logic", gold="Yes"), after) == "Yes"
    with pytest.raises(InputError, match=r"reference_reward needs one"):
        reference_answer(problem("code", tests=[1]), boxed)


def test_a_reference_that_does_not_fit_stops_the_start() -> None:
    recipe = load(QUICKSTART, [BOXED])
    long = problem(answer="9" * 2000, format="boxed")
    dataset = Dataset(train={"math": (problem(), long)}, held_out={}, rejects=())
    with pytest.raises(InputError, match=r"raise rollout\.servers\.max_model_len"):
        require_references(recipe, dataset, Pairs())
    require_references(recipe, Dataset(train={"math": (problem(),)}, held_out={}, rejects=()), Pairs())
