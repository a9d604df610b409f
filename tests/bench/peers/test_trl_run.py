import asyncio
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest

from apriel_mcore.bench.peers.curve import Trail
from apriel_mcore.bench.peers.trl_run import Bench, Tuning, grpo_settings, in_order, train
from apriel_mcore.config.load import load
from apriel_mcore.data.problems import Dataset
from apriel_mcore.errors import AprielError, InputError
from apriel_mcore.fakes import FakeJudge
from apriel_mcore.types import Problem, Verdict

QUICKSTART = Path(__file__).parents[3] / "recipes" / "quickstart.toml"
NO_PROBLEM = Problem(id="", domain="", source="", messages=(), verifier="", reference={}, split_key="")


def test_the_peer_takes_the_recipes_settings() -> None:
    config = load(
        QUICKSTART, ["train.optimizer.lr=3e-6", "rollout.group_size=4", "domains.code.max_output_tokens=31"]
    )
    settings = grpo_settings(config, Tuning(engine="transformers", batch=8), Path("out"))
    assert settings["learning_rate"] == 3e-6
    assert settings["num_generations"] == 4
    assert settings["per_device_train_batch_size"] * settings["gradient_accumulation_steps"] == 40
    assert settings["max_completion_length"] == 40  # of instruction, now the longest
    assert (settings["epsilon"], settings["epsilon_high"]) == (config.loss.clip_low, config.loss.clip_high)
    assert not settings["use_vllm"]


@pytest.mark.parametrize(
    ("overrides", "batch", "named"),
    [
        ([], 7, "--batch 7"),
        (["loss.kind=cispo"], 8, "gspo"),
        (["train.optimizer.schedule=cosine"], 8, "rate"),
    ],
)
def test_what_the_peer_cannot_do_alike_is_refused(overrides: list[str], batch: int, named: str) -> None:
    with pytest.raises(InputError, match=named):
        grpo_settings(load(QUICKSTART, overrides), Tuning(batch=batch), Path("out"))


def test_the_peers_prompts_have_the_mixture_in_every_batch() -> None:
    config = load(QUICKSTART)
    train_part = {
        name: tuple(msgspec.structs.replace(NO_PROBLEM, id=f"{name}{i}", domain=name) for i in range(50))
        for name in config.domains
    }
    asked = in_order(config, Dataset(train=train_part, held_out={}, rejects=()), steps=20)
    size = config.train.groups_per_step
    assert len(asked) == 20 * size
    for step in range(20):
        counts = Counter(problem.domain for problem in asked[step * size : (step + 1) * size])
        for name, ratio in config.ratios.items():
            assert abs(counts[name] - ratio * size) < 1
    assert Counter(problem.domain for problem in asked) == {
        name: ratio * len(asked) for name, ratio in config.ratios.items()
    }


def test_a_missing_environment_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="make bench-peers"):
        train(load(QUICKSTART), Tuning(), tmp_path / "python", tmp_path / "out", seconds=1.0)


PEER = """
import json, sys
print(json.dumps({"event": "start"}), flush=True)
print(json.dumps({"event": "judge", "rows": [1, 1, 1, 1], "tokens": json.loads(sys.argv[1])}), flush=True)
rewards = json.loads(sys.stdin.readline())
print(rewards, file=sys.stderr)
print(json.dumps({"event": "step"}), flush=True)
print(json.dumps({"event": "end"}), flush=True)
"""
RIGHT, LONG, END = 1, 7, 2


class Reader:
    """Answers are right if their first token says so."""

    stop_ids = (END,)

    def decode(self, tokens_T: Sequence[int]) -> str:
        return "right" if tokens_T[0] == RIGHT else "wrong"


class Teacher(FakeJudge):
    async def grade(self, problem: Problem, text: str) -> Verdict:
        assert problem.id == "second"
        right = text == "right"
        return Verdict(score=float(right), success=right, status="correct" if right else "wrong")


def follow(tmp_path: Path, program: str, tokens: list[list[int]]) -> Trail:
    config = load(QUICKSTART, ["rollout.group_size=4", "reward.length.kind=none"])
    asked = [msgspec.structs.replace(NO_PROBLEM, id=name, domain="math") for name in ("first", "second")]
    command = [sys.executable, "-c", program, msgspec.json.encode(tokens).decode()]
    bench = Bench(config, Reader(), asked)
    return asyncio.run(bench.follow(Teacher({}), command, {}, tmp_path / "log"))


def test_the_peer_is_told_the_rewards_of_answers_cut_at_their_domains_budget(tmp_path: Path) -> None:
    budget = load(QUICKSTART).budget_of("math")
    too_long = [RIGHT, *[LONG] * budget, END]
    trail = follow(tmp_path, PEER, [[RIGHT, END], [LONG, END], too_long, [RIGHT]])
    assert msgspec.json.decode((tmp_path / "log").read_bytes()) == [1.0, 0.0, 0.0, 0.0]
    (group,), (step,) = trail.groups, trail.steps
    assert (group.domain, group.reward, group.rollouts) == ("math", 0.25, 4)
    assert step.rollouts == step.with_signal == 4 and step.seconds >= group.seconds > 0.0


def test_equal_rewards_are_trained_without_a_signal(tmp_path: Path) -> None:
    (step,) = follow(tmp_path, PEER, [[LONG, END]] * 4).steps
    assert (step.rollouts, step.with_signal) == (4, 0)


def test_a_peer_that_dies_before_its_first_step_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(AprielError, match="ended with 3 before its first step"):
        follow(tmp_path, "import sys; sys.exit(3)", [])
