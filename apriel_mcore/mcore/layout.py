"""Where in a packed row does each token of its samples stand?

    one sample:        prompt answer padding                             one sequence
    samples that       prompt | answer-1 | answer-2 | answer-3 padding   a sequence each, of which an answer
    share a prompt     ^^^^^^ <-- goes on --- goes on --- goes on        goes on from the prompt

Pure: lists of numbers, of which mcore/rows.py makes tensors.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from apriel_mcore.data.families import families
from apriel_mcore.types import Sample

PAD_TOKEN = 0
"""Stands behind a sample, where nothing before it looks and no loss is taken: any id will do."""


@dataclass
class RowLayout:
    """A row over all context ranks."""

    tokens: list[int] = field(default_factory=list[int])
    places: list[int] = field(default_factory=list[int])
    """Of each token in its own text, from 0: what it is rotated by."""
    bounds: list[int] = field(default_factory=lambda: [0])
    """0, and the end of each sequence (cu_seqlens). Padding belongs to the sequence in front of it."""
    prompts: list[int | None] = field(default_factory=list[int | None])
    """Of each sequence, the number of the one that it goes on from."""
    sources: list[list[int]] = field(default_factory=list[list[int]])
    """Of each sample, the tokens whose hidden states predict its answer."""

    def _append(self, tokens: Sequence[int], *, place: int) -> None:
        self.tokens += tokens
        self.places += range(place, place + len(tokens))

    def _close(self, prompt: int | None) -> None:
        """The tokens since the last bound are a sequence."""
        self.bounds.append(len(self.tokens))
        self.prompts.append(prompt)

    def _pad(self, length: int) -> None:
        """Up to `length` tokens of the row."""
        self._append([PAD_TOKEN] * (length - len(self.tokens)), place=self.places[-1] + 1)


def lay_out(samples: Sequence[Sample], *, multiple: int, length: int, shared_prompts: bool) -> RowLayout:
    """Families one behind the other, each padded to a multiple of `multiple`, then padding up to `length`."""
    row = RowLayout(sources=[[] for _ in samples])
    for ids in families(samples, shared=shared_prompts):
        prompt_T = samples[ids[0]].prompt_T
        assert prompt_T, "the first response token needs a prompt token before it"
        row._append(prompt_T, place=0)
        last_of_prompt = len(row.tokens) - 1
        prompt = None
        if len(ids) > 1:
            prompt = len(row.prompts)
            row._close(None)
        for number, i in enumerate(ids, start=1):
            response_T = samples[i].response_T
            first = len(row.tokens)
            row._append(response_T, place=len(prompt_T))
            before = [last_of_prompt, *range(first, first + len(response_T))]
            row.sources[i] = before[: len(response_T)]
            if number == len(ids):
                row._pad(-(-len(row.tokens) // multiple) * multiple)
            row._close(prompt)
    if len(row.tokens) < length:
        row._append([PAD_TOKEN] * (length - len(row.tokens)), place=0)
        row._close(None)
    return row
