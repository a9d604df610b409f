"""Strictly on-policy in float32, two pipeline ranks, weights sent as messages: both engines say the same."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from apriel_mcore.bridge.receipt import read
from apriel_mcore.obs.runlog import read_events

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

RECIPE = """
model.kind = "folder"
model.path = "{model}"
domains.math.ratio = 1.0
domains.math.sources.sums.kind = "template"
domains.math.sources.sums.name = "sums"
domains.math.sources.sums.size = 40
rollout.group_size = 4
rollout.max_output_tokens = 8
rollout.max_lag = 0
rollout.servers.kind = "local"
rollout.servers.dtype = "float32"
rollout.servers.max_model_len = 512
rollout.servers.kv_cache_gib = 0.25
reward.length.kind = "none"
advantage.filter_on = "off"
train.num_steps = 3
train.groups_per_step = 2
train.seq_len = 1024
train.precision = "fp32"
train.parallel.pipeline = 2
train.optimizer.lr = 1e-2
train.optimizer.weight_decay = 0.5
publish.kind = "stream"
publish.probe_bound = 1e-4
eval.every = 0
eval.problems_per_domain = 2
"""
"""A random model solves nothing, so nothing is filtered and decay alone moves the weights, by 0.5% a step."""


def test_trainer_and_server_agree_at_every_step(tiny_llama: Path, tmp_path: Path) -> None:
    model = shutil.copytree(tiny_llama, tmp_path / "model")
    settings = json.loads((model / "tokenizer_config.json").read_text())
    settings["chat_template"] = "{% for turn in messages %}{{ turn.role }}: {{ turn.content }}\n{% endfor %}"
    (model / "tokenizer_config.json").write_text(json.dumps(settings))
    recipe = tmp_path / "on_policy.toml"
    recipe.write_text(RECIPE.format(model=model))

    done = subprocess.run(
        [sys.executable, "-m", "apriel_mcore.cli", "train", str(recipe), "--run-dir", str(tmp_path / "run")],
        capture_output=True,
        text=True,
        timeout=600,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    steps = [event for event in read_events(tmp_path / "run" / "events.jsonl") if event["event"] == "step"]
    assert [step["step"] for step in steps] == [1, 2, 3]
    assert all(step["logprob_abs_diff"] <= 1e-4 for step in steps)
    assert all(step["lag_max"] == 0 for step in steps)
    receipts = read(tmp_path / "run" / "receipts.jsonl")
    assert [receipt.version for receipt in receipts] == [0, 1, 2, 3]
    assert all(receipt.probe_mean_abs_diff <= 1e-4 for receipt in receipts)
    assert len({receipt.digest for receipt in receipts}) == 4
