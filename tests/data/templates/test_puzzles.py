"""Puzzles: gold answers in equal parts, examples balanced, refused tasks refused."""

from collections import Counter
from typing import Any

import msgspec
import pytest
import reasoning_gym

from apriel_mcore.config.schema import PuzzleSource
from apriel_mcore.data.item import Item, Unusable
from apriel_mcore.data.templates import puzzles, syllogisms
from apriel_mcore.errors import InputError
from apriel_mcore.verify import logic

LETTERS: dict[str, Any] = {"task": "letter_counting", "options": {"min_words": 2, "max_words": 4}}


def generate(**fields: Any) -> list[Item]:
    return puzzles.items(PuzzleSource(**{"size": 60, **fields}))


@pytest.mark.parametrize(
    ("source", "answers"),
    [({"task": "syllogism"}, {"Yes": 30, "No": 30}), (LETTERS, {"1": 20, "2": 20, "3": 20})],
)
def test_gold_answers_come_in_equal_parts(source: dict[str, Any], answers: dict[str, int]) -> None:
    made = generate(**source)
    assert Counter(item.reference["gold"] for item in made) == answers
    assert len({item.split_key for item in made}) == 60
    assert all(logic.verify(item.reference, item.reference["gold"], solved_at=1.0).success for item in made)
    assert made == generate(**source)


def test_puzzles_with_a_doubtful_gold_are_set_aside_with_the_reason() -> None:
    found = list(puzzles.read(PuzzleSource(task="syllogism", size=60, seed=5)))
    aside = [(place, item) for place, item in found if isinstance(item, Unusable)]
    assert len(found) == len(aside) + 60
    assert set(Counter(item.reason for _, item in aside)) == {"ambiguous", "wrong_gold"}
    made = reasoning_gym.create_dataset("syllogism", size=10**4, seed=5)
    for place, item in aside[:20]:
        number = int(place.removeprefix("entry ").removesuffix(" of seed 5"))
        doubt = syllogisms.doubt(made[number]["metadata"])
        assert doubt is not None and doubt.reason == item.reason
    kept = [item.reference["entry"] for _, item in found if isinstance(item, Item)]
    assert all(syllogisms.doubt(entry["metadata"]) is None for entry in kept)


def test_example_turns_come_in_either_order() -> None:
    made = generate(task="syllogism", shots=2)
    orders = Counter(tuple(message.content for message in item.messages[1:4:2]) for item in made)
    assert set(orders) == {("Yes", "No"), ("No", "Yes")} and min(orders.values()) > 15
    shown = {message.content for item in made for message in item.messages[:-1]}
    assert not shown & {item.messages[-1].content for item in made}


def test_short_questions_say_the_same() -> None:
    (item, *_) = generate(task="syllogism")
    facts = item.reference["entry"]["metadata"]
    question = item.messages[-1].content
    assert all(facts[part].lower() in question.lower() for part in ("premise1", "premise2", "conclusion"))
    assert len(question) < 0.8 * len(item.reference["entry"]["question"])
    (item, *_) = generate(**LETTERS)
    facts = item.reference["entry"]["metadata"]
    question = item.messages[-1].content
    assert question == f'How many "{facts["target_letter"]}" are in "{" ".join(facts["span"])}"?'


def test_a_task_with_open_answers_needs_no_oversampling(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    generate_entries = puzzles._generate
    monkeypatch.setattr(
        puzzles, "_generate", lambda source, size: sizes.append(size) or generate_entries(source, size)
    )
    made = generate(task="chain_sum", shots=1)
    assert len(made) == 60 and sizes == [70]
    assert made[0].messages[-1].content == made[0].reference["entry"]["question"]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"task": "countdown"}, "'countdown' is not allowed: its scorer executes"),
        ({"task": "no_such_puzzle"}, "task = 'no_such_puzzle'"),
        ({"task": "letter_counting", "options": {"colour": 3}}, "letter_counting.*colour"),
        ({"task": "syllogism", "shots": 3}, "shots = 3: syllogism has only 2 different answers"),
    ],
)
def test_what_cannot_be_generated_is_an_input_error(source: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        generate(**source)


@pytest.mark.parametrize("task", ["polynomial_equations", "tower_of_hanoi", "string_splitting", "ab"])
def test_tasks_with_fractions_few_puzzles_or_empty_answers_make_as_many_as_asked(task: str) -> None:
    items = puzzles.items(PuzzleSource(task=task, size=50))
    assert len({item.split_key for item in items}) == 50
    assert all(item.reference["gold"].strip() for item in items)
    assert msgspec.json.decode(msgspec.json.encode([item.reference for item in items]))
