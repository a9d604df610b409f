"""The recipe's task in TRL's GRPOTrainer: same prompts and mixture, same judges and rewards, same optimizer.

here: scheduler --prompts--> file      judges, reward table, length penalty <--tokens-- .
                               |                                      '--rewards--> peer process
                               '--------------------------------------------------> (trl_grpo.py)
"""

import asyncio
import json
import math
import os
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any, Protocol

import msgspec

from apriel_mcore.bench.peers.curve import JudgedGroup, Step, Trail
from apriel_mcore.config.schema import RunConfig
from apriel_mcore.data import problems
from apriel_mcore.data.model_files import model_folder
from apriel_mcore.data.problems import Dataset
from apriel_mcore.data.prompts import Renderer
from apriel_mcore.data.sampler import DomainScheduler
from apriel_mcore.errors import AprielError, InputError
from apriel_mcore.loss.advantage import keeps
from apriel_mcore.loss.reward import shape_group
from apriel_mcore.seams import Judge
from apriel_mcore.types import Group, Problem, Rollout, ShapedReward
from apriel_mcore.verify.configured import judges

SCRIPT = Path(__file__).with_name("trl_grpo.py")
PROMPT_STEPS = 200
"""Steps' worth of prompts; the peer begins again after them."""
_LINE_BYTES = 1 << 24

ENGINES = ("transformers", "paged", "vllm")
"""What generates: generate(), transformers' continuous batching, or vLLM in TRL's process."""
PRECISIONS = ("fp32", "bf16", "pure_bf16")
"""Of its trainer; bf16 is autocast on float32 weights, pure_bf16 has none."""

Message = dict[str, Any]


class Tuning(msgspec.Struct, frozen=True, kw_only=True):
    """What TRL leaves to its user on this machine; chosen by measuring (docs/results.md)."""

    engine: str = "vllm"
    """Of ENGINES."""
    precision: str = "pure_bf16"
    """Of PRECISIONS."""
    batch: int = 16
    """Sequences of a micro-batch."""
    threads: int = 2


def grpo_settings(config: RunConfig, tuning: Tuning, output: Path) -> dict[str, Any]:
    """GRPOConfig's arguments for the recipe. InputError for what TRL has no setting for."""
    optimizer, group_size = config.train.optimizer, config.rollout.group_size
    per_step = config.train.groups_per_step * group_size
    if per_step % tuning.batch:
        raise InputError(f"--batch {tuning.batch}: does not divide the {per_step} answers of a step")
    if config.loss.kind != "gspo" or optimizer.schedule != "constant" or config.rollout.stop:
        raise InputError(
            'the peer runs recipes with loss.kind = "gspo", a constant learning rate and no rollout.stop'
        )
    settings = {
        "output_dir": str(output),
        "use_cpu": True,
        "seed": config.seed,
        "max_steps": 10_000,  # the clock ends the training
        "num_generations": group_size,
        "per_device_train_batch_size": tuning.batch,
        "gradient_accumulation_steps": per_step // tuning.batch,
        "max_completion_length": max(config.budget_of(name) for name in config.domains),
        "temperature": config.rollout.temperature,
        "shuffle_dataset": False,
        "beta": 0.0,
        "loss_type": "dapo",
        "importance_sampling_level": "sequence",
        "epsilon": config.loss.clip_low,
        "epsilon_high": config.loss.clip_high,
        "scale_rewards": "group" if config.advantage.divide_by_std else "none",
        "learning_rate": optimizer.lr,
        "lr_scheduler_type": "constant_with_warmup",
        "warmup_steps": optimizer.warmup_steps,
        "adam_beta1": optimizer.betas[0],
        "adam_beta2": optimizer.betas[1],
        "adam_epsilon": optimizer.eps,
        "weight_decay": optimizer.weight_decay,
        "max_grad_norm": optimizer.clip_grad,
        "gradient_checkpointing": False,
        "bf16": tuning.precision == "bf16",
        "model_init_kwargs": {
            "dtype": "bfloat16" if tuning.precision == "pure_bf16" else "float32",
            "attn_implementation": "sdpa",
        },
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
    }
    return settings | _engine(config, tuning)


