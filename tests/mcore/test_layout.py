"""Tokens of a row: each answer goes on from its prompt, wherever that stands, and is predicted from there."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from apriel_mcore.mcore.layout import PAD_TOKEN, lay_out
from apriel_mcore.types import Sample

PROMPTS = [(11, 12, 13), (21,), (31, 32)]
answers = st.lists(st.tuples(st.sampled_from(PROMPTS), st.integers(0, 4)), max_size=7)


def sample(prompt_T: tuple[int, ...], number: int, size: int) -> Sample:
    response_T = tuple(100 * (number + 1) + k for k in range(size))
    return Sample(
        domain="math",
        prompt_T=prompt_T,
        response_T=response_T,
        logprobs_T=(0.0,) * size,
        advantage=0.0,
        version=0,
    )


@given(answers=answers, multiple=st.sampled_from([1, 4]), extra=st.integers(0, 5), shared=st.booleans())
def test_the_text_in_front_of_every_answer(answers, multiple, extra, shared) -> None:
    samples = [sample(prompt, number, size) for number, (prompt, size) in enumerate(answers)]
    least = len(lay_out(samples, multiple=multiple, length=0, shared_prompts=shared).tokens)
    row = lay_out(samples, multiple=multiple, length=least + extra, shared_prompts=shared)
    assert len(row.tokens) == len(row.places) == row.bounds[-1] == least + extra
    assert len(row.prompts) == len(row.bounds) - 1
    copies = sum(row.tokens.count(prompt[0]) for prompt in PROMPTS)
    assert copies == (len({prompt for prompt, _ in answers}) if shared else len(answers))
    for sample_, sources in zip(samples, row.sources, strict=True):
        assert len(sources) == len(sample_.response_T)
        for k, source in enumerate(sources):
            assert seen_from(row, source) == [*sample_.prompt_T, *sample_.response_T[:k]]


def seen_from(row, position: int) -> list[int]:
    """What a token attends to, in the order of its places."""
    number = next(n for n, (start, end) in enumerate(pairwise(row.bounds)) if start <= position < end)
    prompt = row.prompts[number]
    before = [] if prompt is None else range(*row.bounds[prompt : prompt + 2])
    seen = [*before, *range(row.bounds[number], position + 1)]
    assert [row.places[i] for i in seen] == list(range(len(seen)))
    return [row.tokens[i] for i in seen]


def test_padding_is_behind_everything() -> None:
    row = lay_out([sample((11,), 0, 1), sample((11,), 1, 1)], multiple=4, length=6, shared_prompts=True)
    assert row.tokens == [11, 100, 200, PAD_TOKEN, PAD_TOKEN, PAD_TOKEN]
    assert row.bounds == [0, 1, 2, 4, 6]
    assert row.prompts == [None, 0, 0, None]
    assert row.places == [0, 1, 1, 2, 0, 1]
