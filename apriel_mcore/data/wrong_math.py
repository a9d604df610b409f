r"""Which answers to a problem of mathematics are wrong for certain, whatever its gold looks like?

    12 | (1, 2) | \begin{pmatrix} 1 \\ 2 \end{pmatrix} | 1.6 \times 10^{-19} | 101_2 | 5 \text{ cm}^2 | x^2

Each form has changes of its own; a form that a gold does not have adds none, and nothing is guessed.
"""

import re
from collections.abc import Iterator
from fractions import Fraction

from apriel_mcore.verify.latex import respell
from apriel_mcore.verify.numerals import bases, exact_number
from apriel_mcore.verify.units import measure

_TUPLE = re.compile(r"\(([^(),]+(?:,[^(),]+)+)\)")
_MATRIX = re.compile(r"(\\begin\{([pbB]matrix)\}) ?(.+?) ?(\\end\{\2\})")
_POWER = re.compile(r"([A-Za-z]|(?<![\d.^_])\d+) ?\^ ?(?:\{(-?\d+)\}|(\d))")
_BASE = re.compile(r"\(?([\dA-Z]+)\)?_ ?\{?(\d+)\}?")
_SUM = re.compile(r"([A-Za-z\d]+) ?([+-]) ?([A-Za-z\d]+) ?([+-]) ?([A-Za-z\d]+)")
_FACTORS = re.compile(r"([A-Za-z\d]+) ?\(([^()]+)\)")
_NAMED = re.compile(r"([A-Za-z]) ?= ?([^=<>,]+)")
_LENGTHS = ("cm", "m", "km")
_NO_UNITS = (
    *(
        "is wrong",
        "is false",
        "cannot be",
        "negative",
        "halves",
        "thirds",
        "tenths",
        "square root",
        "doubled",
    ),
    *("over two", "except zero", "maybe", "not", "isn't", "twice", "hundredths", "fold", "squared", "or so"),
    *("wrong", "a wrong answer", "lakh", "too small", "at most"),
)
"""Texts that change, deny or doubt the number before them."""


def answers(gold: str) -> list[str]:
    """LaTeX of other values than the gold's, without a box; empty where no change is certain."""
    text = respell(gold)
    quantity, unit = measure(text)
    value = exact_number(text)
    found = [*_other_places(text), *_other_matrices(text), *_other_power(quantity)]
    found += [*_other_chains(text), *_broken_brackets(text)]
    if bases(text):
        return [*found, *_other_bases(text)]
    if unit:
        found += _other_units(quantity, unit)
    return found if value is None else [*found, *_other_numbers(value)]


def _other_numbers(value: Fraction) -> Iterator[str]:
    yield from (str(value + 1), str(value - 1), str(value * 10 + 3), f"{value + 1}/7", f"{value}.5")
    yield from (f"\\{{{value},{value + 1}\\}}", f"({value},{value})", f"\\sqrt{{{value * value + 1}}}")
    yield from (f"{value}{value + 1}", f"{value}+1", f"{value} \\text{{ or }} {value + 1}", "", "x")
    yield from (
        f"{value}={value + 1}",
        f"{value + 1}={value}",
        f"x=y={value}",
        f"{value} \\text{{ or more}}",
        f"{value}+x-x",
    )
    if value not in (0, 1):  # of which the double or the square may be the same
        yield from (f"{value} \\text{{ {words}}}" for words in _NO_UNITS)
    digits = str(value)
    if digits.isdecimal() and len(digits) > 1:
        yield from (f"{digits[0]}{bracket}{digits[1:]}" for bracket in "([)]")
    if value != 0:
        yield from (f"{value}x", str(-value), str(value * 2), f"{value}^2+1", f"{value}\\text{{ million}}")
        yield f"{value} \\cdot 10^{{-30}}"
    if value.denominator == 1 and value > 1 and max(str(value)) < "9" and len(str(value)) > 1:
        yield f"{value}_9"


