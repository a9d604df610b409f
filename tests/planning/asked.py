"""A question about the 15B recipe that is simulated in a blink."""

from pathlib import Path

import msgspec

from apriel_mcore.config.load import load
from apriel_mcore.planning import hardware
from apriel_mcore.planning.question import Question
from apriel_mcore.planning.workload import ASSUMED
from tests.shapes import SHAPES

RECIPE = Path("recipes/apriel_reasoner_15b.toml")
QUESTION = Question(
    config=load(RECIPE, ["train.groups_per_step=32"]),
    shape=SHAPES["apriel_15b"],
    profile=hardware.load("h100"),
    lengths=ASSUMED,
)


def with_settings(*overrides: str) -> Question:
    """The same with other settings."""
    config = load(RECIPE, ["train.groups_per_step=32", *overrides])
    return msgspec.structs.replace(QUESTION, config=config)
