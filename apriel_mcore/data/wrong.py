"""Which answers to a problem are wrong for certain? Its gold, changed so that its value changes.

Used to measure false accepts: nothing here guesses, every change makes another value.
"""

import json
import re
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

from apriel_mcore.data import wrong_math
from apriel_mcore.data.wrong_text import breaking
from apriel_mcore.types import Problem

_MANY_SOLUTIONS = frozenset({"cryptarithm"})
"""Tasks of which another number may be another solution."""

_LONE_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")

_ROUNDS = 6
"""Texts for each constraint of a prompt that has no gold."""

_SPOILED = """
def _spoil(value, turn={turn}):
    if isinstance(value, bool):
        return not value
    if isinstance(value, (int, float)):
        return value + abs(value) + 1 + turn
    if isinstance(value, str):
        return value + "x" * (1 + turn)
    return [value, turn]
"""


def answers(problem: Problem, *, num: int, seed: int) -> list[str]:
    """Up to `num` different wrong answers; fewer where the gold allows fewer, none without a known way."""
    makers: dict[str, Callable[[dict[str, Any], Random], Iterator[str]]] = {
        "math": _math,
        "calls": _calls,
        "code": _code,
        "logic": _logic,
        "puzzles": _puzzles,
        "instruction": _instruction,
        "choice": _choice,
    }
    if problem.verifier not in makers:
        return []
    rng = Random(f"{problem.id} {seed}")
    found: dict[str, None] = {}
    for text in makers[problem.verifier](problem.reference, rng):
        found[text] = None
        if len(found) == num:
            break
    return list(found)


def _choice(reference: dict[str, Any], rng: Random) -> Iterator[str]:
    """Every other letter, one beyond the options, and none."""
    letters = [chr(ord("A") + number) for number in range(reference["num_options"] + 1)]
    yield from (f"\\boxed{{{letter}}}" for letter in letters if letter != reference["answer"])
    yield from ("", "The answer is not given.")


def _math(reference: dict[str, Any], rng: Random) -> Iterator[str]:
    """Golds of the forms that wrong_math.py knows, changed in value, order, shape, base, power or unit."""
    other = wrong_math.answers(reference["answer"])
    rng.shuffle(other)
    wrap = "{}" if reference.get("format") == "number" else "\\boxed{{{}}}"
    yield from (wrap.format(text) for text in other)


def _calls(reference: dict[str, Any], rng: Random) -> Iterator[str]:
    """Another function, an argument that nobody asked for, one call less or more, no list at all.

    Where no function fits: a call in any form, and silence.
    """
    if "irrelevance" in reference.get("kind", ""):
        yield from _needless_calls(rng.choice(reference["functions"])["name"], rng)
        return
    written = json.loads(reference["gold"])
    gold = written if isinstance(written, list) else [written]
    number = rng.randrange(len(gold))
    call = gold[number]
    variants = [
        [{**call, "name": call["name"] + "_other"}],
        [{**call, "arguments": {**call["arguments"], "invented": 1}}],
        [{**call, "extra": 1}],
        [{**call, "arguments": []}],
        [{**call, "arguments": None}],
        [{"name": call["name"]}],
        [call, call],
    ]
    for argument in call["arguments"]:
        variants.append([{**call, "arguments": {**call["arguments"], argument: {"unlike": ["anything", 7]}}}])
    rng.shuffle(variants)
    for variant in variants:
        yield json.dumps([*gold[:number], *variant, *gold[number + 1 :]])
    yield json.dumps(gold[:number] + gold[number + 1 :])
    yield "I would call " + reference["gold"]


def _needless_calls(name: str, rng: Random) -> Iterator[str]:
    call = json.dumps({"name": name.replace(".", "_"), "arguments": {"a": rng.randrange(100)}})
    yield from (call, f"[{call}]", f"<tool_calls>[{call}]</tool_calls>", f"<tool_call>\n{call}\n</tool_call>")
    yield from (f"```json\n[{call}]\n```", f"I will call it:\n```json\n{call}\n```", f"I call {call}.")
    yield from (f"{name}(a={rng.randrange(100)})", f"[{name}()]", json.dumps({name: {"a": 1}}))
    yield from ("", f"<think>No function fits, {name} neither.")


