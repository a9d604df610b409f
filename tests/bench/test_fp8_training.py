"""A run without records is refused with the way to make one."""

import argparse
from pathlib import Path

import pytest

from apriel_mcore.bench import fp8_training as fp8
from apriel_mcore.errors import InputError


def test_needs_a_run(tmp_path: Path) -> None:
    parser = argparse.ArgumentParser()
    fp8.add_arguments(parser)
    with pytest.raises(InputError, match="`make quickstart` makes one"):
        fp8.run(parser.parse_args(["--run-dir", str(tmp_path)]))
