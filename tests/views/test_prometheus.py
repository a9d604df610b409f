"""Text that Prometheus parses, whatever a run is called."""

import math

from apriel_mcore.views.prometheus import Metric, exposition


def test_labels_are_escaped_and_samples_of_a_name_stand_together() -> None:
    metrics = [
        Metric(name="b", labels={"run": 'a"b\\c\nd'}, value=1.5),
        Metric(name="a_total", labels={"run": "x"}, value=3, kind="counter"),
        Metric(name="b", labels={"run": "y"}, value=-math.inf),
    ]
    assert exposition(metrics).splitlines() == [
        "# TYPE a_total counter",
        'a_total{run="x"} 3',
        "# TYPE b gauge",
        'b{run="a\\"b\\\\c\\nd"} 1.5',
        'b{run="y"} -Inf',
    ]
