"""Toy function calls: 'call(person): Call Anna.' -> {"name": "call", "arguments": {"person": "Anna"}}."""

import json
from itertools import product
from random import Random

import msgspec

from apriel_mcore.config.schema import TemplateSource
from apriel_mcore.data.item import Item, Shot, conversation, evenly

type Argument = str | int

_CITIES = ("Rome", "Paris", "Lima", "Oslo", "Cairo", "Tokyo", "Berlin", "Madrid", "Boston", "Dublin")
_PEOPLE = ("Anna", "Tom", "Maria", "Sam", "Lucy", "Peter", "Nora", "Adam", "Eva", "Max")
_ROOMS = ("kitchen", "bedroom", "office", "garage", "hall", "bathroom", "cellar", "attic")
_GOODS = ("apples", "eggs", "pens", "lemons", "cups", "books", "lamps", "chairs")
_NOUNS = ("dog", "house", "water", "bread", "friend", "night", "book", "table", "milk", "tree")
_LANGUAGES = ("French", "German", "Spanish", "Italian", "Dutch", "Greek")
_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_DIGITS = tuple(range(2, 10))


class _Function(msgspec.Struct, frozen=True):
    """A function, what a user says to have it called, and the values that its arguments take."""

    name: str
    request: str
    arguments: dict[str, tuple[Argument, ...]]


FUNCTIONS = (
    _Function("weather", "Weather in {city} on {day}?", {"city": _CITIES, "day": _DAYS}),
    _Function("call", "Call {person} on {day}.", {"person": _PEOPLE, "day": _DAYS}),
    _Function("wake", "Wake {person} at {hour}.", {"person": _PEOPLE, "hour": _DIGITS}),
    _Function("light", "Set the {room} light to {level}.", {"room": _ROOMS, "level": _DIGITS}),
    _Function("add", "Add {a} and {b}.", {"a": _DIGITS, "b": _DIGITS}),
    _Function("buy", "Buy {count} {item}.", {"count": _DIGITS, "item": _GOODS}),
    _Function("translate", "Translate {word} to {language}.", {"word": _NOUNS, "language": _LANGUAGES}),
)

type _Call = tuple[_Function, dict[str, Argument]]


def items(source: TemplateSource) -> list[Item]:
    """Problems of `verify/calls` (kind simple), functions in equal parts as far as there are enough.

    With examples, one calls the function asked for with other values and the rest call other
    functions, in random order: neither copying nor a fixed function solves the problem.
    """
    rng = Random(f"calls {source.seed}")
    chosen = evenly(_calls(), lambda call: call[0].name, source.size, rng)
    return [_item(call, _shots(call, source.shots, rng)) for call in chosen]


def _calls() -> list[_Call]:
    return [
        (function, dict(zip(function.arguments, values, strict=True)))
        for function in FUNCTIONS
        for values in product(*function.arguments.values())
    ]


def _shots(asked: _Call, num_shots: int, rng: Random) -> list[Shot]:
    function, values = asked
    same = [call for call in _calls() if call[0] is function and not values.items() & call[1].items()]
    other = [call for call in _calls() if call[0] is not function]
    picked = rng.sample(same, min(num_shots, 1))
    picked += evenly(other, lambda call: call[0].name, num_shots - len(picked), rng)
    return [Shot(_question(call), _answer(call)) for call in rng.sample(picked, len(picked))]


def _question(call: _Call) -> str:
    function, values = call
    return f"{function.name}({', '.join(function.arguments)}): {function.request.format_map(values)}"


def _answer(call: _Call) -> str:
    function, values = call
    return json.dumps({"name": function.name, "arguments": values})


def _item(call: _Call, shots: list[Shot]) -> Item:
    function, values = call
    return Item(
        messages=conversation(shots, _question(call)),
        verifier="calls",
        reference={
            "functions": [_schema(function)],
            "answer": [{function.name: {name: [value] for name, value in values.items()}}],
            "kind": "simple",
            "gold": _answer(call),
        },
        split_key=_question(call),
    )


def _schema(function: _Function) -> dict[str, object]:
    """As the Berkeley leaderboard writes functions."""
    properties = {
        name: {"type": "integer" if isinstance(allowed[0], int) else "string", "description": name}
        for name, allowed in function.arguments.items()
    }
    parameters = {"type": "dict", "properties": properties, "required": list(properties)}
    return {"name": function.name, "description": function.name, "parameters": parameters}
