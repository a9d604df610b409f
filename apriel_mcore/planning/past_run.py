"""What did a run do, and when? Its recipe, steps, groups and answers, as its directory tells."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import msgspec

from apriel_mcore.config.load import load
from apriel_mcore.config.schema import LocalServers, RunConfig
from apriel_mcore.errors import InputError
from apriel_mcore.obs import timeline
from apriel_mcore.obs.runlog import Event, read_events
from apriel_mcore.obs.spans import Span
from apriel_mcore.obs.trained import read_groups, step_file
from apriel_mcore.types import Group

_FEWEST_STEPS = 2


class PastRun(msgspec.Struct, frozen=True, kw_only=True):
    """A finished run of one trainer rank and servers of its own on one host."""

    name: str
    config: RunConfig
    num_cores: int
    steps: list[Event]
    groups: list[list[Group]]
    """Of each step."""
    spans: list[Span]

    @classmethod
    def read(cls, run_dir: Path) -> Self:
        """InputError for a run of another kind, or one that is too short to tell anything."""
        if not (run_dir / "resolved.toml").is_file():
            raise InputError(f"{run_dir}: no run: it has no resolved.toml; give the --run-dir of one")
        config = load(run_dir / "resolved.toml")
        servers = config.rollout.servers
        if not isinstance(servers, LocalServers) or config.train.device != "cpu":
            raise InputError(f"{run_dir}: trainer and servers do not share a CPU host (train.device)")
        if config.train.parallel.world_size > 1:
            raise InputError(f"{run_dir}: train.parallel has more than one rank; give a run with one")
        steps = [event for event in read_events(run_dir / "events.jsonl") if event["event"] == "step"]
        if len(steps) < _FEWEST_STEPS:
            raise InputError(f"{run_dir}: {len(steps)} steps; {_FEWEST_STEPS} at least tell something")
        return cls(
            name=run_dir.name,
            config=config,
            num_cores=json.loads((run_dir / "provenance.json").read_text(encoding="utf-8"))["cores"],
            steps=steps,
            groups=[read_groups(step_file(run_dir / "rollouts", event["step"])) for event in steps],
            spans=[span for line in timeline.read(run_dir / "timeline") for span in line.spans],
        )

    @property
    def servers(self) -> LocalServers:
        """`read` accepted no others."""
        assert isinstance(self.config.rollout.servers, LocalServers)
        return self.config.rollout.servers

    @property
    def threads(self) -> int:
        """Of the trainer (launcher.thread_environment)."""
        return self.config.train.threads or self.num_cores

    def spans_of(self, *names: str) -> list[Span]:
        """In the order of their ends."""
        return [span for span in self.spans if span.name in names]

    @property
    def takes_turns(self) -> bool:
        """Trainer and servers never work at the same time."""
        return self.config.rollout.max_lag == 0


def num_tokens(groups: Sequence[Group], config: RunConfig) -> int:
    """That a step on these groups trains, prompts included."""
    return sum(
        num_prompts(group.rollouts_G, config) * len(group.problem.prompt_T)
        + sum(len(rollout.tokens_T) for rollout in group.rollouts_G)
        for group in groups
    )


def num_prompts(rollouts_G: Sequence[object], config: RunConfig) -> int:
    """How often the trainer computes the prompt of a group, where rows have room for all of it."""
    return 1 if config.train.share_prompts else len(rollouts_G)
