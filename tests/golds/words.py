"""Words, strings and small languages: read, sorted, rewritten again from the question."""

import json
import re
from collections import Counter
from collections.abc import Callable
from functools import cache
from itertools import pairwise
from string import ascii_uppercase

from tests.golds.sums import after


def letter_counting(question: str, gold: str) -> bool:
    """Whether capitals count or not."""
    letter, text = re.search(r'letter "(.)" appear in the text: "(.*)"', question, re.DOTALL).groups()
    return text.count(letter) == text.lower().count(letter) == int(gold)


def word_sorting(question: str, gold: str) -> bool:
    order, shown = re.search(r"in (\w+) order \(.*?list: (.*)", question).groups()
    return sorted(shown.split(", "), reverse=order == "descending") == gold.split(", ")


def caesar_cipher(question: str, gold: str) -> bool:
    text = re.search(r"text: (.*?)\. Provide", question)[1]
    turned = (
        text.translate(str.maketrans(ascii_uppercase, ascii_uppercase[n:] + ascii_uppercase[:n]))
        for n in range(26)
    )
    return gold in turned


def isomorphic_strings(question: str, gold: str) -> bool:
    one, other = question.split()[-2:]
    same = len(set(zip(one, other, strict=True))) == len(set(one)) == len(set(other))
    return same == (gold == "True")


def ransom_note(question: str, gold: str) -> bool:
    note, magazine = after(question, "note:").split("\nMagazine: ")
    return (Counter(note.strip()) <= Counter(magazine.strip())) == (gold == "True")


def palindrome_generation(question: str, gold: str) -> bool:
    return gold == gold[::-1] and sorted(gold) == sorted(after(question, "letters:").split(", "))


def palindrome_partitioning(question: str, gold: str) -> bool:
    @cache
    def cut(text: str) -> list[list[str]]:
        heads = [text[:n] for n in range(1, len(text) + 1) if text[:n] == text[:n][::-1]]
        return [[head, *rest] for head in heads for rest in cut(text[len(head) :])] if text else [[]]

    return sorted(cut(after(question, "palindromes:"))) == sorted(json.loads(gold))


def group_anagrams(question: str, gold: str) -> bool:
    groups: dict[str, list[str]] = {}
    for word in json.loads(after(question, "anagrams:")):
        groups.setdefault("".join(sorted(word)), []).append(word)
    return sorted(map(sorted, groups.values())) == sorted(map(sorted, json.loads(gold)))


def letter_jumble(question: str, gold: str) -> bool:
    jumbled, words = after(question, "words:").split(), gold.split()
    return len(jumbled) == len(words) and all(
        sorted(one) == sorted(other) for one, other in zip(jumbled, words, strict=True)
    )


def sentence_reordering(question: str, gold: str) -> bool:
    """The same words, none of them twice in a row."""
    shown, words = after(question, "sentence:").split(), gold.split()
    return sorted(shown) == sorted(words) and all(one != other for one, other in pairwise(words))


def needle_haystack(question: str, gold: str) -> bool:
    hay, asked = question.rsplit("\n", 1)
    needle = re.fullmatch(r"Who (.*)\? Reply only with a name\.", asked)[1]
    found = [said.removesuffix(f" {needle}") for said in hay.split(". ") if said.endswith(f" {needle}")]
    return found == [gold]


def emoji_mystery(question: str, gold: str) -> bool:
    points = (ord(symbol) - 0xE0100 + 16 for symbol in question if 0xE0100 <= ord(symbol) <= 0xE01EF)
    return bytes(points).decode() == gold


def bf(question: str, gold: str) -> bool:
    program = max(re.findall(r"^[-+<>\[\].,]+$", question, re.MULTILINE), key=len)
    jumps: dict[int, int] = {}
    opened: list[int] = []
    for place, symbol in enumerate(program):
        if symbol == "[":
            opened.append(place)
        elif symbol == "]":
            jumps[place] = opened.pop()
            jumps[jumps[place]] = place
    tape, head, place, said = Counter[int](), 0, 0, ""
    while place < len(program):
        match program[place]:
            case ">" | "<" as way:
                head += 1 if way == ">" else -1
            case "+" | "-" as sign:
                tape[head] = (tape[head] + (1 if sign == "+" else -1)) % 256
            case ".":
                said += chr(tape[head])
            case "[" if not tape[head]:
                place = jumps[place]
            case "]" if tape[head]:
                place = jumps[place]
        place += 1
    return said == gold


