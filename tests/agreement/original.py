"""The published checkers, asked over pipes: a line {kind, args, answer} in, a line {kept} or {error} out.

Runs in an environment of its own (langdetect, nltk, immutabledict, absl-py), not in ours:

    python original.py FOLDER NLTK_DATA

FOLDER holds instructions.py, instructions_registry.py and instructions_util.py as published.
"""

import importlib
import json
import random
import shutil
import sys
import tempfile
from pathlib import Path


def load(folder: Path, home: Path) -> dict[str, type]:
    """The registry; the files become the package that the newer ones name in their imports."""
    package = home / "open_instruct" / "IFEvalG"
    package.mkdir(parents=True)
    for name in ("instructions.py", "instructions_registry.py", "instructions_util.py"):
        shutil.copy(folder / name, package)
    sys.path.insert(0, str(home))
    return importlib.import_module("open_instruct.IFEvalG.instructions_registry").INSTRUCTION_DICT


def ask(registry: dict[str, type], kind: str, args: dict, answer: str) -> dict:
    """One verdict; an exception is said and not counted as a refusal."""
    checker = registry[kind](kind)
    try:
        checker.build_description(**args)
        return {"kept": bool(checker.check_following(answer))}
    except Exception as error:  # whatever a published checker raises is its verdict here
        return {"error": f"{type(error).__name__}: {error}"}


def main() -> None:
    """Answers until stdin ends."""
    import langdetect
    import nltk

    langdetect.DetectorFactory.seed = 0
    random.seed(0)
    nltk.data.path.insert(0, sys.argv[2])
    with tempfile.TemporaryDirectory() as home:
        registry = load(Path(sys.argv[1]), Path(home))
        print(json.dumps(sorted(registry)), flush=True)
        for line in sys.stdin:
            asked = json.loads(line)
            print(json.dumps(ask(registry, asked["kind"], asked["args"], asked["answer"])), flush=True)


if __name__ == "__main__":
    main()