def _code(reference: dict[str, Any], rng: Random) -> Iterator[str]:
    """The gold program with every value that it returns changed."""
    name = reference["entry_point"]
    if not name.isidentifier():
        return
    source = reference["gold"].removeprefix("```python\n").removesuffix("\n```")
    for turn in range(rng.randrange(10), 100):
        wrapper = f"_{name} = {name}\ndef {name}(*args):\n    return _spoil(_{name}(*args))\n"
        yield f"```python\n{source}\n{_SPOILED.format(turn=turn)}\n{wrapper}```"


def _instruction(reference: dict[str, Any], rng: Random) -> Iterator[str]:
    """The gold text with one of its constraints broken; without a gold, texts that break one for certain."""
    gold = reference.get("gold", "")
    texts: list[str] = []
    if not gold:
        for instruction in reference["instructions"] * _ROUNDS:
            texts.append(breaking(instruction["kind"], instruction["args"], rng))
        yield from filter(None, texts)
        return
    for instruction in reference["instructions"]:
        kind, args = instruction["kind"], instruction["args"]
        words = rng.sample(("maybe", "later", "perhaps", "then", "again", "so"), 5)
        if kind == "keywords:existence":
            missing = re.compile(re.escape(args["keywords"][0]), re.IGNORECASE)
            texts += [missing.sub(word, gold) for word in words]
        elif kind == "punctuation:no_comma":
            texts += [gold.replace(" ", f" {word}, ", 1) for word in words]
        elif kind == "startend:end_checker":
            texts += [f"{gold} {word}" for word in words]
        elif kind == "length_constraints:number_words" and args["relation"] == "less than":
            texts += [gold + f" {word}" * args["num_words"] for word in words]
    rng.shuffle(texts)
    yield from texts


def _logic(reference: dict[str, Any], rng: Random) -> Iterator[str]:
    """The gold answer doubled, denied, within a sentence, with another value, or with a word of its own."""
    gold = reference["gold"]
    word = "".join(rng.choices("abcdefgh", k=6))
    variants = [f"{gold} {gold}", f"The answer is {gold}.", f"{gold} or {word}", word, f"not {gold}"]
    variants += [f"{word} {gold}", f"{word}\n{gold}"]
    variants += _other_numbers(gold, rng)
    digits = [place for place, symbol in enumerate(gold) if symbol.isdigit()]
    if digits and reference["task"] not in _MANY_SOLUTIONS:
        first = digits[0]
        variants += [f"{gold[:first]}{(int(gold[first]) + n) % 10}{gold[first + 1 :]}" for n in (1, 4, 7)]
    if not digits and len(gold) > 1:
        variants += [gold[: len(gold) // 2], gold[1:]]
    rng.shuffle(variants)
    yield from variants


def _other_numbers(gold: str, rng: Random) -> list[str]:
    """A lone number with the other sign, a digit more, and one less."""
    if not _LONE_NUMBER.fullmatch(gold):
        return []
    other = [gold.removeprefix("-") if gold.startswith("-") else f"-{gold}"]
    other += [f"{gold}{rng.randint(1, 9)}", gold[:-1]]
    return [text for text in other if any(map(str.isdigit, text)) and float(text) != float(gold)]


def _puzzles(reference: dict[str, Any], rng: Random) -> Iterator[str]:
    """The gold with one digit or letter changed, and text that is no solution."""
    gold = reference["gold"]
    digits = [place for place, symbol in enumerate(gold) if symbol.isdigit()]
    places = digits or [place for place, symbol in enumerate(gold) if symbol.isalpha()]
    for place in rng.sample(places, len(places)):
        other = str((int(gold[place]) + 1) % 10) if digits else "ab"[gold[place].lower() == "a"]
        yield gold[:place] + other + gold[place + 1 :]
    boxed = gold.removeprefix(r"\boxed{").removesuffix("}")
    yield from (f"\\boxed{{{text}}}" for text in _other_numbers(boxed, rng))
    yield from ("unsolvable", "[[1]]", r"\boxed{?}")
