"""Numbers and dates, computed again from the question."""

import calendar
import re
from collections.abc import Callable
from datetime import date, datetime, timedelta
from decimal import ROUND_HALF_UP, Context, Decimal
from fractions import Fraction
from itertools import product
from math import acos, degrees, dist, gcd, isclose, lcm, prod

import sympy
from dateutil import parser

DAYS = list(calendar.day_name)


def value(expression: str, **names: Fraction) -> Fraction:
    """Exact: every decimal becomes a fraction."""
    exact = re.sub(r"(?<![\w.])\d+(?:\.\d+)?", lambda found: f"F('{found[0]}')", expression)
    exact = re.sub(r"\*\*F\('(\d+)'\)", r"**\1", exact)
    return Fraction(eval(exact, {"F": Fraction, **names}))


def after(text: str, mark: str) -> str:
    return text.rsplit(mark, 1)[1].strip()


def integers(text: str) -> list[int]:
    return [int(number) for number in re.findall(r"-?\d+", text)]


def is_prime(number: int) -> bool:
    return number > 1 and all(number % divisor for divisor in range(2, int(number**0.5) + 1))


def expression(question: str, gold: str) -> bool:
    """The one in the last line with digits; after a colon, before = and a question mark or full stop."""
    line = [line for line in question.replace(". Give", "\n").splitlines() if re.search(r"\d", line)][-1]
    text = re.sub(r"^.*?(?:Calculate|:) ", "", line).strip()
    return value(text.rstrip(" .=?")) == Fraction(gold)


def decimal_arithmetic(question: str, gold: str) -> bool:
    exact = value(question.splitlines()[-1].rstrip(" =?"))
    context = Context(prec=12, rounding=ROUND_HALF_UP)
    return context.divide(Decimal(exact.numerator), Decimal(exact.denominator)) == Decimal(gold)


def bitwise_arithmetic(question: str, gold: str) -> bool:
    return eval(question.splitlines()[-1], {}) == int(gold, 16)


def base_conversion(question: str, gold: str) -> bool:
    named = {"binary": "base-2", "hexadecimal": "base-16"}
    text = re.sub("|".join(named), lambda found: named[found[0]], after(question, "convert the "))
    source, number, target = re.fullmatch(r"base-(\d+) number (\w+) to base-(\d+)", text).groups()
    return int(number, int(source)) == int(gold, int(target))


def fraction_simplification(question: str, gold: str) -> bool:
    (above, below), (num, den) = integers(question)[:2], integers(gold)
    return Fraction(above, below) == Fraction(num, den) and gcd(num, den) == 1


def prime_factorization(question: str, gold: str) -> bool:
    factors = integers(gold)
    return prod(factors) == integers(question)[0] and all(map(is_prime, factors))


def count_primes(question: str, gold: str) -> bool:
    first, last = integers(question)
    return sum(map(is_prime, range(first, last + 1))) == int(gold)


def equation(question: str, gold: str) -> bool:
    """A linear one: the gold solves it, another number does not."""
    name, left, right = re.search(r"(?:for|of) (\w)\b.*?: (.*) = (.*)", question).groups()
    at = [value(f"({left})-({right})", **{name: Fraction(gold) + more}) for more in (0, 1)]
    return at[0] == 0 != at[1]


def polynomial_equations(question: str, gold: str) -> bool:
    found = re.search(r"(?:real|of) (?:value\(s\) of )?(\w)\b.*?:\s*(.*) = (.*)", question)
    name, left, right = found.groups()
    roots = sorted(set(sympy.real_roots(sympy.sympify(f"({left})-({right})"), sympy.Symbol(name))))
    answers = sorted(map(float, filter(str.strip, gold.split(","))))
    pairs = zip(roots, answers, strict=False)
    return len(roots) == len(answers) and all(abs(float(root) - answer) < 1e-4 for root, answer in pairs)


def power_function(question: str, gold: str) -> bool:
    """To the three digits it asks for; -a^b is -(a^b) to some and (-a)^b to others."""
    base, power = re.search(r"(-?[\d.]+)\^(-?\d+)", question).groups()
    readings = {float(Fraction(base) ** int(power)), -float(Fraction(base.strip("-")) ** int(power))}
    right = readings if base.startswith("-") else {float(Fraction(base) ** int(power))}
    return all(isclose(float(gold), reading, rel_tol=5e-3) for reading in right)


