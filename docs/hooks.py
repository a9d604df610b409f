"""What mkdocs does not do by itself: the tables of performance.md, from the JSON files of `make bench`."""

import json
from pathlib import Path

RESULTS = Path(__file__).parents[1] / "bench-results"
MACHINE = ("cpu", "python", "torch", "megatron-core")


def on_page_markdown(markdown: str, *, page: object, config: object, files: object) -> str:
    """Append a table a bench to the performance page."""
    if page.file.src_uri != "performance.md":  # pyright: ignore[reportAttributeAccessIssue]
        return markdown
    found = sorted(RESULTS.glob("*.json"))
    if not found:
        return markdown + "\nNo bench has run here: `make bench`, then `make docs`.\n"
    return "\n\n".join([markdown, *(_table(path) for path in found)])


def _table(path: Path) -> str:
    numbers = json.loads(path.read_text(encoding="utf-8"))
    machine = ", ".join(f"{name} {numbers[name]}" for name in MACHINE)
    rows = [f"| `{key}` | {_cell(value)} |" for key, value in numbers.items() if key not in MACHINE]
    return "\n".join([f"## {path.stem}", "", f"{machine}", "", "| number | value |", "|---|---:|", *rows])


def _cell(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
