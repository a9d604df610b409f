"""Did it work, and why? The live page's views of one run as one file: no server, no network, small.

Series come down-sampled with their extremes, and some groups of every domain with their texts.
"""

from itertools import chain, zip_longest
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from apriel_mcore.errors import InputError
from apriel_mcore.rundir import existing
from apriel_mcore.views.assets import whole_page
from apriel_mcore.views.runview import RunView
from apriel_mcore.views.shelf import Shelf

MAX_BUCKETS = 320
GROUPS_PER_DOMAIN = 12
MAX_TEXT_CHARS = 16_000
MAX_GROUPS_BYTES = 1_200_000


def write(run_dir: Path) -> Path:
    """Write report.html of a run directory; returns its path. InputError where there is no run."""
    paths = existing(run_dir)
    run = RunView(paths, run_dir.resolve().name)
    run.read_all()
    if not run.counts:
        raise InputError(f"{run_dir}: the run has not begun: it has no events.jsonl with events")
    partial = paths.report.with_suffix(".partial")
    partial.write_text(page(run), encoding="utf-8")
    partial.replace(paths.report)
    return paths.report


def page(run: RunView) -> str:
    """The whole page as text."""
    content = {
        "card": run.card(),
        "steps": run.frame(MAX_BUCKETS),
        "receipts": run.receipts_frame(MAX_BUCKETS),
        "shapes": run.shapes(),
        "groups": _groups(run),
    }
    return whole_page(run.name, msgspec.json.encode(content).decode())


def _groups(run: RunView) -> list[dict[str, Any]]:
    """Groups from first to last and the longest one, of every domain in turn while there is room."""
    columns = [_chosen(run.shelf, code) for code in range(len(run.shelf.words["domain"]))]
    in_turn = [one for one in chain.from_iterable(zip_longest(*columns)) if one is not None]
    found: list[dict[str, Any]] = []
    room = MAX_GROUPS_BYTES
    for number in in_turn:
        try:
            group = _clipped(run.shelf.group(number))
        except FileNotFoundError:
            continue  # the user removed rollouts to free space; the series tell the rest
        room -= len(msgspec.json.encode(group))
        if room < 0:
            break
        found.append(group)
    return found


def _chosen(shelf: Shelf, domain: int) -> list[int]:
    mine = shelf.column("domain") == domain
    groups = np.unique(shelf.column("group")[mine])
    places = np.linspace(0, len(groups) - 1, min(len(groups), GROUPS_PER_DOMAIN)).astype(int)
    longest = int(shelf.column("group")[mine][np.argmax(shelf.column("tokens")[mine])])
    return list(dict.fromkeys([*groups[places].tolist(), longest]))


def _clipped(group: dict[str, Any]) -> dict[str, Any]:
    for said in (*group["problem"]["messages"], *group["rollouts"]):
        key = "content" if "content" in said else "text"
        if len(said[key]) > MAX_TEXT_CHARS:
            said[key] = said[key][:MAX_TEXT_CHARS] + f" [{len(said[key]) - MAX_TEXT_CHARS} more characters]"
    return group