def _engine(config: RunConfig, tuning: Tuning) -> dict[str, Any]:
    match tuning.engine:
        case "vllm":
            longest = config.rollout.servers.max_model_len
            return {
                "use_vllm": True,
                "vllm_mode": "colocate",
                "vllm_max_model_length": longest,
                "vllm_importance_sampling_correction": False,  # would cost a forward pass, on weights of now
            }
        case "paged":
            return {"use_vllm": False, "use_transformers_continuous_batching": True}
        case _:
            return {"use_vllm": False}


def peer_environment(tuning: Tuning) -> dict[str, str]:
    """What the peer's environment adds to ours."""
    return {
        "OMP_NUM_THREADS": str(tuning.threads),
        "OMP_WAIT_POLICY": "PASSIVE",  # as our trainer's (launcher.py)
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1",
        "DO_NOT_TRACK": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "TORCHDYNAMO_DISABLE": "1",  # minutes of g++, as for our servers (rollout/server.py)
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # TRL reaches into the engine, which must be in its process
    }


def in_order(config: RunConfig, dataset: Dataset, *, steps: int) -> list[Problem]:
    """The problems that `steps` steps of our scheduler ask, if every group has a signal."""
    scheduler = DomainScheduler(
        config.ratios,
        {domain: [problem.id for problem in part] for domain, part in dataset.train.items()},
        groups_per_step=config.train.groups_per_step,
        group_size=config.rollout.group_size,
        settings=config.sampler,
        max_lag=0.0,
        max_group_age="off",
        seed=config.seed,
    )
    by_id = {problem.id: problem for part in dataset.train.values() for problem in part}
    asked: list[Problem] = []
    for step in range(steps):
        while ticket := scheduler.dispatch(step):
            asked.append(by_id[ticket.problem_id])
            scheduler.resolve(ticket.group_id, "kept", loss_tokens=1)
        assert scheduler.compose(step), f"step {step} of the peer's prompts is no batch"
        scheduler.settle()
    return asked


def train(config: RunConfig, tuning: Tuning, python: Path, folder: Path, *, seconds: float) -> Trail:
    """A run of the peer that ends with the first step after `seconds`. `folder` keeps its files."""
    if not python.exists():
        raise InputError(f"{python}: the peer's environment is missing; `make bench-peers` makes it")
    renderer = Renderer(model_folder(config.model))
    asked = in_order(config, problems.load(config, renderer), steps=PROMPT_STEPS)
    prompts = [renderer.decode_all(problem.prompt_T) for problem in asked]
    for problem, prompt in zip(asked, prompts, strict=True):
        assert renderer.encode(prompt) == problem.prompt_T, f"{problem.id}: the peer would read other tokens"
    folder.mkdir(parents=True)
    (folder / "prompts.jsonl").write_text("".join(json.dumps(text) + "\n" for text in prompts), "utf-8")
    settings = {
        "model": str(model_folder(config.model)),
        "prompts": str(folder / "prompts.jsonl"),
        "seconds": seconds,
        "grpo": grpo_settings(config, tuning, folder / "output"),
    }
    (folder / "settings.json").write_text(json.dumps(settings, indent=2), "utf-8")
    command = [str(python), str(SCRIPT), str(folder / "settings.json")]

    async def follow() -> Trail:
        async with judges(config) as judge:
            for problem in {problem.domain: problem for problem in asked}.values():
                await judge.self_check(problem)  # a judge's libraries are loaded before the clock starts
            bench = Bench(config, renderer, asked)
            return await bench.follow(judge, command, peer_environment(tuning), folder / "trl.log")

    return asyncio.run(follow())


class ReadsTokens(Protocol):
    """What is needed of data/prompts.py's Renderer."""

    stop_ids: tuple[int, ...]

    def decode(self, tokens_T: Sequence[int]) -> str:
        """Text of an answer, without special tokens."""
        ...


