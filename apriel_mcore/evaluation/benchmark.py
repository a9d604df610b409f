"""Which benchmarks are there? A typed table: source, prompt, sampling, verifier.

benchmarks.toml <- a file of the user's, laid over it <- NAME=FILE on the command line
"""

import tomllib
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from apriel_mcore.config.schema import BfclSource, Domain, FilesSource, HuggingFaceSource, WheelSource
from apriel_mcore.config.schema.fields import NonNegative, Positive, Section
from apriel_mcore.config.tree import Tree, merge
from apriel_mcore.errors import ConfigError, InputError, did_you_mean

Verifier = Literal["math", "choice", "code", "instruction", "calls", "logic"]


class Benchmark(Section, frozen=True, kw_only=True):
    """One benchmark."""

    about: str
    """What a reader of the table must know of it."""
    verifier: Verifier
    """Must be the one that the source's layout names: a table that says otherwise is wrong."""
    source: HuggingFaceSource | WheelSource | BfclSource | FilesSource
    system: str = ""
    """System prompt; empty: none is sent."""
    suffix: str = ""
    """Appended to the last user turn."""
    tools: Literal["template", "system"] = "template"
    """Who shows a problem's functions: the model's chat template, or a system prompt of ours."""
    temperature: NonNegative = 0.6
    top_p: Annotated[float, Meta(gt=0, le=1)] = 0.95
    samples: Positive
    """Answers to each problem."""
    budgets: Annotated[tuple[Positive, ...], Meta(min_length=1)] = (16384, 32768)
    """Output tokens; the largest one is generated, the others are cut from it."""

    def as_domain(self, name: str) -> Domain:
        """What data/problems.py reads."""
        return Domain(
            ratio=0.0,
            sources={name: self.source},
            system=self.system,
            suffix=self.suffix,
            tools=self.tools,
        )


def definitions(over: Sequence[Path] = ()) -> dict[str, Benchmark]:
    """The benchmarks that ship, with the user's tables laid over them; ConfigError where one is wrong."""
    tree: Tree = tomllib.loads(
        resources.files(__package__).joinpath("benchmarks.toml").read_text(encoding="utf-8")
    )
    for file in over:
        tree = merge(tree, _read(file))
    where = ", ".join(map(str, over)) or "benchmarks.toml"
    try:
        return msgspec.convert(tree, dict[str, Benchmark])
    except msgspec.ValidationError as error:
        raise ConfigError(f"{where}: {error}; every benchmark has the keys of benchmarks.toml") from None


def choose(asked: str, known: dict[str, Benchmark]) -> tuple[str, Benchmark]:
    """The benchmark of `NAME`, or of `NAME=FILE` with a local copy of its rows."""
    name, has_file, file = asked.partition("=")
    if name not in known:
        raise InputError(f"--on {asked}: no benchmark {name!r}; {did_you_mean(name, ['domains', *known])}")
    benchmark = known[name]
    if not has_file:
        return name, benchmark
    if isinstance(benchmark.source, BfclSource):
        raise InputError(f"--on {asked}: {name} is read from its wheel, which holds questions and answers")
    local = FilesSource(paths=(file,), layout=benchmark.source.layout)
    return name, msgspec.structs.replace(benchmark, source=local)


def _read(file: Path) -> Tree:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{file}: no such file; correct --definitions") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, IsADirectoryError) as error:
        raise ConfigError(f"{file}: not a TOML file: {error}") from None
