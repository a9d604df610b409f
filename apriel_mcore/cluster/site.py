"""A cluster's file in, Site out: the same `extends` and `KEY=VALUE` as recipes have."""

from collections.abc import Sequence
from pathlib import Path

import msgspec
import tomli_w

from apriel_mcore.config.complaint import explain
from apriel_mcore.config.load import parse_override, read_tree
from apriel_mcore.config.schema.site import Site
from apriel_mcore.config.tree import merge
from apriel_mcore.errors import ConfigError


def load(file: Path, overrides: Sequence[str] = ()) -> Site:
    """ConfigError naming file, key path and what is wrong."""
    if not file.is_file():
        raise ConfigError(f"{file}: no such cluster; `ls slurm/` shows those that ship")
    tree = read_tree(file)
    for override in overrides:
        tree = merge(tree, parse_override(override))
    try:
        return msgspec.convert(tree, Site)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{file}: {explain(str(error), tree, Site)}") from None


def dump(site: Site) -> str:
    """TOML that loads back to an equal Site."""
    return tomli_w.dumps(msgspec.to_builtins(site))
