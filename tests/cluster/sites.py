"""The cluster files that ship, for tests."""

from pathlib import Path

from apriel_mcore.cluster.site import load
from apriel_mcore.config.schema.site import Site

ROOT = Path(__file__).parents[2]
RECIPES = ROOT / "recipes"
SLURM = ROOT / "slurm"


def mini_site(*overrides: str) -> Site:
    """slurm/mini.toml, changed."""
    return load(SLURM / "mini.toml", overrides)
