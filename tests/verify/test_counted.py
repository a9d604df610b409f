r"""Texts after a number, as in `\boxed{7\text{ apples}}`: what names what is counted, and what does not."""

import pytest

from apriel_mcore.verify.math import verify

NAMES = r"""
apples | red apples | shaded squares | cups needed | cans | logs | real roots | people | ways
liters of water | miles per gallon | square units | children's books | families | years old | W | (apples)
km per hour | dollars per week | quarts | seconds | of them | cm^2 | m^2 | \$ | boxes/truck
pages/day | miles/gallon | possible arrangements | possible values | three-digit numbers
two-digit integers | one-dollar bills | non-zero digits | non-negative integers | one-way trips | half-hours
jelly beans | elderly people | friendly cats | early birds | supply boxes | quarterly payments
third graders | fourth-grade students | bad apples | wrong answers | failed tests | root beers
double rooms | base hits | decimal digits | opposite sides | eggs left over | dollars off | hours from now
years from now | feet above ground | laps around | zeros | percent off | needed | used | planted | infected
shed | sled | apples! | apples, | apple(s) | cups (flour) | pounds (lbs) | 5th graders | 12-inch pizzas
girls' shoes | cm squared | units squared | dollars a day | times | m/s^2 | apples are left | quarters
quarter turns | negative roots | equal parts | ordered pairs | boys and girls | men and women | more apples
points | marbles | students | hours | days | meters | m/s | km/h | kg | inches | dollars | cents | cookies
candies | small boxes | bags of rice | slices of pizza | gallons of gas | bottles of juice
integer solutions | distinct prime factors | positive divisors | lattice points | prime numbers
even numbers | odd integers | right triangles | equilateral triangles | subsets | permutations
combinations | arrangements | diagonals | solutions | distinct values | positive integers | x-intercepts
T-shirts | tickets sold | pages left | people left | cookies remaining | miles away | times as many
times faster | years ago | months later | minutes longer | inches taller | days a week | hours per day
words per minute | miles an hour | cubic feet | square feet | sq ft | cubic centimeters | cents per pound
students per class | students/class | chairs/row | single rooms | half-dollars | two-story houses
four-leaf clovers | six-packs | blue-eyed people | co-workers | runners-up | men's shirts | boys' coats
teachers' desks | daily visits | weekly trips | monthly bills | butterflies | lilies | lovely flowers
lonely people | likely outcomes | probable causes | false alarms | error messages | errors | mistakes
impossible events | invalid votes | missed shots | rejected parts | fallen trees | broken eggs | log cabins
tan dogs | power tools | base pairs | tin cans | remaining pieces | additional trips | extra points
full rotations | revolutions | rounds | steps | moves | weeks | units | square inches | m^3 | ft^2 | cm^{3}
letters, numbers | nickels | dimes | pennies | coins | first graders | sixth-grade classes | 2-digit numbers
3-point shots | 10-dollar bills | pieces (slices) | (hours) | V | Hz | calories
m of rope | kg of rice | g of salt | inches of snow | a.m. | hours left | N | J | days early
per person | apiece
"""
NO_NAMES = """
is wrong | is not the answer | is false | cannot be | isn't | is not right | was the first guess
are not enough | apples are wrong | apples, not pears | not | no | never | none of these
red apples or none | or so | or more | or 8 | or eight | maybe | perhaps apples | probably | apples probably
approximately | I think | it seems | instead of eight | except zero | unless it rains | if even | but no
neither | nope | sorry | wrong | incorrect | false | bad | a wrong answer | the wrong answer | wrong result
bad guess | a mistake | apples, wrong | clearly wrong | invalid | impossible | possible | undefined
removed | failed | excluded | denied | negative | halves | thirds | tenths | twenty-fifths | one-half | half
third | fifth | half of it | quarter | quarter of a mile | (tenths) | hundredths | and a half | hundreds
thousands | tens of apples | twos | lakh | crore | score | pairs | pair | pairs of shoes | dozen
dozen eggs | K | M | B | per mille | million | billion | thousand | lakh rupees | million dollars
per thousand | gross | couple of days | square root | square roots | cube root | square | cubic | doubled
apples doubled
fivefold | over two | over | times two | pi | pi meters | log | squared | apples squared | plus one
minus x | divided by two | mod two | twice | factorial | inverse | at most | at least | minimum | and up
to nine | up to nine | about | from ten | 8 | +1 | apples, 8 pears | apples + 1 | x | apples? | 5th
5-tenths | ...no | this is wrong | should be 8 | wrong! | (wrong) | (no) | no! | not sure | too small | typo
does not count | a guess | no more | that's wrong | and counting | times x | apples or pears
M dollars | K dollars | refuted | as a lower bound | m wrong | cm over two | nah
"""


def entries(table: str) -> list[str]:
    """Its entries, one a bar or a line."""
    return [entry.strip() for line in table.strip().splitlines() for entry in line.split("|")]


pytestmark = pytest.mark.usefixtures("math_library")


def is_right(gold: str, answer: str) -> bool:
    return verify({"answer": gold, "format": "boxed"}, rf"\boxed{{{answer}}}").success


@pytest.mark.parametrize("name", [*entries(NAMES), "cm\N{SUPERSCRIPT TWO}", "\N{DEGREE SIGN}C"])
def test_a_name_is_a_unit(name: str) -> None:
    assert is_right("7", rf"7\text{{ {name}}}")
    assert is_right(rf"7\text{{ {name}}}", "7")
    assert not is_right("8", rf"7\text{{ {name}}}")


@pytest.mark.parametrize("words", entries(NO_NAMES))
def test_other_words_stay_in_the_answer(words: str) -> None:
    assert not is_right("7", rf"7\text{{ {words}}}")
    assert not is_right(rf"7\text{{ {words}}}", "7")
    assert is_right(rf"7\text{{ {words}}}", rf"7\text{{ {words}}}")


@pytest.mark.parametrize("name", ["jelly beans", "wrong answers", "apples", "cm\N{SUPERSCRIPT TWO}"])
def test_names_need_no_text_around_them(name: str) -> None:
    assert is_right("12", f"12 {name}")


@pytest.mark.parametrize(
    "words", ["wrong", "clearly wrong", "halves", "maybe", "never mind", "apples or none"]
)
def test_other_words_without_text_stay_in_the_answer(words: str) -> None:
    assert not is_right("12", f"12 {words}")
