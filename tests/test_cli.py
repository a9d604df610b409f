"""Bad input ends with status 2 and one line that names where and what to do; nothing is written."""

import json
import re
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import pytest

from apriel_mcore import checkpoint_folder, cli, launcher, preflight
from apriel_mcore.bench.made_run import make_run
from apriel_mcore.config.load import load
from apriel_mcore.errors import InputError
from apriel_mcore.rundir import RunDir, prepare
from tests.shapes import config_only

RECIPES = Path(__file__).parents[1] / "recipes"
QUICKSTART = str(RECIPES / "quickstart.toml")
APRIEL_15B = str(RECIPES / "apriel_reasoner_15b.toml")


@pytest.fixture
def model(tiny_llama: Path) -> list[str]:
    """Overrides that make the quickstart use the tiny model, so that nothing must be fetched."""
    return ["model.kind=folder", f"model.path={tiny_llama}"]


def refused(capsys: pytest.CaptureFixture[str], tmp_path: Path, *argv: str) -> str:
    """The one line that `apriel train` says; asserts status 2 and that nothing was written."""
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(SystemExit) as end:
        cli.main(["train", *argv])
    said = capsys.readouterr().err
    assert end.value.code == 2, said
    assert len(said.strip().splitlines()) == 1, said
    assert sorted(tmp_path.rglob("*")) == before
    return said


def jsonl(tmp_path: Path, *rows: dict[str, object]) -> str:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("train.lrr=1", ["quickstart.toml", "train.lrr", "lr"]),
        ("train.num_steps=soon", ["train.num_steps", "int"]),
        ("domains.math.ratio=0.9", ["ratio", "sum to 1"]),
        ("train.parallel.tensor=3", ["train.parallel.tensor = 3", "use one of 1, 2"]),
        ("train.parallel.pipeline=3", ["train.parallel.pipeline = 3", "one of 1, 2"]),
        ("publish.kind=nccl", ["publish", "nccl"]),
        ("train.optimizer.betas=[1.5,2.0]", ["train.optimizer.betas"]),
        ("train.optimizer.lr=inf", ["train.optimizer.lr"]),
        ("train.optimizer.min_lr=1.0", ["min_lr = 1 exceeds lr"]),
        ("train.seq_len=48", ["leaves no room for a prompt", "train.seq_len"]),
        ("publish.directory=/nowhere", ["publish.directory", "/nowhere"]),
        ("rollout.servers.max_model_len=4096", ["rollout.servers.max_model_len", "1024"]),
    ],
)
def test_recipe_errors(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, model: list[str], override: str, words: list[str]
) -> None:
    said = refused(capsys, tmp_path, QUICKSTART, *model, override, "--run-dir", str(tmp_path / "run"))
    for word in words:
        assert word in said


def test_a_missing_data_file(capsys: pytest.CaptureFixture[str], tmp_path: Path, model: list[str]) -> None:
    source = ["domains.math.sources.mine.kind=jsonl", f"domains.math.sources.mine.path={tmp_path}/none.jsonl"]
    said = refused(capsys, tmp_path, QUICKSTART, *model, *source, "--run-dir", str(tmp_path / "run"))
    assert "domains.math.sources.mine" in said
    assert "none.jsonl" in said


def test_a_row_without_its_answer(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, model: list[str]
) -> None:
    path = jsonl(tmp_path, {"prompt": "1 + 1?", "verifier": "math"})
    source = ["domains.math.sources.mine.kind=jsonl", f"domains.math.sources.mine.path={path}"]
    said = refused(capsys, tmp_path, QUICKSTART, *model, *source, "--run-dir", str(tmp_path / "run"))
    assert "rows.jsonl:1" in said
    assert "reference" in said


def test_a_model_without_tokenizer(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, tiny_llama: Path
) -> None:
    folder = shutil.copytree(tiny_llama, tmp_path / "model")
    (folder / "tokenizer.json").unlink()
    overrides = ["model.kind=folder", f"model.path={folder}", "--run-dir", str(tmp_path / "run")]
    assert "tokenizer" in refused(capsys, tmp_path, QUICKSTART, *overrides)


def test_a_run_directory_of_another_recipe(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, model: list[str]
) -> None:
    prepare(RunDir(tmp_path / "run"), load(Path(QUICKSTART), [*model, "seed=1"]))
    said = refused(capsys, tmp_path, QUICKSTART, *model, "seed=2", "--run-dir", str(tmp_path / "run"))
    assert "seed: 1 -> 2" in said
    assert "--override" in said


