"""Do the judges accept what is right and refuse what is wrong? Gold answers and changed ones, replayed.

problem -> gold ----------> judge: must accept
           gold -> change -> judge: must refuse (wrong by construction, see data/wrong.py)
"""

import asyncio
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import msgspec
from rich.table import Table

from apriel_mcore.config.schema import RunConfig
from apriel_mcore.data import model_files, problems, wrong
from apriel_mcore.data.problems import Dataset
from apriel_mcore.data.prompts import Renderer
from apriel_mcore.errors import InputError, VerifierError
from apriel_mcore.seams import Judge
from apriel_mcore.types import Problem
from apriel_mcore.verify.configured import judges
from apriel_mcore.views.terminal import add_columns, show

_COLUMNS = ("domain", "source", "rejected rows", "gold", "accepted", "share", "wrong", "accepted wrongly")


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """A gold answer that was refused, or a wrong one that was accepted."""

    domain: str
    source: str
    problem: str
    text: str
    verdict: str


class _Asked(msgspec.Struct, frozen=True):
    problem: Problem
    text: str


def run(config: RunConfig, *, num_wrong: int, failures: Path | None) -> None:
    """Print a table with a row a source, then every failure; `failures`: also as JSON lines."""
    dataset = problems.load(config, Renderer(model_files.config_folder(config.model)))
    found = [p for part in (dataset.train, dataset.held_out) for domain in part.values() for p in domain]
    golds = [_Asked(p, p.reference["gold"]) for p in found if p.reference.get("gold")]
    changed = _changed(found, num_wrong, config.seed)
    refused, accepted = asyncio.run(_replay(config, golds, changed))
    show(_table(dataset, golds, changed, refused, accepted))
    for title, listed in (("gold refused", refused), ("wrong accepted", accepted)):
        for failure in listed:
            said = f"{failure.source} {failure.problem}: {failure.text[-100:]!r}: {failure.verdict[:200]}"
            print(f"{title}: {said}")
    if failures is not None:
        failures.write_bytes(msgspec.json.Encoder().encode_lines([*refused, *accepted]))


def _changed(asked: Sequence[Problem], num: int, seed: int) -> list[_Asked]:
    """Up to `num` wrong answers a source, spread over its problems."""
    by_source: dict[tuple[str, str], list[Problem]] = {}
    for problem in asked:
        by_source.setdefault((problem.domain, problem.source), []).append(problem)
    found: list[_Asked] = []
    for members in by_source.values():
        per_problem = -(-num // len(members))
        texts = [
            _Asked(problem, text)
            for problem in members
            for text in wrong.answers(problem, num=per_problem, seed=seed)
        ]
        found += texts[:num]
    return found


async def _replay(
    config: RunConfig, golds: Sequence[_Asked], changed: Sequence[_Asked]
) -> tuple[list[Failure], list[Failure]]:
    async with judges(config) as judge:
        right = await asyncio.gather(*(_failure(judge, asked, accept=True) for asked in golds))
        wrongs = await asyncio.gather(*(_failure(judge, asked, accept=False) for asked in changed))
    return [failure for failure in right if failure], [failure for failure in wrongs if failure]


async def _failure(judge: Judge, asked: _Asked, *, accept: bool) -> Failure | None:
    problem = asked.problem
    try:
        verdict = await judge.grade(problem, asked.text)
        success, said = verdict.success, f"{verdict.status} {verdict.detail}"
    except (VerifierError, InputError) as error:
        success, said = not accept, str(error)  # no verdict is a failure on either side
    if success == accept:
        return None
    return Failure(
        domain=problem.domain, source=problem.source, problem=problem.id, text=asked.text, verdict=said
    )


def _table(
    dataset: Dataset,
    golds: Sequence[_Asked],
    changed: Sequence[_Asked],
    refused: Sequence[Failure],
    accepted: Sequence[Failure],
) -> Table:
    table = Table()
    add_columns(table, *_COLUMNS, words=2)
    asked = Counter((a.problem.domain, a.problem.source) for a in golds)
    missed = Counter((f.domain, f.source) for f in refused)
    tried = Counter((a.problem.domain, a.problem.source) for a in changed)
    fooled = Counter((f.domain, f.source) for f in accepted)
    rejected = Counter((r.domain, r.source) for r in dataset.rejects)
    for key in asked | tried:
        right = asked[key] - missed[key]
        share = f"{right / asked[key]:.2%}" if asked[key] else "no gold"
        cells = (rejected[key], asked[key], right, share, tried[key], fooled[key])
        table.add_row(*key, *map(str, cells))
    return table