def _other_places(text: str) -> Iterator[str]:
    """A tuple with two unequal neighbours swapped, one more entry, one less, and as a set."""
    match = _TUPLE.fullmatch(text)
    if match is None:
        return
    parts = [part.strip() for part in match[1].split(",")]
    yield f"({','.join([*parts, '7'])})"
    if len(parts) > 2:
        yield f"({','.join(parts[:-1])})"
    yield f"\\{{{','.join(parts)}\\}}"
    for index in range(len(parts) - 1):
        if _differ(parts[index], parts[index + 1]):
            swapped = [*parts[:index], parts[index + 1], parts[index], *parts[index + 2 :]]
            yield f"({','.join(swapped)})"


def _other_matrices(text: str) -> Iterator[str]:
    """Rows upside down, transposed, on one line, and with one entry changed."""
    match = _MATRIX.fullmatch(text)
    if match is None:
        return
    rows = [[cell.strip() for cell in row.split("&")] for row in match[3].split(r"\\")]
    turned = [list(column) for column in zip(*rows, strict=False)]
    numbers = [[exact_number(cell) for cell in row] for row in rows]
    if any(number is None for row in numbers for number in row) or len({len(row) for row in rows}) > 1:
        return
    changed = [
        [f"{cell}+1" if (i, j) == (0, 0) else cell for j, cell in enumerate(row)]
        for i, row in enumerate(rows)
    ]
    others = [changed, [*rows, rows[0]]]
    if numbers != numbers[::-1]:
        others.append(rows[::-1])
    if numbers != [list(column) for column in zip(*numbers, strict=True)]:
        others.append(turned)
    if len(rows) > 1:
        others.append([[cell for row in rows for cell in row]])
    for other in others:
        yield f"{match[1]} {r' \\ '.join(' & '.join(row) for row in other)} {match[4]}"


def _other_chains(text: str) -> Iterator[str]:
    """`x = 5` with a false side, and with another name, between its two."""
    match = _NAMED.fullmatch(text)
    value = exact_number(match[2].strip()) if match else None
    if match is None or value is None:
        return
    other = "y" if match[1] != "y" else "z"
    yield from (f"{match[1]}={value + 2}={match[2]}", f"{match[1]}={other}={match[2]}")
    yield from (f"{match[1]}={match[2]}={value + 1}", f"{match[1]}={other}={value + 1}={match[2]}")


def _broken_brackets(text: str) -> Iterator[str]:
    """Half a pair within the expression: no value, and not that of the rest."""
    if match := _SUM.fullmatch(text):
        first, sign, second, other_sign, third = match.groups()
        yield from (f"{first}{sign}{bracket}{second}{other_sign}{third}" for bracket in "([")
        yield f"{first}{sign}{second}){other_sign}{third}"
    if match := _FACTORS.fullmatch(text):
        yield from (f"{match[1]}{bracket}{match[2]}" for bracket in "([)")


def _other_power(text: str) -> Iterator[str]:
    """The only power of a letter or a number in it with another exponent."""
    found = list(_POWER.finditer(text))
    if len(found) != 1 or text.count("^") != 1 or found[0][1] in ("0", "1", "e", "i"):
        return
    match = found[0]
    exponent = int(match[2] or match[3])
    for other in (exponent + 1, exponent - 1, exponent - 40, -exponent):
        if other != exponent:
            yield f"{text[: match.start()]}{match[1]}^{{{other}}}{text[match.end() :]}"


def _other_bases(text: str) -> Iterator[str]:
    """The same digits in the next bases, and without one; the value in base ten without saying so."""
    match = _BASE.fullmatch(text)
    if match is None or len(match[1]) < 2:
        return
    digits, base = match[1], int(match[2])
    if base == 10:
        return
    yield from (f"{digits}_{{{base + more}}}" for more in (1, 2, 5))
    yield digits
    yield str(int(digits, base))


def _other_units(quantity: str, unit: str) -> Iterator[str]:
    """In another unit, or in another power of the same one."""
    base, _, power = unit.partition("^")
    yield f"{quantity} \\text{{ {base}}}^{int(power or 1) + 1}"
    yield from (f"{quantity} \\text{{ {other}}}" for other in _LENGTHS if other != unit)
    yield from (f"{quantity} {other}" for other in ("kg", "mL") if other != unit)


def _differ(left: str, right: str) -> bool:
    numbers = exact_number(left), exact_number(right)
    return None not in numbers and numbers[0] != numbers[1]