def test_a_port_in_use(capsys: pytest.CaptureFixture[str], tmp_path: Path, model: list[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        overrides = [f"rollout.servers.port={port}", "--run-dir", str(tmp_path / "run")]
        said = refused(capsys, tmp_path, QUICKSTART, *model, *overrides)
    assert f"127.0.0.1:{port} is in use" in said


def test_too_little_disk(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, model: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(1000, 999, 1))
    said = refused(capsys, tmp_path, QUICKSTART, *model, "--run-dir", str(tmp_path / "run"))
    assert "checkpoints need" in said
    assert "free some space" in said


def test_checkpoints_that_a_resumed_run_has_need_no_more_space(
    tmp_path: Path, model: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run_dir, config = RunDir(tmp_path / "run"), load(Path(QUICKSTART), model)
    space = {tmp_path: 0}
    monkeypatch.setattr(
        shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(1 << 50, 0, space.get(path, 1 << 40))
    )
    with pytest.raises(InputError, match="checkpoints need"):
        preflight.check(config, run_dir, tell=lambda line: None)
    folder = run_dir.checkpoints / "step_000002"
    folder.mkdir(parents=True)
    space[run_dir.root] = 0
    with (folder / "weights").open("wb") as sparse:
        sparse.truncate(1 << 40)
    preflight.check(config, run_dir, tell=lambda line: None)
    folder.rename(folder.with_suffix(".damaged"))
    with pytest.raises(InputError, match="checkpoints need"):
        preflight.check(config, run_dir, tell=lambda line: None)


ROOMY = ("rollout.servers.max_model_len=1024",)
"""The tiny model's tokens are bytes."""


class Checked(NamedTuple):
    code: int
    found: str
    refusal: str


def check(capsys: pytest.CaptureFixture[str], *argv: str) -> Checked:
    """What `apriel check` finds and what it refuses."""
    code = 0
    try:
        cli.main(["check", *argv])
    except SystemExit as end:
        code = int(end.code or 0)
    return Checked(code, *capsys.readouterr())


def test_check_sizes_a_gpu_recipe_from_config_json_alone(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    folder = config_only(tmp_path / "apriel", "apriel_15b")
    code, found, refusal = check(capsys, APRIEL_15B, f"model.path={folder}")
    for words in (
        "14428.9 M parameters",
        "8 train (tensor 4 x pipeline 1 x context 2 x data 1), 24 generate: 1 + 3 node(s) of 8",
        "410 micro-batches of 20000 tokens",
        "48 layers, 3607.6 M parameters a GPU",
        "weights 7.2, gradients 14.4, optimizer 21.6, activations 18.4",
        "12 x tensor 2",
        "33 answers of 16000",
    ):
        assert words in found
    assert code == 2  # what else a run needs is not there
    assert len(refusal.splitlines()) == 1


def test_check_names_a_missing_model_folder(capsys: pytest.CaptureFixture[str]) -> None:
    code, found, refusal = check(capsys, APRIEL_15B)
    assert (code, found) == (2, "")
    assert "model.path: models/apriel-1.5-15b-thinker is not a folder" in refusal


def test_check_refuses_what_does_not_fit_and_says_what_would(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    model = f"model.path={config_only(tmp_path / 'apriel', 'apriel_15b')}"
    too_much = ["train.parallel.distributed_optimizer=false", model]
    code, found, refusal = check(capsys, APRIEL_15B, *too_much)
    assert code == 2
    assert "in all 85.4" in found
    assert "train.parallel: stage 0 needs 85.4 GB" in refusal
    assert "cluster.gpu_memory_gb = 80; set train.parallel.distributed_optimizer = true" in refusal
    assert "gpu_memory_gb" not in check(capsys, APRIEL_15B, *too_much, "cluster.gpu_memory_gb=141").refusal


def test_a_small_model_on_gpus_passes_the_check(capsys: pytest.CaptureFixture[str], model: list[str]) -> None:
    code, found, refusal = check(capsys, QUICKSTART, *model, "train.device=cuda", "train.share_prompts=false")
    assert (code, refusal) == (0, "")
    assert "1 train (tensor 1 x pipeline 1 x context 1 x data 1), 1 generate: 1 node(s) of 8" in found
    assert "checkpoints" in found


@pytest.mark.parametrize(
    ("override", "words"),
    [
        (
            "domains.logic.sources.syllogism.task=sylogism",
            ["domains.logic.sources.syllogism", "'sylogism'", "did you mean `syllogism`"],
        ),
        (
            "domains.logic.sources.syllogism.task=countdown",
            ["domains.logic.sources.syllogism", "'countdown'", "executes the answer", "choose another"],
        ),
        (
            "train.seq_len=64",
            [
                "domains.",
                "no problem is left",
                "train.seq_len = 64 less domains.",
                "output budget of",
                "raise",
            ],
        ),
        ("domains.math.sources.sums.shots=9", ["domains.math.sources.sums", "shots = 9"]),
    ],
)
def test_check_refuses_problems_that_train_would_refuse(
    capsys: pytest.CaptureFixture[str], model: list[str], override: str, words: list[str]
) -> None:
    code, _, refusal = check(capsys, QUICKSTART, *model, override)
    assert code == 2
    assert len(refusal.splitlines()) == 1
    for word in ["quickstart.toml", *words]:
        assert word in refusal


def test_check_counts_what_there_is_to_train_on(capsys: pytest.CaptureFixture[str], model: list[str]) -> None:
    code, found, refusal = check(capsys, QUICKSTART, *model, *ROOMY)
    assert (code, refusal) == (0, "")
    assert re.search(r"math +\d+ to train on, \d+ held out", found)


def test_check_reads_the_token_of_servers_that_run_already(
    capsys: pytest.CaptureFixture[str], model: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = [
        "rollout.servers={kind='urls', urls=['http://127.0.0.1:1'], max_model_len=1024}",
        "publish.kind=stream",
    ]
    monkeypatch.setenv("APRIEL_SERVER_TOKEN", "short")
    code, _, refusal = check(capsys, QUICKSTART, *model, *elsewhere)
    assert code == 2
    assert "$APRIEL_SERVER_TOKEN" in refusal
    monkeypatch.setenv("APRIEL_SERVER_TOKEN", "t" * 32)
    assert check(capsys, QUICKSTART, *model, *elsewhere).code == 0


def test_a_finished_run_is_not_started_again(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, model: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run_dir, recipe = RunDir(make_run(tmp_path / "run", steps=4)), [QUICKSTART, *model, "train.num_steps=4"]
    prepare(run_dir, load(Path(QUICKSTART), recipe[1:]))
    partial = run_dir.checkpoints / "step_000004.partial"
    partial.mkdir()
    (partial / checkpoint_folder.STATE_FILE).write_text("{}")
    checkpoint_folder.seal(partial, checkpoint_folder.folder_of(run_dir.checkpoints, 4), {})
    monkeypatch.setattr(launcher, "train", lambda config, run_dir: pytest.fail("engines were started"))
    cli.main(["train", *recipe, "--run-dir", str(run_dir.root)])
    said = capsys.readouterr().out
    assert "after 4 steps" in said
    assert f"{run_dir.root}: finished; nothing was started" in said


def test_overrides_may_stand_behind_options(capsys: pytest.CaptureFixture[str], model: list[str]) -> None:
    cli.main(["data", "sample", QUICKSTART, "--domain", "math", *model, "--num", "1", *ROOMY])
    assert capsys.readouterr().out.startswith("=== math / sums /")
    with pytest.raises(SystemExit) as end:
        cli.main(["data", "sample", QUICKSTART, "--nmu", "1"])
    assert end.value.code == 2
    assert "--nmu: `apriel data` has no such option; see `apriel data --help`" in capsys.readouterr().err


def test_check_needs_no_torch(tmp_path: Path) -> None:
    folder = config_only(tmp_path / "apriel", "apriel_15b")
    code = (
        "import sys; from apriel_mcore import cli\n"
        f"try: cli.main(['check', {APRIEL_15B!r}, 'model.path={folder}'])\n"
        "except SystemExit: sys.exit('torch' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "stage 0" in result.stdout


@pytest.mark.parametrize(
    "command",
    [
        [],
        ["train"],
        ["fetch"],
        ["check"],
        ["show"],
        ["diff"],
        ["report"],
        ["dash"],
        ["trace"],
        ["eval"],
        ["eval-compare"],
        ["best"],
        ["convert", "average"],
        ["convert", "hf-to-mcore"],
        ["convert", "mcore-to-hf"],
    ],
)
def test_help_answers_at_once_without_torch(command: list[str]) -> None:
    code = (
        "import sys; from apriel_mcore import cli\n"
        f"try: cli.main({[*command, '--help']!r})\n"
        "except SystemExit as end: sys.exit(end.code or ('torch' in sys.modules))"
    )
    start = time.monotonic()
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "usage: apriel" in result.stdout
    assert time.monotonic() - start < 5


@pytest.mark.parametrize(
    "command",
    [
        ["train", QUICKSTART],
        ["eval", QUICKSTART],
        ["serve", QUICKSTART],
        ["convert", "hf-to-mcore", "model", "checkpoint"],
        ["data", "stats", QUICKSTART],
        ["bench", "reshard"],
        ["report", "runs/mine"],
    ],
    ids=lambda command: command[0],
)
def test_an_environment_without_engines_says_which_has_them(
    command: list[str], tmp_path: Path, tiny_llama: Path
) -> None:
    if QUICKSTART in command:
        command = [*command, "model.kind=folder", f"model.path={tiny_llama}"]
    code = (
        "import sys; sys.modules.update(dict.fromkeys(['torch', 'transformers', 'vllm', 'zstandard']))\n"
        f"from apriel_mcore import cli; cli.main({command!r})"
    )
    result = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,  # one that starts its engines after all would serve for ever
    )
    assert result.returncode == 2, result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert f"`apriel {command[0]}` needs " in result.stderr
    assert f".venv/bin/apriel {' '.join(command)}" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == (["evals"] if command[0] == "eval" else [])


def test_a_bench_reads_its_own_options(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    out = tmp_path / "sampler.json"
    cli.main(["bench", "sampler", "--steps", "5", "--json", str(out)])
    assert json.loads(out.read_text())["deficit_quota.picks_per_s"] > 0