def ab(question: str, gold: str) -> bool:
    program = question.split("following program:")[1].split("Return")[0].split()
    while (
        pair := next((n for n in range(len(program) - 1) if program[n][1] == "#" == program[n + 1][0]), -1)
        + 1
    ):
        left, right = program[pair - 1 : pair + 1]
        program[pair - 1 : pair + 1] = [] if left[0] == right[1] else [right, left]
    return " ".join(program) == gold


def word_ladder(question: str, gold: str) -> bool:
    """One letter at a time from the first word to the last; whether all are words is not asked."""
    steps = gold.split(",")
    ends = re.findall(r"'([A-Z]+)'", question)
    near = (sum(a != b for a, b in zip(one, other, strict=True)) == 1 for one, other in pairwise(steps))
    return [steps[0], steps[-1]] == ends and all(near)


def cryptarithm(question: str, gold: str) -> bool:
    digit = dict(pair.split("=") for pair in gold.split(","))
    words = re.findall(r"[A-Z]+", question.split("cryptarithm:")[1].split("Each letter")[0])
    *parts, total = (int("".join(digit[letter] for letter in word)) for word in words)
    unique = len(set(digit.values())) == len(digit)
    return unique and sum(parts) == total and all(digit[word[0]] != "0" for word in words)


def string_manipulation(question: str, gold: str) -> bool:
    lines = re.findall(r"^\d+\. (.*)$", question, re.MULTILINE)
    rules = [rule for rule in lines if "string" in rule]
    text = after(question, "rules:")
    seen = {text}
    while (
        new := next((to for rule in rules if (to := rewritten(text, rule)) is not None), text)
    ) not in seen:
        seen.add(new)
        text = new
    return text == gold


def rewritten(text: str, rule: str) -> str | None:
    """The text after a rule, None where it does not apply."""
    old, *more = re.findall(r"'(\w+)'", rule) or [""]
    condition, action = re.sub(r"'\w+'", "_", rule).removesuffix(".").split(", ", 1)
    new = more[0] if more else ""
    inner = text.find(old, 1)
    head, tail = text[len(old) :], text[: -len(old)]
    applies = {
        "If the string ends with _": text.endswith(old),
        "If the string suffix is _": text.endswith(old),
        "If the string starts with _": text.startswith(old),
        "If the string prefix is _": text.startswith(old),
        "If the string contains _": old in text,
        "If the string contains _ (not at the start)": inner > 0,
        "If the string contains an even number of _s (and at least one _)": text.count(old) % 2
        == 0
        < text.count(old),
        "If the string length is greater than 15": len(text) > 15,
    }
    if not applies[condition]:
        return None
    changed = {
        "replace it with _": new + head if "prefix" in condition else tail + new,
        "remove the first occurrence found after the first character": text[:inner]
        + text[inner + len(old) :],
        "remove the second character": text[:1] + text[2:],
        "delete the first occurrence entirely": text.replace(old, "", 1),
        "replace the first two characters with _": new + text[2:],
        "remove the middle character": text[: len(text) // 2] + text[len(text) // 2 + 1 :],
        "remove the last character": text[:-1],
        "delete the last two characters": text[:-2],
        "delete the first two characters and append _ to the end": text[2:] + new,
        "remove the first character": text[1:],
        "remove the first two characters": text[2:],
        "replace the first occurrence with _": text.replace(old, new, 1),
        "replace the first occurrence with its reverse (_)": text.replace(old, new, 1),
        "replace it with _ and prepend _ to the start": more[-1] + tail + new if more else "",
        "append _ at the end": text + more[-1] if more else "",
        "replace it with _ and append _ to the end": new + head + more[-1] if more else "",
        "replace it with _ and delete the last character": (new + head)[:-1],
    }
    return changed[action]


CHECKS: dict[str, Callable[[str, str], bool]] = {
    "ab": ab,
    "bf": bf,
    "caesar_cipher": caesar_cipher,
    "cryptarithm": cryptarithm,
    "emoji_mystery": emoji_mystery,
    "group_anagrams": group_anagrams,
    "isomorphic_strings": isomorphic_strings,
    "letter_counting": letter_counting,
    "letter_jumble": letter_jumble,
    "needle_haystack": needle_haystack,
    "palindrome_generation": palindrome_generation,
    "palindrome_partitioning": palindrome_partitioning,
    "ransom_note": ransom_note,
    "sentence_reordering": sentence_reordering,
    "string_manipulation": string_manipulation,
    "spell_backward": lambda question, gold: question.split()[-1][::-1] == gold,
    "word_ladder": word_ladder,
    "word_sequence_reversal": lambda question, gold: (
        after(question, "words:").split(", ")[::-1] == gold.split(", ")
    ),
    "word_sorting": word_sorting,
}
