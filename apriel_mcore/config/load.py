"""TOML in, RunConfig out: `extends` chains, `a.b=c` overrides, errors with file, key path and remedy."""

import re
import tomllib
from collections.abc import Sequence
from datetime import date
from datetime import time as clock_time
from pathlib import Path
from typing import Any

import msgspec
import tomli_w

from apriel_mcore.config.complaint import explain
from apriel_mcore.config.schema import RunConfig
from apriel_mcore.config.tree import Tree, leaves, merge
from apriel_mcore.errors import ConfigError


def load(recipe: Path, overrides: Sequence[str] = ()) -> RunConfig:
    """Resolve a recipe file with its parents and overrides.

    Raises ConfigError naming file, key path, value and remedy.
    """
    tree = {"name": recipe.stem} | read_tree(recipe)
    for override in overrides:
        tree = merge(tree, parse_override(override))
    return validate(tree, where=str(recipe))


def read_tree(recipe: Path, *, seen: tuple[Path, ...] = ()) -> Tree:
    """The merged but not yet validated tree of a recipe and its `extends` chain."""
    if recipe.resolve() in seen:
        raise ConfigError(f"{recipe}: `extends` forms a circle; remove one of the links")
    try:
        tree = tomllib.loads(recipe.read_text(encoding="utf-8"))
    except FileNotFoundError:
        if seen:
            raise ConfigError(
                f"{seen[-1]}: extends {recipe}, which is not there; give the path from this file's folder"
            ) from None
        raise ConfigError(f"{recipe}: no such recipe; `ls recipes/` shows those that ship") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, IsADirectoryError) as error:
        raise ConfigError(f"{recipe}: not a TOML file: {error}") from None
    parent = tree.pop("extends", "")
    if not isinstance(parent, str):
        raise ConfigError(f"{recipe}: extends: found {parent!r}, give the path of one recipe")
    if not parent:
        return tree
    return merge(read_tree(recipe.parent / parent, seen=(*seen, recipe.resolve())), tree)


def parse_override(text: str) -> Tree:
    """`a.b=c` as a nested tree; the value is TOML, a bare word is a string."""
    path, equals, value = text.partition("=")
    if not equals or not re.fullmatch(r"[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)*", path.strip()):
        raise ConfigError(f"override {text!r}: write it as section.key=value")
    try:
        parsed = tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        parsed = value
    if isinstance(parsed, date | clock_time):  # no key holds one; 08:00:00 is meant as it is written
        parsed = value
    tree: Any = parsed
    for key in reversed(path.strip().split(".")):
        tree = {key: tree}
    return tree


def validate(tree: Tree, *, where: str) -> RunConfig:
    """The typed config of a merged tree; ConfigError where a key or value does not fit."""
    try:
        return msgspec.convert(tree, RunConfig)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{where}: {explain(str(error), tree)}") from None


def resolved(config: RunConfig) -> Tree:
    """The whole tree with every default written out."""
    return msgspec.to_builtins(config)


def dump(config: RunConfig) -> str:
    """resolved.toml: loads back to an equal config."""
    return tomli_w.dumps(resolved(config))


def diff(a: RunConfig, b: RunConfig) -> dict[str, tuple[object, object]]:
    """Dotted key -> (value in a, value in b) of the leaves that differ; `absent` where one lacks it."""
    left, right = leaves(resolved(a)), leaves(resolved(b))
    keys = list(dict.fromkeys([*left, *right]))
    pairs = {key: (left.get(key, "absent"), right.get(key, "absent")) for key in keys}
    return {key: pair for key, pair in pairs.items() if pair[0] != pair[1]}
