"""No text that a policy can write, and no reference that a data set can hold, crashes, hangs or is executed.

`make fuzz` sends 100,000 inputs, the default suite a small share of them. Inputs are pieces of what the
judges look for, put together in any order, and gold answers with such pieces in them. An audit hook sees to
it that nothing of a text reaches the compiler, a process, a socket or a file.
"""

import json
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from apriel_mcore.config.schema import Verify
from apriel_mcore.errors import InputError
from apriel_mcore.types import Verdict
from apriel_mcore.verify import answer, calls, opinion, wire
from apriel_mcore.verify.worker import JUDGES
from tests.verify.puzzles.cases import CASES

INPUTS = int(os.environ.get("APRIEL_FUZZ_INPUTS", "1000"))
SHARES = {
    "extraction": 0.25,
    "opinion": 0.05,
    "references": 0.10,
    "math": 0.12,
    "text": 0.05,
    "instruction": 0.13,
    "logic": 0.08,
    "puzzles": 0.05,
    "choice": 0.04,
    "calls": 0.10,
    "code": 0.03,
}
"""Of the inputs, by target; each is given slightly more than its share."""
LONGEST_CPU_S = 1.6
"""The judges' own limit is 1 s; sympy answers its alarm with some delay."""

CANARY = "fuzz_canary"
PIECES: list[str] = [
    piece.replace("CANARY", CANARY)
    for piece in json.loads(Path(__file__).with_name("fuzz_pieces.json").read_text(encoding="ascii"))
]
"""What some judge, parser or interpreter looks for."""
LONG = 40_000


