"""What is in a recipe's data? Counts, lengths, rejects, overlaps; or single problems as prompts."""

import random
from collections import Counter

from rich.table import Column, Table

from apriel_mcore.config.schema import RunConfig
from apriel_mcore.data import model_files, problems
from apriel_mcore.data.overlap import open_benchmarks
from apriel_mcore.data.problems import Dataset
from apriel_mcore.data.prompts import Renderer
from apriel_mcore.errors import InputError, did_you_mean
from apriel_mcore.views.terminal import add_columns, show

_COUNTED = ("train", "held out", "rejected", "tokens p50", "p90", "max")


def stats(config: RunConfig) -> None:
    """Print counts and prompt lengths of every source, and every reason for a reject with its first row."""
    dataset = problems.load(config, Renderer(model_files.config_folder(config.model)))
    show(_counts(config, dataset))
    show(_rejects(dataset))
    show(_overlaps(config, dataset))


def sample(config: RunConfig, *, domain: str | None, num: int) -> None:
    """Print `num` problems of a domain (None: of each), drawn with the recipe's seed, with their gold."""
    if domain is not None and domain not in config.domains:
        raise InputError(f"--domain {domain}: no such domain; {did_you_mean(domain, config.domains)}")
    renderer = Renderer(model_files.config_folder(config.model))
    dataset = problems.load(config, renderer)
    for name, found in dataset.train.items():
        if domain not in (None, name):
            continue
        for problem in random.Random(config.seed).sample(found, min(num, len(found))):
            print(f"=== {name} / {problem.source} / {problem.id}: {len(problem.prompt_T)} tokens")
            print(renderer.decode_all(problem.prompt_T))
            print(f"--- gold ({problem.verifier})")
            print(problem.reference.get("gold") or problem.reference)


def _counts(config: RunConfig, dataset: Dataset) -> Table:
    table = Table()
    add_columns(table, "domain", "source", *_COUNTED, words=2)
    for name, domain in config.domains.items():
        for source in domain.sources:
            train = [p for p in dataset.train[name] if p.source == source]
            held_out = [p for p in dataset.held_out[name] if p.source == source]
            rejected = sum((r.domain, r.source) == (name, source) for r in dataset.rejects)
            lengths = sorted(len(p.prompt_T) for p in (*train, *held_out)) or [0]
            picked = [lengths[int(q * (len(lengths) - 1))] for q in (0.5, 0.9, 1.0)]
            cells = (len(train), len(held_out), rejected, *picked)
            table.add_row(name, source, *map(str, cells))
    return table


def _rejects(dataset: Dataset) -> Table:
    table = Table("domain", "source", "reason", Column("rows", justify="right"), "first")
    found = Counter((r.domain, r.source, r.reason) for r in dataset.rejects)
    for key, count in found.most_common():
        first = next(r for r in dataset.rejects if (r.domain, r.source, r.reason) == key)
        table.add_row(*key, str(count), f"{first.place}: {first.detail}"[:120])
    return table


def _overlaps(config: RunConfig, dataset: Dataset) -> Table:
    """Which prompts are left out because another source or a benchmark has them too."""
    table = Table("domain", "found also in", Column("rows", justify="right"))
    searched = open_benchmarks(config.data.decontaminate).searched
    shown = (
        f"{name} ({found.inside + found.whole} of {found.prompts} prompts, {found.whole} as whole turns)"
        for name, found in searched.items()
    )
    table.caption = f"benchmarks searched for: {', '.join(shown) or 'none'}"
    found = Counter(
        (r.domain, r.detail.partition(": ")[0].removeprefix("of a prompt in "))
        for r in dataset.rejects
        if r.reason in ("duplicate", "near_duplicate", "contaminated")
    )
    for (domain, other), count in found.most_common():
        table.add_row(domain, other, str(count))
    return table
