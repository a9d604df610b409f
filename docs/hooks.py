"""What mkdocs does not do by itself: the tables of performance.md, from the JSON files of `apriel bench`."""

import json
from pathlib import Path

KEPT = Path(__file__).parent / "bench"
LOCAL = Path(__file__).parents[1] / "bench-results"
"""Of `make bench` on this machine, not committed: they stand in the place of the kept ones."""
MACHINE = ("date", "cpu", "cores", "load", "python", "torch", "megatron-core")


def on_page_markdown(markdown: str, *, page: object, config: object, files: object) -> str:
    """Append a table a bench to the performance page."""
    if page.file.src_uri != "performance.md":  # pyright: ignore[reportAttributeAccessIssue]
        return markdown
    found = {path.stem: path for folder in (KEPT, LOCAL) for path in sorted(folder.glob("*.json"))}
    return "\n\n".join([markdown, *(_table(found[name]) for name in sorted(found))])


def _table(path: Path) -> str:
    numbers = json.loads(path.read_text(encoding="utf-8"))
    machine = ", ".join(f"{name} {numbers[name]}" for name in MACHINE if name in numbers)
    rows = [f"| `{key}` | {_cell(value)} |" for key, value in numbers.items() if key not in MACHINE]
    return "\n".join([f"## {path.stem}", "", f"{machine}", "", "| number | value |", "|---|---:|", *rows])


def _cell(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
