"""A run directory as the loop would have written it, of any size, without the loop."""

import json
import random
from pathlib import Path
from typing import Any

import msgspec

from apriel_mcore.obs.trained import index_line, step_file, write_groups
from apriel_mcore.types import Batch, Group, Message, Problem, Rollout, Sample, ShapedReward, Verdict

DOMAINS = {"math": 0.4, "code": 0.25, "logic": 0.15, "instruction": 0.1, "calls": 0.1}
SERVERS = ("server-0", "server-1", "server-2")
_START = 1_790_000_000.0
WORDS = ("we", "take", "the", "first", "term", "and", "add", "what", "is", "left", "of", "it", "even", "odd")


def make_run(
    folder: Path, *, steps: int, groups: int = 10, group_size: int = 8, seed: int = 0, done: bool = True
) -> Path:
    """Events, receipts, index and texts of `steps` steps; returns the folder."""
    make_events(folder, steps=steps, seed=seed)
    rng = random.Random(seed)
    write_rollouts(folder / "rollouts", steps=steps, groups=groups, group_size=group_size, rng=rng)
    if done:
        (folder / "outcome.json").write_text(json.dumps({"code": 0, "message": "done"}))
    return folder


def make_events(folder: Path, *, steps: int, seed: int = 0) -> Path:
    """A run without a rollout; returns the folder."""
    rng = random.Random(seed)
    (folder / "rollouts").mkdir(parents=True)
    (folder / "resolved.toml").write_text(_recipe(steps, seed), encoding="utf-8")
    with (folder / "events.jsonl").open("w") as events, (folder / "receipts.jsonl").open("w") as receipts:
        for event in _beginning(steps):
            events.write(json.dumps(event) + "\n")
        for step in range(1, steps + 1):
            event = step_event(step, steps, rng)
            events.write(json.dumps(event) + "\n")
            receipts.write(json.dumps(_receipt(step, rng)) + "\n")
            if step % max(1, steps // 10) == 0:
                events.write(json.dumps(evaluation(step, steps, rng)) + "\n")
        alarm = {"event": "alarm", "time": _START + 40 * steps, "message": "math runs dry"}
        events.write(json.dumps(alarm) + "\n")
    return folder


def write_rollouts(folder: Path, *, steps: int, groups: int, group_size: int, rng: random.Random) -> None:
    """Texts and index of each step."""
    with (folder / "trained.jsonl").open("ab") as index:
        for step in range(1, steps + 1):
            made = [make_group(step, i, group_size, step / steps, rng) for i in range(groups)]
            shaped = [[_shaped(rollout) for rollout in group.rollouts_G] for group in made]
            samples = tuple(
                _sample(group, rollout, reward)
                for group, row in zip(made, shaped, strict=True)
                for rollout, reward in zip(group.rollouts_G, row, strict=True)
            )
            batch = Batch(
                samples=samples, rows=(), num_rollouts=len(samples), num_response_tokens=1, pad_multiple=1
            )
            places = write_groups(step_file(folder, step), made)
            index.write(index_line(step, made, shaped, batch, places))


def make_group(step: int, number: int, group_size: int, progress: float, rng: random.Random) -> Group:
    """A group whose answers get better and shorter as the run goes on."""
    domain = rng.choices(list(DOMAINS), list(DOMAINS.values()))[0]
    a, b = rng.randint(2, 99), rng.randint(2, 99)
    problem = Problem(
        id=f"{rng.getrandbits(64):016x}",
        domain=domain,
        source="sums",
        messages=(
            Message(role="system", content="Answer in one word."),
            Message(role="user", content=f"{domain}: what is {a} + {b}?"),
        ),
        verifier="math",
        reference={"answer": str(a + b)},
        split_key="",
        prompt_T=(1, 2, 3),
    )
    rollouts = tuple(_rollout(step, a + b, progress, rng) for _ in range(group_size))
    return Group(
        id=step * 100 + number,
        problem=problem,
        rollouts_G=rollouts,
        version=min(rollout.version_first for rollout in rollouts),
    )


def _rollout(step: int, answer: int, progress: float, rng: random.Random) -> Rollout:
    length = max(1, int(rng.lognormvariate(3.2 - progress, 0.7)))
    right = rng.random() < 0.25 + 0.6 * progress
    server = rng.randrange(len(SERVERS))
    version = max(0, step - 1 - rng.choice((0, 1, 1, 2)))
    words = " ".join(rng.choices(WORDS, k=min(length, 40)))
    return Rollout(
        tokens_T=tuple(range(length)),
        logprobs_T=(-0.5,) * length,
        text=f"{words}. The answer is {answer if right else answer + rng.randint(1, 9)}.",
        finish="length" if length > 64 else "stop",
        version_first=version,
        version_last=version,
        verdict=Verdict(score=float(right), success=right, status="correct" if right else "wrong"),
        seconds=length * (0.02 if server < 2 else 0.05),
        server=SERVERS[server],
    )


def _shaped(rollout: Rollout) -> ShapedReward:
    return ShapedReward(task=rollout.verdict.score, length=-min(1.0, len(rollout.tokens_T) / 64), factor=0.25)


def _sample(group: Group, rollout: Rollout, reward: ShapedReward) -> Sample:
    return Sample(
        domain=group.problem.domain,
        prompt_T=(1,),
        response_T=rollout.tokens_T,
        logprobs_T=rollout.logprobs_T,
        advantage=reward.total - 0.4,
        version=rollout.version_first,
    )


def _recipe(steps: int, seed: int) -> str:
    ratios = "\n".join(f"{name}.ratio = {ratio}" for name, ratio in DOMAINS.items())
    return f"seed = {seed}\n[train]\nnum_steps = {steps}\n[domains]\n{ratios}\n"


def _beginning(steps: int) -> list[dict[str, Any]]:
    return [
        {"event": "phase", "time": _START, "message": "building the trainer"},
        {"event": "data", "time": _START + 1, "train": dict.fromkeys(DOMAINS, 400), "held_out": {}},
        {"event": "start", "time": _START + 2, "step": 0, "attempt": 1},
        evaluation(0, steps, random.Random(0)),
    ]


def step_event(step: int, steps: int, rng: random.Random) -> dict[str, Any]:
    """Most of the fields of contract `step`, as a run that learns has them."""
    progress = step / steps
    event: dict[str, Any] = {
        "event": "step",
        "time": _START + 40 * step,
        "step": step,
        "reward_mean": 0.3 + 0.5 * progress + rng.gauss(0, 0.05),
        "length_penalty_mean": -0.2 + 0.1 * progress,
        "truncated_fraction": 0.1 * (1 - progress),
        "loss": rng.gauss(0, 0.1),
        "grad_norm": rng.lognormvariate(0, 0.4) * (60 if step == 7777 else 1),
        "lr": 1e-6,
        "entropy": 0.6 - 0.3 * progress + rng.gauss(0, 0.02),
        "clip_fraction": 0.04,
        "logprob_abs_diff": 0.03 + rng.random() * 0.01,
        "kl_rollout_train": 0.001 * rng.random(),
        "lag_mean": 1 + rng.random(),
        "lag_max": 2,
        "tokens_trained": 8000 + rng.randrange(900),
        "tokens_generated": 9000,
        "packing_fill": 0.93,
        "packing_balance": 0.97,
        "time_wait_s": rng.random() * 5,
        "time_train_s": 28 + rng.random() * 3,
        "time_publish_s": 1.5,
        "time_checkpoint_s": 2.0 if step % 10 == 0 else 0.1,
        "tokens_per_s": 240 + rng.gauss(0, 10),
        "feed.groups_in_flight": 12,
        "feed.pool.serving": 3,
        "feed.pool.running": 40 + rng.randrange(20),
        "feed.pool.waiting": rng.randrange(8),
        "feed.pool.restarts": 1,
    }
    for i, server in enumerate(SERVERS):
        event |= {f"feed.pool.{server}.running": 10 + i, f"feed.pool.{server}.version": step - 1}
    for i, (name, ratio) in enumerate(DOMAINS.items()):
        event |= {
            f"reward.{name}": min(1.0, 0.2 + 0.1 * i + 0.4 * progress + rng.gauss(0, 0.04)),
            f"solve_rate.{name}": min(1.0, 0.15 + 0.1 * i + 0.4 * progress),
            f"trained_groups.{name}": round(10 * ratio),
            f"trained_share.{name}": ratio + 0.2 / step * (-1) ** i,
            f"target_share.{name}": ratio,
            f"tokens_mean.{name}": 40 - 20 * progress + 8 * i + rng.gauss(0, 2),
            f"tokens_p10.{name}": 10,
            f"tokens_p90.{name}": 80,
            f"feed.keep_rate.{name}": 0.3 + 0.05 * i,
            f"feed.ready.{name}": rng.randrange(5),
            f"feed.pending.{name}": rng.randrange(9),
        }
    return event


def evaluation(step: int, steps: int, rng: random.Random) -> dict[str, Any]:
    """An `eval` event with one sample a domain."""
    event: dict[str, Any] = {"event": "eval", "time": _START + 40 * step + 20, "step": step}
    for i, name in enumerate(DOMAINS):
        event |= {
            f"accuracy.{name}": min(1.0, 0.15 + 0.08 * i + 0.5 * step / steps + rng.gauss(0, 0.02)),
            f"tokens_mean.{name}": 40.0 - 15 * step / steps,
            f"constant.{name}": 0.1,
            f"count.{name}": 64,
        }
    event["accuracy_mean"] = sum(event[f"accuracy.{name}"] for name in DOMAINS) / len(DOMAINS)
    event["samples"] = [
        {"domain": name, "problem": f"p-{name}", "prompt": f"a question of {name}", "answer": f"step {step}"}
        | {"score": float(step > 0), "tokens": 9}
        for name in DOMAINS
    ]
    return event


def _receipt(version: int, rng: random.Random) -> dict[str, Any]:
    receipt = {"version": version, "num_bytes": 269030016, "servers": list(SERVERS), "time": _START}
    return receipt | {"seconds": 1.5 + rng.random(), "export_s": 0.1, "probe_mean_abs_diff": 0.013}


def append_step(folder: Path, step: int, steps: int, seed: int) -> None:
    """One more step of a run that goes on."""
    rng = random.Random(seed)
    with (folder / "events.jsonl").open("a") as events:
        events.write(json.dumps(step_event(step, steps, rng)) + "\n")
    made = [make_group(step, i, 8, step / steps, rng) for i in range(4)]
    shaped = [[_shaped(rollout) for rollout in group.rollouts_G] for group in made]
    empty = Batch(samples=(), rows=(), num_rollouts=0, num_response_tokens=0, pad_multiple=1)
    places = write_groups(step_file(folder / "rollouts", step), made)
    with (folder / "rollouts" / "trained.jsonl").open("ab") as index:
        index.write(index_line(step, made, shaped, empty, places))


def rewards_of(line: bytes) -> list[float]:
    """Task rewards of an index line, flat."""
    return [task for group in msgspec.json.decode(line)["groups"] for task in group["task_G"]]
