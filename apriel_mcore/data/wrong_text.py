"""Which answers break a constraint for certain? Plain words that miss it, near misses where it counts."""

from collections.abc import Callable
from random import Random
from typing import Any

_WORDS = (
    "amber", "brook", "cedar", "dune", "ember", "fern", "grove", "harbor", "inlet", "jetty", "knoll",
    "ledge", "meadow", "north", "orchard", "pebble", "quarry", "ridge", "spring", "timber", "upland",
    "valley", "willow",
)  # fmt: skip
_MANY = 12


def breaking(kind: str, args: dict[str, Any], rng: Random) -> str:
    """A text that does not keep the constraint; empty where no way to make one is known."""
    make = _MAKERS.get(kind)
    return make(args, rng) if make else ""


def _plain(args: dict[str, Any], rng: Random) -> str:
    """A sentence of small letters without any mark but its dot, and without the constraint's own words."""
    return _sentence(rng, _MANY, avoid=_named(args))


def _sentence(rng: Random, num: int, *, avoid: list[str]) -> str:
    words = [word for word in _WORDS if not any(text.lower() in word for text in avoid)]
    return " ".join(rng.choice(words) for _ in range(num)) + "."


def _named(args: dict[str, Any]) -> list[str]:
    listed = [args.get("keyword", ""), args.get("letter", ""), *args.get("keywords", ())]
    return [text for text in listed if text]


def _english(rng: Random) -> str:
    words = (rng.choice(_WORDS) for _ in range(3))
    return "It was the {} that we saw first when we came home, and then there was the {} by the {}.".format(
        *words
    )


def _just_missed(bound: int, relation: str) -> int:
    """The count nearest to the bound that is not allowed."""
    return bound - 1 if relation == "at least" else bound


def _times(name: str, bound: str, relation: str) -> Callable[[dict[str, Any], Random], str]:
    """The word or letter so many times between plain words that just one more or less would do."""

    def make(args: dict[str, Any], rng: Random) -> str:
        num = _just_missed(args[bound], args[relation])
        return " ".join([_plain(args, rng), *[args[name]] * num])

    return make


def _words(args: dict[str, Any], rng: Random) -> str:
    return _sentence(rng, max(1, _just_missed(args["num_words"], args["relation"])), avoid=[])


def _sentences(args: dict[str, Any], rng: Random) -> str:
    num = _just_missed(args["num_sentences"], args["relation"])
    return " ".join(_sentence(rng, 4, avoid=[]).capitalize() for _ in range(num))


def _capitals(args: dict[str, Any], rng: Random) -> str:
    num = _just_missed(args["capital_frequency"], args["capital_relation"])
    return " ".join([_plain(args, rng), *(rng.choice(_WORDS).upper() for _ in range(num))])


def _one_less(name: str, shape: str) -> Callable[[dict[str, Any], Random], str]:
    def make(args: dict[str, Any], rng: Random) -> str:
        return " ".join(
            [_plain(args, rng), *(shape.format(rng.choice(_WORDS)) for _ in range(args[name] - 1))]
        )

    return make


def _one_bullet_more(args: dict[str, Any], rng: Random) -> str:
    return "\n".join(f"* {_plain(args, rng)}" for _ in range(args["num_bullets"] + 1))


def _one_paragraph_more(args: dict[str, Any], rng: Random) -> str:
    return "\n***\n".join(_plain(args, rng) for _ in range(args["num_paragraphs"] + 1))


def _other_first_word(args: dict[str, Any], rng: Random) -> str:
    return "\n\n".join(f"Not {args['first_word']} {_plain(args, rng)}" for _ in range(args["num_paragraphs"]))


_MAKERS: dict[str, Callable[[dict[str, Any], Random], str]] = {
    "change_case:capital_word_frequency": _capitals,
    "change_case:english_capital": _plain,
    "change_case:english_lowercase": lambda args, rng: _plain(args, rng).capitalize(),
    "combination:repeat_prompt": _plain,
    "combination:two_responses": _plain,
    "detectable_content:number_placeholders": _one_less("num_placeholders", "[{}]"),
    "detectable_content:postscript": _plain,
    "detectable_format:constrained_response": _plain,
    "detectable_format:json_format": _plain,
    "detectable_format:multiple_sections": _plain,
    "detectable_format:number_bullet_lists": _one_bullet_more,
    "detectable_format:number_highlighted_sections": _one_less("num_highlights", "*{}*"),
    "detectable_format:title": _plain,
    "keywords:existence": _plain,
    "keywords:forbidden_words": lambda args, rng: (
        f"{_plain(args, rng)} {rng.choice(args['forbidden_words'])}"
    ),
    "keywords:frequency": _times("keyword", "frequency", "relation"),
    "keywords:letter_frequency": _times("letter", "let_frequency", "let_relation"),
    "language:response_language": lambda args, rng: "" if args["language"] == "en" else _english(rng),
    "length_constraints:nth_paragraph_first_word": _other_first_word,
    "length_constraints:number_paragraphs": _one_paragraph_more,
    "length_constraints:number_sentences": _sentences,
    "length_constraints:number_words": _words,
    "punctuation:no_comma": lambda args, rng: f"{_plain(args, rng)[:-1]}, {rng.choice(_WORDS)}.",
    "startend:end_checker": lambda args, rng: (
        f"{_plain(args, rng)} {args['end_phrase']} {rng.choice(_WORDS)}"
    ),
    "startend:quotation": lambda args, rng: f'"{_plain(args, rng)}" {rng.choice(_WORDS)}',
}
