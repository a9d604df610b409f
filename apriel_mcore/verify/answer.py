r"""Where in a model's text is its answer?

    text --final_answer--> final response --last_boxed-------> content of the last \boxed{}
                                          --last_code_block--> source of the last code fence
                                          --calls_text-------> JSON of the tool calls

Every judge cuts its answer with these functions and only with these, so a model cannot be graded on
something that it quoted while thinking. An empty string means that nothing was found. All scans are
linear in the text: quantifiers that could share characters are possessive (tests/verify/test_patterns.py).
"""

import re

BEGIN = "[BEGIN FINAL RESPONSE]"
END = "[END FINAL RESPONSE]"

_THINK = "<think>"
_STEPS = "Here are my reasoning steps:"
THINKS = (_THINK, _STEPS)
"""How a trace begins that has to say where its answer starts; the prompt may say it (Problem.prefill)."""

_BRACES = re.compile(r"\\boxed\s*+\{|\\.|[{}]", re.DOTALL)
_FENCE = re.compile(r"[ \t]*+(`{3,}+|~{3,}+)[ \t]*+([^\n`]*+)$")
_PYTHON = frozenset({"python", "python3", "py"})
_TAG, _TAG_END = "<answer>", "</answer>"


def final_answer(text: str) -> str:
    """The final response, stripped: after `</think>`, after the last BEGIN marker, up to END if it came.

    The end of thinking is looked for first: a marker that was quoted while thinking does not count.
    Text that starts to think and never stops has no final answer: `<think>` ends with `</think>` alone,
    reasoning steps also with a BEGIN marker.
    """
    answer = text.rpartition("</think>")[2]
    begun = answer.lstrip()
    if begun.startswith(_THINK) or (begun.startswith(_STEPS) and BEGIN not in begun):
        return ""
    return answer.rpartition(BEGIN)[2].partition(END)[0].strip()


def last_boxed(text: str) -> str:
    r"""Content of the balanced `\boxed{}` that closes last, stripped; the outer one of nested boxes.

    Escaped braces do not count as braces. A box that never closes is passed over.
    """
    open_S: list[tuple[int, bool]] = []  # start of the content, and whether a \boxed opened it
    found = slice(0)
    for token in _BRACES.finditer(text):
        symbol = token.group()
        if symbol.endswith("{") and symbol != "\\{":
            open_S.append((token.end(), symbol.startswith("\\boxed")))
        elif symbol == "}" and open_S:
            start, is_box = open_S.pop()
            if is_box:
                found = slice(start, token.start())
    return text[found].strip()


def last_code_block(text: str) -> str:
    """Source in the last Python code fence, else in the last fence of any language.

    As in CommonMark, a fence closes at a bare fence of the same character and at least its length, and
    a fence that never closes runs to the end. Empty blocks do not count.
    """
    python, other = "", ""
    for language, source in _blocks(text):
        if not source.strip():
            continue
        if language in _PYTHON:
            python = source
        else:
            other = source
    return python or other


def code_or_bare_text(text: str) -> str:
    """The last code block, or the whole text where there is no fence: few-shot answers are bare code."""
    return last_code_block(text) if _has_fence(text) else text.strip()


def calls_text(text: str) -> str:
    """JSON of the tool calls: the last `<tool_calls>` block, else the whole text if it looks like JSON.

    A block without its closing tag runs to the end. Bare JSON may stand in a single code fence.
    """
    _, opened, block = text.rpartition("<tool_calls>")
    if opened:
        return block.partition("</tool_calls>")[0].strip()
    bare = text.strip()
    if bare.startswith(("```", "~~~")):
        bare = last_code_block(bare).strip()
    return bare if bare.startswith(("{", "[")) else ""


def tagged_or_bare_text(text: str) -> str:
    """Content of the last `<answer></answer>` pair, else the whole text; stripped."""
    opened = text.rfind(_TAG, 0, max(0, text.rfind(_TAG_END)))
    return (text if opened < 0 else text[opened + len(_TAG) :].partition(_TAG_END)[0]).strip()


def _has_fence(text: str) -> bool:
    return any(_FENCE.match(line) for line in text.splitlines())


def _blocks(text: str) -> list[tuple[str, str]]:
    """(language, source) of every code fence, in order."""
    blocks: list[tuple[str, str]] = []
    fence, language, lines = "", "", []
    for line in text.splitlines():
        mark = _FENCE.match(line)
        if not fence:
            if mark:
                words = mark.group(2).split()
                fence, language, lines = mark.group(1), words[0].lower() if words else "", []
        elif mark and mark.group(1).startswith(fence) and not mark.group(2).strip():
            blocks.append((language, "\n".join(lines)))
            fence = ""
        else:
            lines.append(line)
    if fence:
        blocks.append((language, "\n".join(lines)))
    return blocks
