"""Function-calling rows: joined by id, shown as JSON Schema, with golds that verify."""

import pytest

from apriel_mcore.config.schema import BfclSource
from apriel_mcore.data.item import Item
from apriel_mcore.data.layouts import bfcl
from apriel_mcore.data.wheels import wheel_path
from apriel_mcore.errors import InputError
from apriel_mcore.verify import calls


@pytest.fixture(autouse=True, scope="module")
def _wheel() -> None:
    try:
        wheel_path("bfcl-eval")
    except InputError as error:
        pytest.skip(str(error))


def test_parallel_rows_verify_and_show_the_names_that_calls_must_use() -> None:
    found = [item for _, item in bfcl.read(BfclSource(categories=("parallel",)))]
    assert len(found) == 200
    items = [item for item in found if isinstance(item, Item)]
    assert len(items) >= 199
    assert all(calls.verify(item.reference, item.reference["gold"]).success for item in items[:50])
    for item in items:
        for tool in item.tools:
            assert "." not in tool["function"]["name"]
            assert tool["function"]["parameters"]["type"] == "object"


def test_questions_that_no_function_answers_verify_without_a_call() -> None:
    found = [item for _, item in bfcl.read(BfclSource(categories=("irrelevance", "live_irrelevance")))]
    items = [item for item in found if isinstance(item, Item)]
    assert (len(found), len(items)) == (1124, 1120)  # four rows offer no function
    for item in items[::40]:
        assert calls.verify(item.reference, item.reference["gold"]).success
        assert calls.verify(item.reference, "").status == "no_answer"


def test_java_arguments_are_shown_as_texts() -> None:
    found = [item for _, item in bfcl.read(BfclSource(categories=("simple_java",)))]
    item = next(item for item in found if isinstance(item, Item))
    properties = item.tools[0]["function"]["parameters"]["properties"]
    assert {shown["type"] for shown in properties.values()} == {"string"}
    assert all("Written as a Java" in shown["description"] for shown in properties.values())