def simple_geometry(question: str, gold: str) -> bool:
    """The sum of angles, and a convex polygon."""
    sides = integers(question)[0]
    angles = [Fraction(text) for text in re.findall(r"([\d.]+)\N{DEGREE SIGN}", question)]
    return sum(angles) + Fraction(gold) == 180 * (sides - 2) and 0 < Fraction(gold) < 180


def advanced_geometry(question: str, gold: str) -> bool:
    """Three decimals; two of an angle, where the judge reads no more."""
    points = re.findall(r"[ABC]=\((-?\d+), (-?\d+)\)", question)
    corner = [tuple(map(int, point)) for point in points]
    (ax, ay), (bx, by), (cx, cy) = corner
    a, b, c = dist(corner[1], corner[2]), dist(corner[0], corner[2]), dist(corner[0], corner[1])
    area2 = abs((bx - ax) * (cy - ay) - (by - ay) * (cx - ax))
    if "incircle" in question:
        right = [area2 / (a + b + c)]
    elif "angle" in question.split("For all")[0].replace("triangle", ""):
        right = [degrees(acos((a * a + c * c - b * b) / (2 * a * c)))]
    else:
        x, y = sympy.symbols("x y")
        altitudes = [(x - ax) * (cx - bx) + (y - ay) * (cy - by), (x - bx) * (cx - ax) + (y - by) * (cy - ay)]
        solved = sympy.solve(altitudes, (x, y))
        right = [float(solved[x]), float(solved[y])]
    shown = [float(text) for text in re.findall(r"-?\d+(?:\.\d+)?", gold)]
    half = 5.1e-3 if gold.endswith("\N{DEGREE SIGN}") else 5.1e-4
    return all(abs(one - other) <= half for one, other in zip(right, shown, strict=True))


def dice(question: str, gold: str) -> bool:
    sizes = [int(size) for size in re.findall(r"1d(\d+)", question.split("(")[0])]
    least = int(re.search(r"rolling (\d+)", question)[1])
    ways = sum(sum(roll) >= least for roll in product(*(range(1, size + 1) for size in sizes)))
    return Fraction(ways, prod(sizes)) == Fraction(gold) and str(Fraction(gold)) == gold


def number_format(question: str, gold: str) -> bool:
    """The extreme one as written, to the thousandth: they come with rounding errors."""
    size, shown = re.search(r"the (\w+) (?:number )?of the following candidates: (.*)", question).groups()
    numbers = [float(text.replace(",", "")) for text in shown.split()]
    return abs((max if size == "largest" else min)(numbers) - float(gold)) < 1e-3


def number_filtering(question: str, gold: str) -> bool:
    pattern = r"(Keep|Remove) all numbers (larger|smaller) than (\S+) in this list: (\[.*\])"
    verb, side, limit, shown = re.search(pattern, question).groups()
    beyond = {
        text
        for text in eval(shown)
        if (Decimal(text) > Decimal(limit) if side == "larger" else Decimal(text) < Decimal(limit))
    }
    return [text for text in eval(shown) if (text in beyond) == (verb == "Keep")] == eval(gold)


def number_sequence(question: str, gold: str) -> bool:
    """Whether no x -> ax + b + c times the one before, |a|, |c| <= 3, continues it in another way."""
    terms = integers(question)
    found: set[int] = set()
    for a, c in product(range(-3, 4), repeat=2):
        triples = zip(terms, terms[1:], terms[2:], strict=False)
        steps = {then - a * now - c * before for before, now, then in triples}
        if len(steps) == 1:
            found.add(a * terms[-1] + c * terms[-2] + steps.pop())
    return not found - {int(gold)}


