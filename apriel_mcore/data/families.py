"""Which samples of a row have the same prompt, so that it is computed once for all of them?

    prompt | answer 1 | answer 2 | ... | answer n        a family: n samples, and one copy of what they share

Every answer attends to the prompt and to itself, and its places go on from the prompt's end. All that depends
on the prompt alone is then the same as in n sequences, and so are scores and gradients, up to rounding.
"""

from collections.abc import Sequence

from apriel_mcore.types import Sample

type Family = tuple[int, ...]
"""Indices of samples that have one prompt."""


def families(samples: Sequence[Sample], *, shared: bool, most_tokens: float = float("inf")) -> list[Family]:
    """The samples by their prompts, in order of first appearance; each alone where prompts are not shared.

    A family of more than `most_tokens` is cut, first-fit, into several of which no two would fit together.
    """
    if not shared:
        return [(i,) for i in range(len(samples))]
    by_prompt: dict[tuple[int, ...], list[list[int]]] = {}
    for i, sample in enumerate(samples):
        parts = by_prompt.setdefault(sample.prompt_T, [])
        fitting = (p for p in parts if num_tokens([samples[j] for j in (*p, i)]) <= most_tokens)
        part = next(fitting, None)
        if part is None:
            parts.append(part := [])
        part.append(i)
    return [tuple(part) for parts in by_prompt.values() for part in parts]


def num_tokens(family: Sequence[Sample]) -> int:
    """Of the prompt, and of every answer."""
    return len(family[0].prompt_T) + sum(len(sample.response_T) for sample in family)
