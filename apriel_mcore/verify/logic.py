"""Does the answer solve the puzzle, as its reasoning-gym scorer sees it?

Scorers return partial credit for near misses and for answers that merely contain the gold one; here
only the full score counts, unless a recipe asks for less. Some scorers execute the answer as code or accept
anything: they are refused by name.
"""

from collections.abc import Callable
from functools import cache
from typing import Annotated, Any, cast

import msgspec
from msgspec import Meta

from apriel_mcore.errors import InputError, did_you_mean
from apriel_mcore.types import Verdict
from apriel_mcore.verify.alarm import OutOfTime, time_limit
from apriel_mcore.verify.answer import final_answer, tagged_or_bare_text
from apriel_mcore.verify.logic_forms import is_of_its_form
from apriel_mcore.verify.logic_numbers import is_the_number
from apriel_mcore.verify.outcome import CORRECT, NO_ANSWER, failed, read_reference

MAX_CHARS = 10_000
SOFT_LIMIT_S = 1.0
FULL_SCORE = 1.0

_EXECUTES = "its scorer executes the answer as code"
_NO_GOLD = "its items have no reference answer that could be checked"
WRONG_GOLDS = "part of its golds are wrong: "
"""Of tasks whose entries no short rule can tell apart; tests/golds works them out again."""

DENIED = {
    "binary_matrix": _EXECUTES,
    "countdown": _EXECUTES,
    "intermediate_integration": _EXECUTES,
    "n_queens": _EXECUTES,
    "polynomial_multiplication": _EXECUTES,
    "puzzle24": _EXECUTES,
    "simple_integration": _EXECUTES,
    "spiral_matrix": _EXECUTES,
    "string_insertion": _EXECUTES,
    "codeio": "its generator executes packaged programs",
    "game_of_life_halting": "its scorer accepts every answer",
    "number_sorting": "its scorer evaluates the gold answer",
    "coin_flip": "its scorer accepts a prefix of the number: 0 for 0.17",
    "complex_arithmetic": "its scorer accepts nan",
    "boxnet": _NO_GOLD,
    "graph_color": _NO_GOLD,
    "propositional_logic": _NO_GOLD,
    "rubiks_cube": _NO_GOLD,
    "rush_hour": _NO_GOLD,
    "composite": "it is not a task of its own",
    "aiw": WRONG_GOLDS + "somebody is her own colleague, or the brother of a stranger is asked about",
    "basic_arithmetic": WRONG_GOLDS + "some quotients are cut to whole numbers",
    "calendar_arithmetic": WRONG_GOLDS + "spans end before they start, and leap years are not told",
    "decimal_arithmetic": WRONG_GOLDS + "the last digit, as rounded between the operations",
    "family_relationships": WRONG_GOLDS + "parents-in-law are asked about the other way round",
    "gsm_symbolic": WRONG_GOLDS + "899.05 pretzels are 899",
    "knight_swap": WRONG_GOLDS + "moves of a knight that the board allows are not considered",
    "mahjong_puzzle": WRONG_GOLDS + "a card that completes a set may pass",
    "manipulate_matrix": WRONG_GOLDS + "horizontally mirrored is upside down, vertically left to right",
    "number_sequence": WRONG_GOLDS + "another rule as simple goes on differently",
    "power_function": WRONG_GOLDS + "-2^2 is 4",
    "quantum_lock": WRONG_GOLDS + "buttons that only toggle the light make some sequences shorter",
    "rectangle_count": WRONG_GOLDS + "some drawings are also of another number of rectangles",
    "sentence_reordering": WRONG_GOLDS + "some repeat a word, many have another order as good",
    "simple_geometry": WRONG_GOLDS + "polygons said to be convex have angles above 180 degrees",
    "time_intervals": WRONG_GOLDS + "the last millisecond is cut off, and seconds are",
    "tsumego": WRONG_GOLDS + "some moves capture nothing, or less than another",
}

