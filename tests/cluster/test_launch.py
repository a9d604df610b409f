"""`apriel launch` up to the point where something is sent: all that it prints, and all that it refuses."""

import tomllib
from pathlib import Path

import pytest

from apriel_mcore import cli
from apriel_mcore.cluster.site import load as load_site
from apriel_mcore.config.load import load, validate
from apriel_mcore.errors import ConfigError
from tests.cluster.sites import RECIPES, SLURM, mini_site
from tests.shapes import config_only

CLUSTER_RECIPE = str(RECIPES / "quickstart_cluster.toml")
MINI = f"--cluster={SLURM / 'mini.toml'}"

IMAGE = "environment={kind='container', image='x.sqsh', mounts=['/lustre/data:/data:ro']}"
IN_CONTAINER = [MINI, "--on", IMAGE]


def dry_run(capsys: pytest.CaptureFixture[str], *argv: str) -> dict[str, str]:
    """What is printed, by title."""
    cli.main(["launch", *argv, "--dry-run"])
    parts = capsys.readouterr().out.split("--- ")[1:]
    return {part.split(" ---")[0]: part.partition("\n")[2] for part in parts}


def refused(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    with pytest.raises(SystemExit) as end:
        cli.main(list(argv))
    said = capsys.readouterr().err
    assert end.value.code == 2, said
    return said


def test_a_dry_run_prints_the_whole_launch(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    model = config_only(tmp_path / "model", "apriel_15b")
    recipe = str(RECIPES / "apriel_reasoner_15b.toml")
    overrides = [f"model.path={model}", "train.num_steps=7"]
    site = f"--cluster={SLURM / 'h100.toml'}"
    parts = dry_run(capsys, recipe, *overrides, site, "--seeds", "3", "4", "--on", "batch.time=00:30:00")
    assert set(parts) == {"batch script", "recipe", "nodes", "estimates", "folders"}
    assert parts["batch script"].startswith("#!/bin/bash\n")
    assert "#SBATCH --time=00:30:00\n" in parts["batch script"]
    assert "#SBATCH --array=0-1\n" in parts["batch script"]
    assert validate(tomllib.loads(parts["recipe"]), where="the dry run") == load(Path(recipe), overrides)
    assert len(parts["nodes"].strip().splitlines()) == 4
    assert "GB a GPU" in parts["estimates"]
    assert "s a step" in parts["estimates"]
    assert "h for 7 steps" in parts["estimates"]
    assert "-seed3\n" in parts["folders"]


def test_a_dry_run_says_what_it_cannot_know(capsys: pytest.CaptureFixture[str]) -> None:
    parts = dry_run(capsys, CLUSTER_RECIPE, "model.kind=folder", "model.path=/nowhere", MINI)
    assert "unknown here: model.path: /nowhere" in parts["estimates"]


def test_a_dry_run_sizes_no_gpus_for_a_recipe_without(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    model = config_only(tmp_path / "model", "smollm2_135m")
    parts = dry_run(capsys, CLUSTER_RECIPE, "model.kind=folder", f"model.path={model}", MINI)
    assert 'train.device = "cpu": no GPU to size' in parts["estimates"]
    assert "GB" not in parts["estimates"]


def test_what_does_not_fit_a_gpu_is_refused_before_it_is_queued(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    model = config_only(tmp_path / "model", "apriel_15b")
    recipe = str(RECIPES / "apriel_reasoner_15b.toml")
    smaller = ["train.parallel.tensor=1", "train.parallel.sequence=false", "train.parallel.context=8"]
    site = f"--cluster={SLURM / 'h100.toml'}"
    assert "GB a GPU" in refused(capsys, "launch", recipe, f"model.path={model}", *smaller, site)


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ([CLUSTER_RECIPE, "--cluster=nowhere.toml"], ["nowhere.toml", "slurm/"]),
        (
            [CLUSTER_RECIPE, MINI, "--on", "batch.tiem=1"],
            ["mini.toml: batch.tiem:", "mean `time`"],
        ),
        ([CLUSTER_RECIPE, MINI, "name=a b"], ["name", "a b"]),
        ([CLUSTER_RECIPE, MINI, "name=../x"], ["name", "../x"]),
        ([CLUSTER_RECIPE, MINI, "--seeds", "1", "1"], ["--seeds"]),
        ([CLUSTER_RECIPE, MINI, "--partition=x"], ["--partition=x"]),
        ([CLUSTER_RECIPE, MINI, "--on", "batch.template=none.sh"], ["batch.template", "none.sh"]),
        (
            [CLUSTER_RECIPE, *IN_CONTAINER, "--on", "secrets=~/keys"],
            ["mini.toml: secrets", "~/keys", "/data"],
        ),
        ([CLUSTER_RECIPE, *IN_CONTAINER, "--on", "secrets=/lustre/keys"], ["secrets", "environment.mounts"]),
        (
            [CLUSTER_RECIPE, *IN_CONTAINER, "--on", "variables.APRIEL_CACHE=/lustre/data"],
            ["variables.APRIEL_CACHE", "/data"],
        ),
    ],
)
def test_bad_input_ends_with_2_and_names_the_key(
    capsys: pytest.CaptureFixture[str], argv: list[str], words: list[str]
) -> None:
    said = refused(capsys, "launch", *argv)
    assert all(word in said for word in words), said
    assert len(said.strip().splitlines()) == 1


def test_what_a_container_has_mounted_is_launched(capsys: pytest.CaptureFixture[str]) -> None:
    on = ["--on", "secrets=/tmp/apriel-mini/shared/keys", "--on", "variables.APRIEL_CACHE=/data"]
    assert "/lustre/data:/data:ro" in dry_run(capsys, CLUSTER_RECIPE, *IN_CONTAINER, *on)["batch script"]


def test_without_nemo_run_the_remedy_is_said(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The environment of the engines cannot have it."""
    monkeypatch.chdir(tmp_path)
    assert "make launcher" in refused(capsys, "launch", CLUSTER_RECIPE, MINI)
    assert list(tmp_path.iterdir()) == []


def test_a_name_that_was_never_launched_is_refused(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for command in ("status", "logs", "stop"):
        assert "nothing of this name" in refused(capsys, command, "nobody")


def test_every_cluster_file_loads() -> None:
    for file in SLURM.glob("*.toml"):
        assert load_site(file).root.startswith("/")
    with pytest.raises(ConfigError, match=r"environment"):
        mini_site("environment.kind=conda")
