"""The plot is well-formed, holds every mark inside its frame, and its frontier is not beaten."""

import re
from xml.etree import ElementTree

from hypothesis import given
from hypothesis import strategies as st

from apriel_mcore.views.frontier import HEIGHT, WIDTH, Curve, Mark, best, svg


def mark(tokens: float, accuracy: float) -> Mark:
    return Mark(
        label="8 <b>",
        tokens=tokens,
        tokens_low=tokens * 0.9,
        tokens_high=tokens * 1.1,
        accuracy=accuracy,
        accuracy_low=max(0.0, accuracy - 0.1),
        accuracy_high=min(1.0, accuracy + 0.1),
    )


MARKS = st.lists(st.builds(mark, st.floats(0, 50_000), st.floats(0, 1)), min_size=1, max_size=20)


@given(MARKS)
def test_the_frontier(marks: list[Mark]) -> None:
    kept = best(marks)
    for one in marks:
        assert any(k.tokens <= one.tokens and k.accuracy >= one.accuracy for k in kept)
    pairs = [(k.tokens, k.accuracy) for k in kept]
    assert pairs == sorted(pairs) and len({a for _, a in pairs}) == len(pairs)


@given(MARKS)
def test_everything_is_inside(marks: list[Mark]) -> None:
    root = ElementTree.fromstring(svg([Curve(name="a & b", color="#123456", marks=marks)], title="<x>"))
    for circle in root.iter("{http://www.w3.org/2000/svg}circle"):
        assert 0 <= float(circle.attrib["cx"]) <= WIDTH
        assert 0 <= float(circle.attrib["cy"]) <= HEIGHT
    assert not re.search("nan|inf", ElementTree.tostring(root, encoding="unicode").replace("font", ""))
