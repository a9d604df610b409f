"""What is planned for: a recipe, its model, the hardware and how long answers are."""

import msgspec

from apriel_mcore.bridge.shape import ModelShape
from apriel_mcore.config.schema import LocalServers, RunConfig
from apriel_mcore.planning.hardware import Profile
from apriel_mcore.planning.workload import DomainLengths, Mean, mean_step


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """A recipe with servers of its own, and what its step time depends on."""

    config: RunConfig
    shape: ModelShape
    profile: Profile
    lengths: dict[str, DomainLengths]

    @property
    def servers(self) -> LocalServers:
        """Of the recipe."""
        assert isinstance(self.config.rollout.servers, LocalServers)
        return self.config.rollout.servers

    @property
    def mean(self) -> Mean:
        """The expected step."""
        ratios = {name: domain.ratio for name, domain in self.config.domains.items()}
        return mean_step(self.lengths, ratios, rollouts=self.num_rollouts, budget=self.budget)

    @property
    def num_rollouts(self) -> int:
        """Trained in a step."""
        return self.config.train.groups_per_step * self.config.rollout.group_size

    @property
    def budget(self) -> int:
        """Output tokens."""
        return self.config.rollout.max_output_tokens

    @property
    def prompt(self) -> float:
        """Mean over domains."""
        return sum(one.prompt for one in self.lengths.values()) / len(self.lengths)
