"""`apriel convert` as a user calls it, and the scripts that are the same."""

import runpy
import sys
from pathlib import Path

import pytest

from apriel_mcore import cli
from apriel_mcore.convert import report
from tests.convert.folders import assert_equal, read_tensors, write_folder

SCRIPTS = Path(__file__).parents[2] / "conversion"


def test_there_and_back(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    tensors = write_folder(tmp_path / "hf", llava=True)
    mcore, back = str(tmp_path / "mcore"), str(tmp_path / "back")
    source = str(tmp_path / "hf")
    cli.main(["convert", "hf-to-mcore", source, mcore, "--tp", "2", "--pp", "2", "--vpp", "2", "--no-probe"])
    said = capsys.readouterr().out
    assert "38 tensors, 0.00 GB, every one read back" in said
    assert "2 tensors of other modalities were left behind" in said
    assert "log-probs not compared: not wanted (--no-probe)" in said
    cli.main(["convert", "mcore-to-hf", mcore, back, "--no-probe", "--shard-gb", "0.0001"])
    assert_equal(read_tensors(tmp_path / "back"), tensors)
    capsys.readouterr()
    cli.main(["convert", "mcore-to-hf", mcore, back, "--no-probe", "--shard-gb", "0.0001"])
    said = capsys.readouterr().out
    assert "38 tensors, 0.00 GB, was finished before; read back again" in said
    assert "every one read back" not in said


def test_scripts_are_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tensors = write_folder(tmp_path / "hf")
    steps = (("hf_to_mcore.py", "hf", "mcore"), ("mcore_to_hf.py", "mcore", "back"))
    for script, source, target in steps:
        argv = [script, str(tmp_path / source), str(tmp_path / target), "--no-probe"]
        monkeypatch.setattr(sys, "argv", argv)
        runpy.run_path(str(SCRIPTS / script), run_name="__main__")
    assert_equal(read_tensors(tmp_path / "back"), tensors)
    assert report.read(tmp_path / "back") is not None


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--tp", "3"], ["--tp, --pp, --vpp do not fit", "use one of 1, 2, 4"]),
        (["--tp", "0"], ["--tp 0", "1 or more"]),
        (["--vpp", "2"], ["--vpp 2", "needs pipeline > 1"]),
    ],
)
def test_refusals(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, flags: list[str], words: list[str]
) -> None:
    write_folder(tmp_path / "hf")
    with pytest.raises(SystemExit) as end:
        cli.main(["convert", "hf-to-mcore", str(tmp_path / "hf"), str(tmp_path / "mcore"), *flags])
    said = capsys.readouterr().err
    assert end.value.code == 2 and len(said.splitlines()) == 1
    assert all(word in said for word in words), said
    assert not list(tmp_path.glob("mcore*"))
