r"""Which unit does an answer carry, and what is measured in it?

    5 \text{ cm}^2 | 5~kg | \$5 | 30^\circ | 50\% | 5 \text{ million dollars}  --measure--> (quantity, unit)

A unit is set aside after a number: by its name in the tables below, or in upright text by any other name of
counted things (verify/counted.py). Words that change or deny the number stay in the quantity, and so do
letters that may as well be variables (`5m`, `2\mathbf{i}`).
"""

import re
from typing import NamedTuple

from apriel_mcore.verify.counted import names_things
from apriel_mcore.verify.numerals import exact_number

PERCENT = "%"

_SHORT = "m cm mm km g kg mg s min h L mL ft yd lb oz mph rad"
"""Unit symbols; those of one letter need a space before them where they stand outside of text."""

_NAMES = {
    "meter": "m",
    "metre": "m",
    "centimeter": "cm",
    "centimetre": "cm",
    "millimeter": "mm",
    "millimetre": "mm",
    "kilometer": "km",
    "kilometre": "km",
    "gram": "g",
    "kilogram": "kg",
    "second": "s",
    "sec": "s",
    "minute": "min",
    "hour": "h",
    "hr": "h",
    "liter": "L",
    "litre": "L",
    "foot": "ft",
    "feet": "ft",
    "yard": "yd",
    "inch": "in",
    "inches": "in",
    "pound": "lb",
    "ounce": "oz",
    "radian": "rad",
    "degree": "deg",
    "percent": PERCENT,
    "percentage": PERCENT,
    "pct": PERCENT,
    "dollar": "dollar",
    "cent": "cent",
    "euro": "euro",
    "mile": "mile",
    "day": "day",
    "week": "week",
    "month": "month",
    "year": "year",
    "unit": "unit",
}
_SCALES = {"hundred": 10**2, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
_SCALES |= {"dozen": 12, "lakh": 10**5, "crore": 10**7}
_POWERS = {"square": "2", "sq": "2", "cubic": "3", "cu": "3"}
_POWERS_AFTER = {"squared": "2", "cubed": "3"}
_CURRENCIES = {r"\$": "dollar", "\N{EURO SIGN}": "euro", r"\euro": "euro"}
_KNOWN = {"per": "/"} | {symbol: symbol for symbol in _SHORT.split()} | {"in": "in"} | _NAMES
_POWER = r" ?(?:\^ ?\{? ?(-?\d+) ?\}?)?"
_TEXT = re.compile(rf"(.*[^ \\]) ?\\(?:text|textrm|mbox) ?\{{([^{{}}]*)\}}{_POWER}")
_FONT = re.compile(
    rf"(.*[^ \\]) ?\\(?:mathrm|textbf|textit|mathbf|mathit|mathsf|operatorname) ?\{{([^{{}}]*)\}}{_POWER}"
)
_BARE = re.compile(rf"(.*[\d)}}]) ([A-Za-z]{{2,}}(?:(?: ?/ ?| )[A-Za-z]+)*){_POWER}")
_LETTER = re.compile(rf"([+-]?[\d.,]+) ([A-Za-z](?: ?/ ?[A-Za-z]+)?){_POWER}")
_STUCK = re.compile(rf"([+-]?[\d.,/]*\d)({'|'.join(w for w in _KNOWN if len(w) > 1)}){_POWER}")
_DEGREES = re.compile(
    r"(.*[\d)}]) ?(?:\^ ?\{? ?\\circ ?\}?|\\degree|\N{DEGREE SIGN})"
    r" ?(?:\\(?:text|mathrm) ?\{ ?([CF]) ?\}|([CF]))?"
)
_PERCENT = re.compile(r"(.*[\d)}]) ?\\?%")
_SIGN = re.compile(
    r"(.*[^ \\]) ?\\(?:text|textrm|mbox|mathrm) ?\{ ?(\\?%|\\\$|\N{EURO SIGN}|\N{DEGREE SIGN} ?[CF]?) ?\}"
)
_PRODUCT = re.compile(r"(\\(text|textrm|mbox|mathrm) ?\{[^{}]*)\} ?(/|\\cdot|) ?\\\2 ?\{")
_INVERSE = re.compile(
    r"(.*\\(text|textrm|mbox|mathrm) ?\{[^{}]*)\} ?(?:\\cdot|) ?\\\2 ?\{([^{}]*)\} ?\^ ?\{? ?-1 ?\}?"
)
_BRACED = re.compile(r"(\\text ?\{[^{}]*\^) ?\{ ?(-?\d) ?\} ?\}")
_POWER_WITHIN = re.compile(r"([^^]*[^^ ]) ?\^ ?(-?\d)")
_NOTE = re.compile(r"\(([^()]*)\)")
_FUNCTION = re.compile(r"\\(?:sin|cos|tan|cot|sec|csc|log|ln|arc)")


class Measure(NamedTuple):
    quantity: str
    unit: str
    """One spelling for each; empty where none is."""


def measure(text: str, *, as_said: bool = False) -> Measure:
    """The parts of a respelled answer. Text that stands alone is an answer, not a unit.

    `as_said`: whatever words follow are the unit; only for two answers that say the same ones.
    """
    if match := _SIGN.fullmatch(text):
        text = f"{match[1]} {match[2]}"
    for symbol, name in _CURRENCIES.items():
        sign = text[:1] if text[:1] in ("+", "-") else ""
        rest = text[len(sign) :].strip()
        if rest.startswith(symbol):
            return _scaled(sign + rest.removeprefix(symbol).strip(), name)
        if rest.endswith(symbol):
            return Measure(text.removesuffix(symbol).strip(), name)
    if match := _PERCENT.fullmatch(text):
        return Measure(match[1].strip(), PERCENT)
    if (match := _DEGREES.fullmatch(text)) and not _FUNCTION.search(text):
        return Measure(match[1].strip(), "deg" + (match[2] or match[3] or ""))
    joined = _in_one_text(text)
    if match := _TEXT.fullmatch(joined):
        return _measured(text, match[1], match[2], match[3], any_word=True, as_said=as_said)
    for form in (_FONT, _BARE, _LETTER, _STUCK):
        if match := form.fullmatch(joined):
            is_words = form is _BARE and all(len(word) > 3 for word in match[2].split())
            return _measured(text, match[1], match[2], match[3], any_word=is_words, as_said=as_said)
    return Measure(text, "")


def _scaled(text: str, unit: str) -> Measure:
    """A sum of money may be in millions, and name its currency twice."""
    inner = measure(text)
    if inner.unit.startswith("/"):  # `\$7 per hour`
        return Measure(inner.quantity, unit + inner.unit)
    return Measure(inner.quantity, unit) if inner.unit in ("", unit) else Measure(text, unit)


def _in_one_text(text: str) -> str:
    r"""`\text{ m} \cdot \text{s}^{-1}` and `\text{ m}/\text{s}` as `\text{ m/s}`."""
    text = _BRACED.sub(r"\1\2}", text)
    if match := _INVERSE.fullmatch(text):
        text = f"{match[1]}/{match[3]}}}"
    return _PRODUCT.sub(lambda match: match[1] + ("/" if match[3] == "/" else " "), text)


def _measured(
    text: str, quantity: str, words: str, power: str | None, *, any_word: bool, as_said: bool
) -> Measure:
    quantity, words = quantity.strip(), words.strip()
    if within := _POWER_WITHIN.fullmatch(words):
        words, power = within[1], within[2]
    names, notes = _names(words)
    if not names or quantity[-1:] in tuple("=+-*/^_(,{["):
        return Measure(text, "")
    if names[0].lower() in _SCALES and (number := exact_number(quantity)) is not None:
        quantity, names = str(number * _SCALES[names[0].lower()]), names[1:]
    if not names:
        return Measure(quantity, "")
    if len(names) > 1 and _symbol(names[-2]) and names[-1].lower() in _POWERS_AFTER:
        names, power = names[:-1], _POWERS_AFTER[names[-1].lower()]
    known = all(name == "/" or _symbol(name) or name.lower() in _POWERS for name in names + notes)
    is_name = known or (any_word and names_things(_as_words(names + notes)))
    is_whole = names[-1].lower() not in _POWERS  # `7 square` waits for what is squared
    is_raised = power and not known and (power.startswith("-") or len(names[-1]) > 3)  # `apples^2`
    if (not is_name or not is_whole or is_raised) and not (any_word and as_said):
        return Measure(text, "")
    return Measure(quantity, _unit(names, power))


def _names(words: str) -> tuple[list[str], list[str]]:
    """The words of a unit and those in brackets after it: `pounds (lbs)`; a lone `(lbs)` is the unit."""
    words = words.replace("(s)", "s").replace("(es)", "es").replace(".", "").rstrip("!,;: ")
    notes = [word for note in _NOTE.findall(words) for word in note.split()]
    names: list[str] = _NOTE.sub(" ", words).replace("/", " / ").replace(", ", " ").split()
    names = ["/" if name in ("a", "an") and 0 < i < len(names) - 1 else name for i, name in enumerate(names)]
    return (names, notes) if names else (notes, [])


def _as_words(names: list[str]) -> list[str]:
    """Without strokes, and with every unit of the table as the word: `m of rope` has no variable."""
    return ["units" if _symbol(name) else name for name in names if name != "/"]


def _symbol(name: str) -> str:
    """The table's symbol for a unit's name; short symbols keep their case: mW is not MW."""
    if len(name) > 2:
        name = name.lower()
    return _KNOWN.get(name) or _KNOWN.get(name.removesuffix("s") if len(name) > 2 else name, "")


def _unit(names: list[str], power: str | None) -> str:
    r"""`square meters`, `m^2` and `\text{m}^2` are one unit; so are `km per h` and `km/h`."""
    if names[0].lower() in _POWERS and len(names) > 1:
        power = _POWERS[names[0].lower()]
        names = names[1:]
    found: list[str] = []
    for name in names:
        lower = name.lower() if len(name) > 2 else name
        symbol = "/" if name == "/" else _symbol(name) or lower.removesuffix("s")
        found.append(symbol)
    unit = " ".join(found).replace(" /", "/").replace("/ ", "/")
    return unit if power in (None, "", "1") else f"{unit}^{power}"
