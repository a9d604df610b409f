"""`apriel plan` refuses what it cannot plan before it simulates anything."""

from pathlib import Path

import pytest

from apriel_mcore.cli import main
from apriel_mcore.planning import search, study

PLAN = ["plan", "recipes/apriel_reasoner_15b.toml", "model.path=recipes/shapes/apriel_15b"]


@pytest.fixture(autouse=True)
def no_work(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("simulated")

    monkeypatch.setattr(study, "run", refuse)
    monkeypatch.setattr(search, "as_is", refuse)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ([], "--gpus is missing"),
        (["--gpus", "1"], "--gpus 1"),
        (["--gpus", "64", "--skew", "-1"], "--skew -1"),
        (["--gpus", "64", "--skew", "0"], "--skew 0"),
        (["--gpus", "64", "--weak", "-5"], "--weak -5"),
        (["--gpus", "64", "--max-lag", "0"], "--max-lag 0"),
        (["--gpus", "64", "--html", "/nonexistent/x.html"], "--html /nonexistent/x.html"),
        (["--gpus", "64", "--as-is"], "--as-is"),
        (["--gpus", "64", "--lengths", "/nonexistent/x.toml"], "--lengths /nonexistent/x.toml"),
    ],
)
def test_wrong_arguments_are_named(arguments, named, capsys):
    with pytest.raises(SystemExit, match="2"):
        main([*PLAN, *arguments])
    assert named in capsys.readouterr().err


@pytest.mark.parametrize(
    "wrong", ["mean = -5", "keep = 0", "keep = 1.5", "sigma = 0", "prompt = -1", "speed = 1"]
)
def test_impossible_lengths_are_named(wrong, tmp_path: Path, capsys):
    fields = {"mean": "mean = 1000", "sigma": "sigma = 0.8", "keep": "keep = 0.5", wrong.split()[0]: wrong}
    path = tmp_path / "lengths.toml"
    path.write_text("[math]\n" + "\n".join(fields.values()))
    with pytest.raises(SystemExit, match="2"):
        main([*PLAN, "--gpus", "64", "--lengths", str(path)])
    said = capsys.readouterr().err
    assert "lengths.toml" in said
    assert wrong.split()[0] in said
