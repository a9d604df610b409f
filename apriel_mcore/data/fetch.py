"""`apriel fetch`: model and data into the cache, verified by digest, before a run that needs no network."""

from apriel_mcore.config.schema import RunConfig
from apriel_mcore.data import model_files, wheels

_CHECKER_WHEELS = ("bfcl-eval",)
"""Wheels that judges read from."""


def fetch(config: RunConfig) -> None:
    """Bring what the recipe needs; instant when it is cached. Prints where each part lies."""
    print(f"model  {model_files.fetch_model(config.model)}")
    for path in wheels.fetch(_CHECKER_WHEELS):
        print(f"data   {path}")
