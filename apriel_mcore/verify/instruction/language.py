"""In which language is a text? Asked of py3langid, which has no randomness; doubt counts as no language.

Text in capitals is judged as if it were not, by the library itself. Text without letters, and text of which
the library is not sure, is in no language: it keeps no constraint on its language.
"""

from functools import cache
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from py3langid.langid import LanguageIdentifier

MIN_CONFIDENCE = 0.5
UNKNOWN = "und"

LanguageCode = Literal[
    "ar", "bg", "bn", "de", "en", "es", "fa", "fi", "fr", "gu", "he", "hi", "it", "ja", "kn",
    "ko", "ml", "mr", "ne", "pa", "pl", "pt", "ru", "sw", "ta", "te", "th", "uk", "ur", "vi",
]  # fmt: skip
"""Those that prompts ask for, by ISO 639-1."""

CANDIDATES = (
    "af", "ar", "bg", "bn", "ca", "cs", "cy", "da", "de", "el", "en", "es", "et", "fa", "fi", "fr", "gu",
    "he", "hi", "hr", "hu", "id", "it", "ja", "kn", "ko", "lt", "lv", "mk", "ml", "mr", "ne", "nl", "no",
    "pa", "pl", "pt", "ro", "ru", "sk", "sl", "so", "sq", "sv", "sw", "ta", "te", "th", "tl", "tr", "uk",
    "ur", "vi", "zh",
)  # fmt: skip
"""What a text may be taken for: large languages, without varieties that short texts cannot tell apart."""


def language_of(text: str) -> str:
    """ISO 639-1 code, or `und`."""
    if not any(map(str.isalpha, text)):
        return UNKNOWN
    code, _ = _identifier().classify(text)
    return code


def in_language(answer: str, *, language: LanguageCode) -> bool:
    """Written in that language."""
    return language_of(answer) == language


def all_capitals(answer: str) -> bool:
    """English, and no lower-case letter."""
    return answer.isupper() and language_of(answer) == "en"


def all_lowercase(answer: str) -> bool:
    """English, and no capital letter."""
    return answer.islower() and language_of(answer) == "en"


@cache
def _identifier() -> "LanguageIdentifier":
    from py3langid.langid import MODEL_FILE, LanguageIdentifier  # 0.3 s, and only where somebody asks

    identifier = LanguageIdentifier.from_model_file(
        MODEL_FILE, norm_probs=True, min_confidence=MIN_CONFIDENCE
    )
    identifier.set_languages(CANDIDATES)
    return identifier