# Their scorers compare boards of tuples, which became lists on the way through JSON.
_COMPARE_TUPLES = frozenset({"arc_agi", "rearc"})

# What scorers raise on answers that they cannot read. The gold answer went through the same scorer at
# load, so the answer is to blame; anything else is the judge's own failure.
_MALFORMED = (ValueError, TypeError, KeyError, IndexError, AttributeError, ZeroDivisionError, OverflowError)

type Scorer = Callable[[str, dict[str, Any]], float]


class Entry(msgspec.Struct, frozen=True):
    """An item as reasoning-gym generates it."""

    question: str
    answer: Annotated[str, Meta(pattern=r"\S")]
    metadata: dict[str, Any]


class Reference(msgspec.Struct, frozen=True):
    """A puzzle and its task's registered name."""

    task: str
    entry: Entry


def verify(reference: dict[str, Any], text: str, *, solved_at: float) -> Verdict:
    """The verdict on one answer; binary: whether its score reaches `solved_at`. InputError for a denied or
    unknown task.

    The answer is the final response, or the content of its last `<answer>` tag, stripped.
    """
    puzzle = read_reference(reference, Reference)
    scorer = _scorer(puzzle.task)
    answer = tagged_or_bare_text(final_answer(text))
    if not answer:
        return NO_ANSWER
    if len(answer) > MAX_CHARS:
        return failed("unparsable", f"longer than {MAX_CHARS} characters")
    if puzzle.task == "number_format":
        right = is_the_number(answer, puzzle.entry.answer, puzzle.entry.metadata)
        return CORRECT if right else failed("wrong", "another number, or more than a number")
    if not is_of_its_form(puzzle.task, answer, puzzle.entry.answer):
        return failed("wrong", "more than an answer, or of another form")
    try:
        with time_limit(SOFT_LIMIT_S):
            score = scorer(answer, _as_generated(puzzle))
    except _MALFORMED as error:
        return failed("unparsable", f"the scorer cannot read it: {type(error).__name__}")
    except OutOfTime:
        return failed("unparsable", f"took more than {SOFT_LIMIT_S:g} s of CPU")
    return CORRECT if score >= solved_at else failed("wrong", f"score {score:.3g}")


def self_check(reference: dict[str, Any]) -> None:
    """InputError unless the item's own answer scores 1.0."""
    puzzle = read_reference(reference, Reference)
    verdict = verify(reference, puzzle.entry.answer, solved_at=FULL_SCORE)
    if not verdict.success:
        raise InputError(
            f"reference: the answer of this {puzzle.task} item does not verify: {verdict.detail}"
        )


def warm_up() -> None:
    """Imports reasoning-gym: seconds, once per process."""
    _scorer("syllogism")


def check_task(task: str) -> None:
    """InputError when the task is denied (without importing reasoning-gym) or unknown."""
    if task in DENIED:
        raise InputError(f"task = {task!r} is not allowed: {DENIED[task]}; choose another")
    if task not in (allowed := allowed_tasks()):
        raise InputError(f"task = {task!r}: reasoning-gym has no such task; {did_you_mean(task, allowed)}")


def _as_generated(puzzle: Reference) -> dict[str, Any]:
    """The entry with the types that its scorer compares."""
    entry = msgspec.structs.asdict(puzzle.entry)
    if puzzle.task in _COMPARE_TUPLES:
        entry["metadata"] = {name: _tuples(value) for name, value in puzzle.entry.metadata.items()}
    return entry


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def allowed_tasks() -> list[str]:
    """Names of the tasks that are not denied."""
    from reasoning_gym.factory import DATASETS

    return sorted(DATASETS.keys() - DENIED.keys())


@cache
def _scorer(task: str) -> Scorer:
    check_task(task)
    import reasoning_gym

    return cast(Scorer, reasoning_gym.get_score_answer_fn(task))  # its own annotation has no parameters
