"""Are these the right function calls? Values and types as the Berkeley leaderboard's checker sees them.

    text --> JSON --> [Call] --one {name: arguments} each--> ast_checker of bfcl-eval, call by call

The checker comes from a pinned wheel that is never installed. It is only as strict as its input is
well-formed, so shapes are checked here first and every call reaches it alone.
"""

import importlib
import re
import sys
import types
from collections.abc import Callable
from functools import cache
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from apriel_mcore.data.wheels import wheel_path
from apriel_mcore.errors import InputError
from apriel_mcore.types import Verdict
from apriel_mcore.verify.answer import calls_text, final_answer
from apriel_mcore.verify.instruction.tokens import has_word
from apriel_mcore.verify.literals import literal
from apriel_mcore.verify.no_call import calls_something
from apriel_mcore.verify.outcome import CORRECT, NO_ANSWER, failed, read_reference, share

MAX_CHARS = 20_000
_NONE_FITS = "None of these functions fits."
_MODEL = "function-calling"  # without "_", which the checker would turn into "/"

Family = Literal["simple", "multiple", "parallel", "parallel_multiple", "irrelevance"]
Kind = Annotated[
    str,
    Meta(pattern="^(live_)?(simple(_python|_java|_javascript)?|(parallel_)?multiple|parallel|irrelevance)$"),
]

type Matches = Callable[[dict[str, Any], "Call", dict[str, Any], str], bool]


