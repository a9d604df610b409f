"""A line stays inside its picture."""

import re

from apriel_mcore.views.charts import Series, lines


def test_a_line_stays_inside_its_picture() -> None:
    svg = lines([Series(name="x", color="#000", points=[(0, -5), (10, 500)])], title="x", y_low=None)
    points = re.search(r'points="([^"]+)"', svg)
    assert points
    for pair in points.group(1).split():
        x, y = map(float, pair.split(","))
        assert 0 <= x <= 460
        assert 0 <= y <= 220
