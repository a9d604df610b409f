"""Languages are told apart, in capitals too, and doubt is no language."""

import json
from pathlib import Path

import pytest

from apriel_mcore.verify.instruction.language import CANDIDATES, LanguageCode, all_capitals, language_of

SENTENCES = json.loads((Path(__file__).parents[2] / "agreement" / "languages.json").read_text("utf-8"))
CODES = LanguageCode.__args__


def test_every_language_that_prompts_ask_for_is_told() -> None:
    assert SENTENCES.keys() | {"en"} == set(CODES) <= set(CANDIDATES)
    for code, sentences in SENTENCES.items():
        assert language_of(" ".join(sentences)) == code


def test_capitals_are_read_as_small_letters() -> None:
    text = "HOW MANY APPLES DID THE CHILDREN BRING HOME ON THAT DAY?"
    assert language_of(text) == "en" and all_capitals(text)
    assert not all_capitals("WIE VIELE BIRNEN HABEN DIE KINDER AN DIESEM TAG NACH HAUSE GEBRACHT?")


@pytest.mark.parametrize("text", ["", "1 2 3 4", "...", "x = 3", "zq"])
def test_doubt_is_no_language(text: str) -> None:
    assert language_of(text) == "und"
