"""Which puzzles are there? Task -> what it needs to know, how it is checked, how its gold is written.

These are the tasks of PrimeIntellect/INTELLECT-3-RL's `logic` without its benchmarks (ARC, BBH, BBEH, GPQA)
and without those that the layout skips. Fields carry the names of the data.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec

from apriel_mcore.verify.puzzles import answers, boards, numbers


class Kind(NamedTuple):
    """One task."""

    facts: type[msgspec.Struct]
    check: Callable[[Any, str], bool]
    wrap: str = "{}"
    """How a model writes the row's answer."""
    gold: str = "answer"
    """The fact that is the row's answer."""


_BOXED = r"\boxed{{{}}}"

KINDS: dict[str, Kind] = {
    "arrow_maze": Kind(boards.ArrowMaze, boards.arrow_maze),
    "boolean_expressions": Kind(answers.Known, answers.same_letters, _BOXED),
    "calcudoko": Kind(numbers.Calcudoku, numbers.calcudoku),
    "campsite": Kind(boards.Campsite, boards.campsite),
    "cipher": Kind(answers.Known, answers.same_message),
    "cryptarithm": Kind(answers.Known, answers.same_equation),
    "futoshiki": Kind(numbers.Futoshiki, numbers.futoshiki),
    "goods_exchange": Kind(answers.Ownership, answers.same_owners, gold="owns_after"),
    "kukurasu": Kind(numbers.Kakurasu, numbers.kakurasu),
    "math_path": Kind(answers.MathPath, answers.math_path),
    "mathador": Kind(answers.Mathador, answers.mathador),
    "minesweeper": Kind(boards.Minesweeper, boards.minesweeper, gold="current_mines"),
    "norinori": Kind(boards.Norinori, boards.norinori),
    "number_wall": Kind(boards.NumberWall, boards.number_wall),
    "numbrix": Kind(numbers.Numbrix, numbers.numbrix),
    "object_counting": Kind(answers.Known, answers.same_integer, _BOXED),
    "object_properties": Kind(answers.Known, answers.same_integer, _BOXED),
    "operation": Kind(answers.Known, answers.same_value, _BOXED),
    "skyscraper_puzzle": Kind(numbers.Skyscrapers, numbers.skyscrapers),
    "space_reasoning": Kind(answers.Known, answers.same_text, _BOXED),
    "space_reasoning_tree": Kind(answers.Known, answers.same_set, _BOXED),
    "star_placement_puzzle": Kind(boards.StarPlacement, boards.star_placement),
    "sudoku": Kind(numbers.Sudoku, numbers.sudoku),
    "survo": Kind(numbers.Survo, numbers.survo),
    "time_sequence": Kind(answers.TimeSequence, answers.time_sequence),
    "web_of_lies": Kind(answers.Known, answers.same_truths, "**{}**"),
    "word_sorting": Kind(answers.Known, answers.same_list, _BOXED),
    "word_sorting_mistake": Kind(answers.MistakeAt, answers.same_mistake, _BOXED),
    "wordscapes": Kind(boards.Wordscapes, boards.wordscapes),
    "zebra_puzzle": Kind(answers.Zebra, answers.zebra),
}
