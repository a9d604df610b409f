"""The batch script: what it asks for, that bash accepts it, and that nothing of a user's files runs in it."""

import re
import subprocess
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apriel_mcore.cluster.batch import script
from apriel_mcore.cluster.folders import Launch, LaunchFolder
from apriel_mcore.cluster.nodes import node_map
from apriel_mcore.cluster.site import load as load_site
from apriel_mcore.config.load import load
from apriel_mcore.config.schema import FolderModel
from apriel_mcore.config.schema.site import ContainerEnvironment, Site
from apriel_mcore.errors import ConfigError
from tests.cluster.sites import RECIPES, SLURM, mini_site

TEMPLATE = (SLURM / "job.sh").read_text(encoding="utf-8")


def written(site: Site, *, recipe: str = "quickstart_cluster", seeds: tuple[int, ...] = ()) -> str:
    config = load(RECIPES / f"{recipe}.toml")
    return script(
        TEMPLATE,
        config=config,
        site=site,
        launch=Launch(name=config.name, seeds=list(seeds), continues_changed=False),
        nodes=node_map(config, site, task=0),
        folder=LaunchFolder(Path(site.root) / "launches" / "one"),
    )


def directives(text: str) -> list[str]:
    return re.findall(r"^#SBATCH (.*)$", text, flags=re.MULTILINE)


def test_a_cluster_of_gpus_is_asked_for_whole_nodes() -> None:
    asked = directives(written(load_site(SLURM / "h100.toml"), recipe="apriel_reasoner_15b"))
    for one in (
        "--nodes=4",
        "--gres=gpu:8",
        "--account=rl",
        "--partition=h100",
        "--time=08:00:00",
        "--signal=B:USR1@900",
        "--exclusive",
        "--requeue",
        "--open-mode=append",
    ):
        assert one in asked
    assert not [one for one in asked if one.startswith(("--array", "--mail"))]


def test_directives_come_before_the_first_command() -> None:
    lines = written(mini_site()).splitlines()
    last = max(number for number, line in enumerate(lines) if line.startswith("#SBATCH"))
    assert all(line.startswith("#") for line in lines[: last + 1])


def test_seeds_are_an_array_and_each_task_logs_apart() -> None:
    asked = directives(written(mini_site(), seeds=(3, 5, 8)))
    assert "--array=0-2" in asked
    assert any(one.startswith("--output=") and one.endswith("job-%A_%a.log") for one in asked)


def test_mail_is_sent_where_an_address_is_given() -> None:
    asked = directives(written(mini_site("batch.mail=me@example.org")))
    assert "--mail-user=me@example.org" in asked
    assert "--mail-type=END,FAIL,REQUEUE" in asked


def test_a_container_starts_with_its_mounts() -> None:
    site = load_site(SLURM / "h100.toml")
    options = step_options(written(site, recipe="apriel_reasoner_15b"))
    assert "--container-image=/lustre/projects/rl/images/apriel-mcore.sqsh" in options
    mounts = next(one for one in options if one.startswith("--container-mounts="))
    assert f"{site.root}:{site.root}" in mounts
    assert "/lustre/projects/rl/models:/lustre/projects/rl/models" in mounts


def test_bash_accepts_the_script() -> None:
    for text in (written(mini_site()), written(load_site(SLURM / "h100.toml"), recipe="apriel_reasoner_15b")):
        checked = subprocess.run(["bash", "-n"], input=text, text=True, capture_output=True, check=False)
        assert checked.returncode == 0, checked.stderr


@settings(deadline=None)  # each example starts a bash
@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1))
def test_no_word_of_a_cluster_file_is_run(word: str) -> None:
    """An image's name is the freest text that reaches the script: bash reads it back as one word."""
    text = written(msgspec.structs.replace(mini_site(), environment=ContainerEnvironment(image=word)))
    assert f"--container-image={word}" in step_options(text)


def test_nothing_of_a_recipe_stands_in_the_script() -> None:
    """It is sent as a file beside it."""
    evil = "$(touch x); `id` 'x"
    config = load(RECIPES / "quickstart_cluster.toml")
    other = msgspec.structs.replace(config, model=FolderModel(path=evil))
    site = mini_site()
    texts = [
        script(
            TEMPLATE,
            config=one,
            site=site,
            launch=Launch(name="x", seeds=[], continues_changed=False),
            nodes=node_map(one, site, task=0),
            folder=LaunchFolder(Path("/a/launches/x")),
        )
        for one in (config, other)
    ]
    assert texts[0] == texts[1]


@pytest.mark.parametrize(
    "override",
    [
        'batch.account="a; rm -rf x"',
        'batch.partition="a\\n#SBATCH --wrap=x"',
        'batch.mail="$(id)"',
        'batch.options=["--wrap=x y"]',
        'batch.options=["-J x"]',
        'root="/a b"',
        'root="relative"',
        'batch.time="tomorrow"',
        'variables={"A B"="x"}',
        "batch.save_before_s=5",
        "batch.gpus=many",
        "batch.tiem=1",
    ],
)
def test_what_a_directive_cannot_hold_is_refused_by_its_key(override: str) -> None:
    key = override.split("=")[0]
    with pytest.raises(ConfigError, match=re.escape(key.split(".")[0])):
        mini_site(override)


def test_a_template_without_its_marks_is_refused() -> None:
    config, site = load(RECIPES / "quickstart_cluster.toml"), mini_site()
    with pytest.raises(ConfigError, match=r"batch\.template"):
        script(
            "#!/bin/bash\n",
            config=config,
            site=site,
            launch=Launch(name="x", seeds=[], continues_changed=False),
            nodes=node_map(config, site, task=0),
            folder=LaunchFolder(Path("/a")),
        )


def step_options(text: str) -> list[str]:
    """What bash makes of STEP_OPTIONS."""
    start = text.index("STEP_OPTIONS=(")
    end = text.index("\ntask=")
    settings = text[start:end]
    printed = subprocess.run(
        ["bash", "-c", f"{settings}\nprintf '%s\\0' \"${{STEP_OPTIONS[@]}}\""],
        capture_output=True,
        check=True,
        env={"PATH": "/usr/bin:/bin"},
    )
    return printed.stdout.decode().rstrip("\0").split("\0")