class Bench:
    """Judges what the peer answers to `asked`, whose places are the peer's rows, and notes when."""

    def __init__(self, config: RunConfig, renderer: ReadsTokens, asked: Sequence[Problem]) -> None:
        self._config = config
        self._renderer = renderer
        self._asked = asked
        self._groups: list[JudgedGroup] = []
        self._steps: list[Step] = []

    async def follow(
        self, judge: Judge, command: Sequence[str], environment: dict[str, str], log: Path
    ) -> Trail:
        """The peer's run, from its start to its end. AprielError when it took no step."""
        began = time.monotonic()
        with log.open("wb") as stderr:
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=stderr,
                env=os.environ | environment,
                limit=_LINE_BYTES,
            )
        try:
            zero = await self._talk(process, judge)
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()
        if zero == math.inf or not self._steps:
            raise AprielError(f"the peer ended with {process.returncode} before its first step: {log}")
        return Trail(zero - began, self._groups, self._steps)

    async def _talk(self, process: asyncio.subprocess.Process, judge: Judge) -> float:
        """When it sent its first prompt."""
        assert process.stdin and process.stdout
        zero = math.inf
        num_judged = num_with_signal = 0
        async for line in process.stdout:
            message: Message = json.loads(line)
            match message["event"]:
                case "start":
                    zero = time.monotonic()
                case "judge":
                    groups = await self._judge(judge, message["rows"], message["tokens"])
                    shaped_NG = [shape_group(group, self._config) for group in groups]
                    self._note(groups, shaped_NG, time.monotonic() - zero)
                    num_judged += sum(map(len, shaped_NG))
                    num_with_signal += sum(len(shaped_G) for shaped_G in shaped_NG if self._teaches(shaped_G))
                    rewards = [shaped.total for shaped_G in shaped_NG for shaped in shaped_G]
                    process.stdin.write(json.dumps(rewards).encode() + b"\n")
                    await process.stdin.drain()
                case "step":
                    self._steps.append(Step(time.monotonic() - zero, num_judged, num_with_signal))
                    num_judged = num_with_signal = 0
                case _:
                    break
        return zero

    async def _judge(self, judge: Judge, rows: Sequence[int], tokens: Sequence[Sequence[int]]) -> list[Group]:
        size = self._config.rollout.group_size
        assert len(rows) % size == 0 and all(
            len(set(rows[i : i + size])) == 1 for i in range(0, len(rows), size)
        )
        answers = await asyncio.gather(
            *(self._answer(judge, self._asked[row], ids) for row, ids in zip(rows, tokens, strict=True))
        )
        return [
            Group(id=i, problem=self._asked[rows[i]], rollouts_G=tuple(answers[i : i + size]), version=0)
            for i in range(0, len(rows), size)
        ]

    async def _answer(self, judge: Judge, problem: Problem, ids: Sequence[int]) -> Rollout:
        """As a server of ours would have stopped it: at the budget of its domain."""
        tokens_T = tuple(ids[: self._config.budget_of(problem.domain)])
        text = self._renderer.decode(tokens_T)
        return Rollout(
            tokens_T=tokens_T,
            logprobs_T=(),
            text=text,
            finish="stop" if tokens_T and tokens_T[-1] in self._renderer.stop_ids else "length",
            version_first=0,
            version_last=0,
            verdict=await judge.grade(problem, problem.whole(text)),
            seconds=0.0,
            server="trl",
        )

    def _note(
        self, groups: Sequence[Group], shaped_NG: Sequence[Sequence[ShapedReward]], seconds: float
    ) -> None:
        for group, shaped_G in zip(groups, shaped_NG, strict=True):
            mean = fmean(shaped.task for shaped in shaped_G)
            self._groups.append(JudgedGroup(seconds, group.problem.domain, mean, len(shaped_G)))

    def _teaches(self, shaped_G: Sequence[ShapedReward]) -> bool:
        """Whether our feed would have kept the group."""
        advantage = self._config.advantage
        return keeps(shaped_G, advantage.filter_on, min_std=advantage.min_std)
