"""What the documents say is what the code does."""

import json
import re
import subprocess
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import SimpleNamespace

ROOT = Path(__file__).parents[2]
FAMILIES = ROOT / "apriel_mcore" / "bridge" / "families"


def tracked() -> list[Path]:
    listing = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return [path for name in listing.stdout.splitlines() if (path := ROOT / name).is_file()]


def test_the_loop_in_the_readme_is_the_loop() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    shown = re.search(r"```python\n(    while .*?)```", readme, flags=re.DOTALL)
    assert shown, "README.md shows the loop as a python block that starts at `while`"
    assert shown.group(1) in (ROOT / "apriel_mcore" / "loop.py").read_text(encoding="utf-8")


def test_the_readme_names_every_folder_and_only_what_exists() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    packages = {p.parent.relative_to(ROOT).as_posix() for p in (ROOT / "apriel_mcore").glob("*/__init__.py")}
    named = set(re.findall(r"^\| `([\w./-]+?)/?` \|", readme, flags=re.MULTILINE))
    assert packages <= named
    assert all((ROOT / name).exists() for name in named)


def test_the_how_to_shows_a_family_file_as_it_is() -> None:
    page = (ROOT / "docs" / "how-to" / "add-a-model-family.md").read_text(encoding="utf-8")
    shown = re.search(r"```python\n(.*?)```", page, flags=re.DOTALL)
    assert shown, "the worked example is the page's first python block"
    assert shown.group(1) == (FAMILIES / "qwen3.py").read_text(encoding="utf-8")


def test_a_family_takes_at_most_60_lines() -> None:
    long = {
        path.name: lines
        for path in FAMILIES.glob("*.py")
        if path.name != "registry.py" and (lines := len(path.read_text(encoding="utf-8").splitlines())) > 60
    }
    assert long == {}


def test_tracked_text_is_ascii_and_names_no_machine() -> None:
    places = re.compile("|".join(f"/{name}/" for name in ("work", "root", "home")))
    this = Path(__file__)
    for path in tracked():
        if path.suffix in {".py", ".toml", ".md", ".sh", ""} and path != this:
            text = path.read_text(encoding="utf-8")
            assert text.isascii(), f"{path}: {[c for c in text if not c.isascii()][:5]}"
            found = places.search(text)
            assert not found, f"{path}: {found.group(0) if found else ''}"


def test_the_performance_page_shows_every_kept_bench_with_machine_and_day() -> None:
    spec = spec_from_file_location("hooks", ROOT / "docs" / "hooks.py")
    assert spec and spec.loader
    hooks = module_from_spec(spec)
    spec.loader.exec_module(hooks)
    page = SimpleNamespace(file=SimpleNamespace(src_uri="performance.md"))
    shown = hooks.on_page_markdown("", page=page, config=None, files=None)
    kept = sorted((ROOT / "docs" / "bench").glob("*.json"))
    assert kept
    for path in kept:
        numbers = json.loads(path.read_text(encoding="utf-8"))
        assert set(hooks.MACHINE) <= numbers.keys(), f"{path}: measured where, and when?"
        assert f"\n## {path.stem}\n" in shown


def test_the_site_shows_every_page() -> None:
    site = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    pages = {page.relative_to(ROOT / "docs").as_posix() for page in (ROOT / "docs").rglob("*.md")}
    assert {page for page in pages if page not in site} == set()


def test_the_index_leads_to_every_page_and_decisions_have_no_gap() -> None:
    docs = ROOT / "docs"
    index = (docs / "index.md").read_text(encoding="utf-8")
    pages = {page.relative_to(docs).as_posix() for page in (*docs.glob("*.md"), *docs.glob("how-to/*.md"))}
    assert {page for page in pages - {"index.md"} if f"({page})" not in index} == set()
    decisions = sorted((docs / "decisions").glob("*.md"))
    assert [int(page.name[:3]) for page in decisions] == list(range(1, len(decisions) + 1))
    for page in decisions:
        assert page.read_text(encoding="utf-8").startswith(f"# {page.name[:3]}: ")


def test_the_reference_names_every_package() -> None:
    reference = (ROOT / "docs" / "reference.md").read_text(encoding="utf-8")
    packages = {p.parent.name for p in (ROOT / "apriel_mcore").glob("*/__init__.py")}
    assert {name for name in packages if f"::: apriel_mcore.{name}\n" not in reference} == set()