class Call(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One call as the model writes it."""

    name: str
    arguments: dict[str, Any]


class Parameters(msgspec.Struct, frozen=True):
    """Arguments of a function; `properties` maps each to its schema with at least a `type`."""

    properties: dict[str, dict[str, Any]]
    required: list[str] = []


class Function(msgspec.Struct, frozen=True):
    """What the prompt offers."""

    name: str
    parameters: Parameters


class Reference(msgspec.Struct, frozen=True):
    """Functions, and the expected calls with the values allowed for each argument.

    `answer` is a list of {name: {argument: [allowed values]}}; "" among the values makes it optional.
    """

    functions: Annotated[list[Function], Meta(min_length=1)]
    answer: list[dict[str, dict[str, list[Any]]]]
    kind: Kind = "simple"

    def __post_init__(self) -> None:
        names = {function.name for function in self.functions}
        for gold in self.answer:
            if len(gold) != 1 or not gold.keys() <= names:
                raise ValueError(f"each answer must name one of the functions, found {sorted(gold)}")
        if bool(self.answer) == (self.family == "irrelevance"):
            raise ValueError(f"{len(self.answer)} answers do not fit the kind {self.kind!r}")

    @property
    def family(self) -> str:
        """The kind without where its data come from."""
        return re.sub(r"^live_|_python$|_java$|_javascript$", "", self.kind)

    @property
    def language(self) -> str:
        """The language whose types the functions use, as bfcl-eval names it."""
        return {"simple_java": "JAVA", "simple_javascript": "JAVASCRIPT"}.get(self.kind, "PYTHON")


def verify(reference: dict[str, Any], text: str) -> Verdict:
    """The verdict on one answer. InputError when the reference is not a Reference.

    Where no call fits, words without any mark of a call are right (no_call.py).
    Binary, except for parallel kinds with several expected calls: these are matched greedily and the
    score is matched / max(expected, made), so calls that nobody asked for cost credit.
    """
    gold = read_reference(reference, Reference)
    answer = final_answer(text)
    if gold.family == "irrelevance":
        return _without_calls(gold, answer)
    written = calls_text(answer)
    if not written:
        return NO_ANSWER
    if len(written) > MAX_CHARS:
        return failed("unparsable", f"longer than {MAX_CHARS} characters")
    try:
        calls = _parse(written)
    except (msgspec.DecodeError, RecursionError) as error:  # a ValidationError is a DecodeError
        return failed("unparsable", str(error))
    if not calls:
        return NO_ANSWER
    met = _num_matched(gold, calls)
    if gold.family.startswith("parallel") and len(gold.answer) > 1:
        expected = max(len(gold.answer), len(calls))
        return share(met, expected, f"{met} of {len(gold.answer)} calls match, {len(calls)} made")
    if len(calls) != len(gold.answer):
        return failed("wrong", f"{len(calls)} calls made, {len(gold.answer)} expected")
    return CORRECT if met == len(gold.answer) else failed("wrong", "another call")


def self_check(reference: dict[str, Any]) -> None:
    """InputError unless the expected calls, written out, are accepted."""
    try:
        verdict = verify(reference, gold_text(reference))
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(f"reference: the checker cannot read these functions: {error!r}") from error
    if not verdict.success:
        raise InputError(f"reference: the expected calls do not verify: {verdict.detail or verdict.status}")


def gold_text(reference: dict[str, Any]) -> str:
    """The expected calls as a model would write them, with the first allowed value of each argument.

    A sentence where no call is expected. InputError when the answers do not fit the functions.
    """
    gold = read_reference(reference, Reference)
    if gold.family == "irrelevance":
        return _NONE_FITS
    try:
        return msgspec.json.encode([_example(gold, answer) for answer in gold.answer]).decode()
    except (KeyError, TypeError, AttributeError, StopIteration) as error:
        raise InputError(f"reference: the answers do not fit the functions: {error!r}") from error


def warm_up() -> None:
    """Imports the checker from its wheel."""
    _checker()


def _without_calls(gold: Reference, answer: str) -> Verdict:
    if not has_word(answer):
        return NO_ANSWER
    called = calls_something(answer, (function.name for function in gold.functions))
    return failed("wrong", "no call fits") if called else CORRECT


def _parse(written: str) -> list[Call]:
    if written.startswith("{"):
        return [msgspec.json.decode(written, type=Call)]
    return msgspec.json.decode(written, type=list[Call])


def _num_matched(gold: Reference, calls: list[Call]) -> int:
    """Expected calls that some call matches, each call used once, in order."""
    matches = _checker()
    functions = {function.name: function for function in gold.functions}
    left = list(calls)
    for answer in gold.answer:
        (name,) = answer
        schema = msgspec.to_builtins(functions[name])
        for call in left:
            if matches(schema, call, answer, gold.language):
                left.remove(call)
                break
    return len(calls) - len(left)


@cache
def _checker() -> Matches:
    """Whether one call fits one expected call, by bfcl-eval's ast_checker.

    Its import reaches sixty vendor clients through one module, from which it reads one attribute: a
    stub stands in. The attribute says that dots in function names are written as underscores.
    """
    stub = types.ModuleType("bfcl_eval.constants.model_config")
    settings = types.SimpleNamespace(underscore_to_dot=True)
    stub.__dict__["MODEL_CONFIG_MAPPING"] = {_MODEL: settings}
    sys.path.append(str(wheel_path("bfcl-eval")))
    try:
        importlib.import_module("bfcl_eval.constants")
        sys.modules[stub.__name__] = stub
        checker = importlib.import_module("bfcl_eval.eval_checker.ast_eval.ast_checker")
        languages = importlib.import_module("bfcl_eval.constants.enums").Language
    finally:
        sys.path.pop()

    def matches(schema: dict[str, Any], call: Call, answer: dict[str, Any], language: str) -> bool:
        written = {call.name.replace(".", "_"): call.arguments}
        found = checker.ast_checker([schema], [written], [answer], languages[language], "simple", _MODEL)
        return found["valid"]

    return matches


def _example(gold: Reference, answer: dict[str, dict[str, list[Any]]]) -> Call:
    """The expected call with the first allowed value of each argument that needs one."""
    ((name, allowed),) = answer.items()
    function = next(function for function in gold.functions if function.name == name)
    arguments = {}
    for argument, values in allowed.items():
        schema = function.parameters.properties[argument]
        if any(value != "" for value in values) and (
            "" not in values or argument in function.parameters.required
        ):
            value = _first(values, schema)
            arguments[argument] = (
                value if gold.language == "PYTHON" else literal(value, schema, gold.language)
            )
    return Call(name.replace(".", "_"), arguments)


def _first(values: list[Any], schema: dict[str, Any]) -> Any:
    """The first allowed value; the fields of an expected object hold lists of allowed values themselves."""
    value = next(value for value in values if value != "")
    if schema["type"] in ("dict", "HashMap") and isinstance(value, dict):
        return _object(value)
    if schema["type"] in ("array", "tuple") and schema.get("items", {}).get("type") == "dict":
        return [_object(item) if isinstance(item, dict) else item for item in value]
    return value


def _object(fields: dict[str, list[Any]]) -> dict[str, Any]:
    return {
        field: next(value for value in values if value != "")
        for field, values in fields.items()
        if "" not in values
    }