def time_intervals(question: str, gold: str) -> bool:
    """Times of a day, days, or both, with zones where they are told."""
    asked = re.split(r"(?:[.?] (?:Please answer|Answer|Express|Give))", question)[0]
    parts = re.split(r"(?:from|between|started at|began at|departed at) ", asked, maxsplit=1)[1]
    start, end = re.split(r" (?:and ended at|and completed at|and arrived at|and|to) ", parts, maxsplit=1)
    times = [parser.parse(re.sub(r"\(\w+\)", "", text.split(". ")[0].split("?")[0])) for text in (start, end)]
    days, clock = re.fullmatch(r"(?:(\d+) days?)?(?:, )?([\d:.]*)", gold).groups()
    h, m, s = [*map(Fraction, clock.split(":") if clock else ["0", "0"]), Fraction(0)][:3]
    told = int(days or 0) * 86400 + h * 3600 + m * 60 + s
    apart = times[1] - times[0]
    return told == Fraction(apart // timedelta(microseconds=1), 10**6)


def calendar_arithmetic(question: str, gold: str) -> bool:
    """False too where the year is not told and matters, and where a span ends before it starts."""
    months, weekdays = "|".join(calendar.month_name[1:]), "|".join(DAYS)
    if found := re.search(r"(\d{4}) (?:is )?a leap year", question):
        return calendar.isleap(int(found[1])) == (gold == "Yes")
    if "ordinal does not exist" in question:
        return ordinal_day(question, months, weekdays) == int(gold)
    if re.search("first day of the year|January 1 fell|is January 1st", question):
        return (
            weekday_of(question, months, weekdays, 2022)
            == gold
            == weekday_of(question, months, weekdays, 2024)
        )
    if found := re.search(r"(\d\d)/(\d\d)/(\d{4})", question):
        return DAYS[date(int(found[3]), int(found[1]), int(found[2])).weekday()] == gold
    years = re.findall(r"\b\d{4}\b", question)
    stamps = zip(re.findall(rf"({months}) (\d+)", question), years + years, strict=False)
    first, *last = [
        datetime.strptime(f"{month} {day} {year}", "%B %d %Y").date() for (month, day), year in stamps
    ]
    if found := re.search(r"(\d+)[- ]days?\b", question):
        sign = -1 if re.search("ago|before|ackward", question) else 1
        return DAYS[(first + timedelta(days=int(found[1]) * sign)).weekday()] == gold
    if not last:
        return DAYS[first.weekday()] == gold
    span = [first + timedelta(days=n) for n in range((last[0] - first).days + 1)]
    if re.search("business|weekends|weekdays", question):
        return sum(day.weekday() < 5 for day in span) == int(gold)
    pattern = rf"many ({weekdays})s|ccurrences of ({weekdays})|does ({weekdays}) occur"
    asked = next(filter(None, re.search(pattern, question).groups()))
    return sum(DAYS[day.weekday()] == asked for day in span) == int(gold)


def ordinal_day(question: str, months: str, weekdays: str) -> int:
    month, year = re.search(rf"({months}) (\d{{4}})", question).groups()
    which, day = re.search(rf"(first|second|third|fourth|last) ({weekdays})", question).groups()
    number = list(calendar.month_name).index(month)
    dates = [date(int(year), number, n + 1) for n in range(calendar.monthrange(int(year), number)[1])]
    days = [one.day for one in dates if DAYS[one.weekday()] == day]
    return days[{"first": 0, "second": 1, "third": 2, "fourth": 3, "last": -1}[which]]


def weekday_of(question: str, months: str, weekdays: str, year: int) -> str:
    """Of the last date that a question names, by the weekday of its January 1."""
    start = DAYS.index(re.search(weekdays, question)[0])
    month, day = re.findall(rf"({months}) (\d+)(?!\d|st)", question)[-1]
    return DAYS[
        (start + (datetime.strptime(f"{month} {day} {year}", "%B %d %Y").timetuple().tm_yday - 1)) % 7
    ]


CHECKS: dict[str, Callable[[str, str], bool]] = {
    "advanced_geometry": advanced_geometry,
    "base_conversion": base_conversion,
    "basic_arithmetic": expression,
    "bitwise_arithmetic": bitwise_arithmetic,
    "calendar_arithmetic": calendar_arithmetic,
    "chain_sum": expression,
    "count_bits": lambda question, gold: integers(question)[-1].bit_count() == int(gold),
    "count_primes": count_primes,
    "decimal_arithmetic": decimal_arithmetic,
    "decimal_chain_sum": expression,
    "dice": dice,
    "fraction_simplification": fraction_simplification,
    "gcd": lambda question, gold: gcd(*integers(question)) == int(gold),
    "lcm": lambda question, gold: lcm(*integers(question)) == int(gold),
    "number_filtering": number_filtering,
    "number_format": number_format,
    "number_sequence": number_sequence,
    "polynomial_equations": polynomial_equations,
    "power_function": power_function,
    "prime_factorization": prime_factorization,
    "products": expression,
    "simple_equations": equation,
    "simple_geometry": simple_geometry,
    "time_intervals": time_intervals,
}