def _long(head: str, unit: str, tail: str) -> str:
    """What is quadratic somewhere shows here."""
    return head + unit * (LONG // len(unit)) + tail


TEXTS = st.one_of(
    st.text(max_size=60),
    st.lists(st.one_of(st.sampled_from(PIECES), st.text(max_size=4)), max_size=12).map("".join),
    st.tuples(st.sampled_from(PIECES), st.integers(1, 300)).map(lambda pair: pair[0] * pair[1]),
    st.tuples(*[st.sampled_from(PIECES)] * 3).map(lambda parts: _long(*parts)),
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
ADD = {
    "name": "add",
    "parameters": {
        "properties": {"a": {"type": "integer"}, "b": {"type": "array", "items": {"type": "string"}}}
    },
}


@cache
def references(verifier: str) -> list[tuple[dict[str, Any], str]]:
    """(reference, an answer that satisfies it)."""
    match verifier:
        case "math":
            golds = (
                "12",
                r"\frac{1}{2}",
                r"x^2+1",
                r"(-\infty,2]",
                r"\{1,2\}",
                r"5\text{ cm}",
                "3+4i",
                "0.5",
            )
            return [({"answer": gold, "format": "boxed"}, f"\\boxed{{{gold}}}") for gold in golds]
        case "text":
            return [
                ({"answer": "a dozen", "format": form}, "\\boxed{a dozen}") for form in ("boxed", "whole")
            ]
        case "calls":
            answers = [{"add": {"a": [1, 2], "b": [["x"], ""]}}]
            call = '[{"name": "add", "arguments": {"a": 1, "b": ["x"]}}]'
            kinds = ("simple", "multiple", "parallel", "parallel_multiple")
            found = [({"functions": [ADD], "answer": answers, "kind": kind}, call) for kind in kinds]
            texts = {
                "name": "put",
                "parameters": {"properties": {"m": {"type": "HashMap"}, "n": {"type": "long"}}},
            }
            java = {"functions": [texts], "answer": [{"put": {"m": [{"k": [1]}], "n": [3]}}]}
            call = calls.gold_text(java | {"kind": "simple_java"})
            found.append((java | {"kind": "simple_java"}, call))
            return [*found, ({"functions": [ADD], "answer": [], "kind": "irrelevance"}, "I cannot.")]
        case "code":
            tests = [{"args": [1], "expected": 2}]
            program = "```python\ndef double(x):\n    return 2 * x\n```"
            lines = {"tests": [{"stdin": "1\n", "expected": "2\n"}]}
            return [({"tests": tests, "entry_point": "double"}, program), (lines, program)]
        case "logic":
            return _puzzles()
        case "puzzles":
            return [({"task": task, "facts": facts}, right[0]) for task, facts, right, _ in CASES if right]
        case "choice":
            return [({"answer": "B", "num_options": 4}, text) for text in (r"\boxed{B}", "The answer is (B)")]
        case "instruction":
            return _constraints()
    raise AssertionError(f"no references for {verifier}: add some, and a share")


def _puzzles() -> list[tuple[dict[str, Any], str]]:
    """An item of each allowed task that makes one quickly; all but a few are left to `make fuzz`."""
    import reasoning_gym
    from reasoning_gym.factory import DATASETS

    from apriel_mcore.verify.logic import DENIED

    few = (
        "syllogism",
        "letter_counting",
        "chain_sum",
        "word_ladder",
        "maze",
        "fraction_simplification",
    )
    slow = ("futoshiki", "sokoban", "zebra_puzzles")
    tasks = few if INPUTS < 10_000 else [task for task in DATASETS if task not in (*DENIED, *slow)]
    found = []
    for task in tasks:
        entry = reasoning_gym.create_dataset(task, size=1, seed=5)[0]
        entry = {name: entry[name] for name in ("question", "answer", "metadata")}
        if isinstance(entry["answer"], str) and entry["answer"].strip():
            found.append(({"task": task, "entry": entry}, entry["answer"]))
    return found


def _constraints() -> list[tuple[dict[str, Any], str]]:
    kinds: list[tuple[str, dict[str, Any]]] = [
        ("punctuation:no_comma", {}),
        ("keywords:existence", {"keywords": ["because"]}),
        ("length_constraints:number_words", {"num_words": 30, "relation": "less than"}),
        ("startend:end_checker", {"end_phrase": "The end."}),
        ("detectable_format:title", {}),
        ("length_constraints:number_sentences", {"num_sentences": 2, "relation": "at least"}),
    ]
    whole = [{"kind": kind, "args": args} for kind, args in kinds]
    gold = "<<title>> It works because it must. The end."
    return [({"instructions": [one]}, gold) for one in whole] + [({"instructions": whole}, gold)]


class Watch:
    """What a text made this process do; the hook cannot be taken out again, only told not to look."""

    def __init__(self) -> None:
        self.on = False
        self.seen: list[str] = []
        self.counts: Counter[str] = Counter()
        self.longest_s: dict[str, float] = {}
        sys.addaudithook(self._note)

    def _note(self, event: str, args: tuple[Any, ...]) -> None:
        if not self.on:
            return
        if event.startswith(
            ("os.system", "os.exec", "os.posix_spawn", "os.fork", "subprocess", "socket.connect")
        ) or event in ("os.remove", "os.rename", "os.mkdir", "os.putenv", "ctypes.dlopen", "os.kill"):
            self.seen.append(event)
        elif event == "open" and any(sign in str(args[1]) for sign in "wax+"):
            self.seen.append(f"open {args[0]} {args[1]}")
        elif event == "compile" and CANARY in str(args[0]):
            self.seen.append(f"compile {str(args[0])[:200]}")

    @contextmanager
    def over(self, target: str) -> Iterator[None]:
        """Around one input."""
        self.counts[target] += 1
        self.seen.clear()
        start = time.process_time()
        self.on = True
        try:
            yield
        finally:
            self.on = False
        spent = time.process_time() - start
        self.longest_s[target] = max(spent, self.longest_s.get(target, 0.0))
        assert not self.seen, self.seen
        assert spent < LONGEST_CPU_S, f"took {spent:.2f} s of CPU"


@pytest.fixture(scope="module")
def watch() -> Iterator[Watch]:
    found = Watch()
    yield found
    print(f"\n{sum(found.counts.values())} inputs:")
    for target, count in found.counts.items():
        print(f"  {target:<12} {count:>7}   longest {found.longest_s[target]:.3f} s of CPU")


def fuzzed(target: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Hypothesis for a target's share: in the suite the same inputs in every run, in `make fuzz` others."""
    return settings(
        max_examples=int(INPUTS * SHARES[target]) + 1,
        deadline=None,
        derandomize=INPUTS < 10_000,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


def test_every_verifier_is_fuzzed() -> None:
    assert set(JUDGES) <= set(SHARES)
    assert sum(SHARES.values()) == pytest.approx(1.0)


@fuzzed("extraction")
@given(text=TEXTS)
def test_extraction(text: str, watch: Watch) -> None:
    with watch.over("extraction"):
        final = answer.final_answer(text)
        found = [
            answer.last_boxed(text),
            answer.last_code_block(text),
            answer.code_or_bare_text(text),
            answer.calls_text(text),
            answer.tagged_or_bare_text(text),
        ]
    assert final in text
    assert all(isinstance(part, str) and len(part) <= len(text) for part in found)


@fuzzed("opinion")
@given(text=TEXTS)
def test_opinions(text: str, watch: Watch) -> None:
    with watch.over("opinion"):
        for reply in ("reasoned", "json"):
            assert opinion.decision(text, reply=reply) in ("yes", "no", "unclear")
            if opinion.may_be_shown(text, longest=1000):
                assert opinion.decision(text, reply=reply) == "unclear"


@fuzzed("references")
@given(data=st.data(), junk=st.dictionaries(st.text(max_size=8), JSON, max_size=3))
def test_any_reference_is_taken_or_refused(data: st.DataObject, junk: dict[str, Any], watch: Watch) -> None:
    verifier = data.draw(st.sampled_from(sorted(JUDGES)))
    reference, _ = data.draw(st.sampled_from(references(verifier)))
    key = data.draw(st.sampled_from(sorted(reference)))
    spoiled = data.draw(st.sampled_from([junk, reference | junk, reference | {key: data.draw(JSON)}]))
    verifier_judge = judge(verifier)
    with watch.over("references"):
        try:
            verifier_judge.self_check(spoiled)
        except InputError as error:
            assert str(error)


@cache
def judge(verifier: str) -> Any:
    found = JUDGES[verifier](Verify(code_cpu_s=0.5))
    found.warm_up()
    if verifier != "code":
        for reference, gold in references(verifier):  # late imports and caches, before anybody looks
            found.verify(reference, gold)
    return found


def drawn(data: st.DataObject, verifier: str) -> tuple[dict[str, Any], str]:
    """A reference and a text: anything, or the gold with something in it or cut out of it."""
    reference, gold = data.draw(st.sampled_from(references(verifier)))
    text = data.draw(TEXTS)
    start, end = sorted(data.draw(st.tuples(st.integers(0, len(gold)), st.integers(0, len(gold)))))
    shapes = [text, gold[:start] + text + gold[start:], gold[:start] + gold[end:], f"\\boxed{{{text}}}"]
    shapes += [f"<think>{text}</think>{gold}", f"{gold}\n{text}", f"<answer>{text}</answer>"]
    return reference, data.draw(st.sampled_from(shapes))


def check(verdict: Verdict) -> None:
    assert 0.0 <= verdict.score <= 1.0
    assert verdict.success == (verdict.status == "correct") == (verdict.score == 1.0)
    sent = wire.encode(wire.Graded(verdict))
    assert wire.decode_reply(sent[wire.HEADER.size :]) == wire.Graded(verdict)


@pytest.mark.parametrize("verifier", [name for name in JUDGES if name != "code"])
def test_verifiers(verifier: str, watch: Watch) -> None:
    judge(verifier)

    @fuzzed(verifier)
    @given(data=st.data())
    def verdicts(data: st.DataObject) -> None:
        reference, text = drawn(data, verifier)
        with watch.over(verifier):
            verdict = judge(verifier).verify(reference, text)
        check(verdict)

    verdicts()


def test_code_runs_in_its_sandbox_alone(
    watch: Watch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Programs may compute for 0.5 s of their own: what counts here is that each has a verdict."""
    monkeypatch.chdir(tmp_path)
    tmp_path.chmod(0o777)

    @fuzzed("code")
    @given(data=st.data())
    def verdicts(data: st.DataObject) -> None:
        reference, text = drawn(data, "code")
        watch.counts["code"] += 1
        watch.longest_s["code"] = 0.0
        check(judge("code").verify(reference, text))
        assert not list(tmp_path.iterdir())

    verdicts()
