"""What does one optimizer step look like from outside? The `step` event, a pure function of its parts."""

from collections.abc import Mapping, Sequence
from statistics import fmean

from apriel_mcore.data.packing import balance
from apriel_mcore.loss.reference import mean_probability
from apriel_mcore.types import Batch, Group, ShapedReward, StepStats

Shaped = Sequence[Sequence[ShapedReward]]


def step_event(
    *,
    step: int,
    groups: Sequence[Group],
    shaped_P_G: Shaped,
    batch: Batch,
    stats: StepStats,
    targets: Mapping[str, float],
    trained_before: Mapping[str, int],
    seconds: Mapping[str, float],
) -> dict[str, object]:
    """The fields of contract `step`; `trained_before` counts groups of earlier steps by domain.

    `targets` is what the share of all groups trained so far should be.

    `seconds` holds the spans wait, train, publish and checkpoint since the last step; `tokens_per_s` is over
    all of them and counts prompts too, `tokens_trained` only what the loss sees.
    """
    rollouts = [rollout for group in groups for rollout in group.rollouts_G]
    lags = [step - 1 - group.version for group in groups]
    tokens_generated = sum(len(rollout.tokens_T) for rollout in rollouts)
    num_tokens = sum(sample.num_tokens for sample in batch.samples)
    wall = sum(seconds.values())
    event: dict[str, object] = {
        "step": step,
        "reward_mean": fmean(reward.task for row in shaped_P_G for reward in row),
        "shaped_reward_mean": fmean(reward.total for row in shaped_P_G for reward in row),
        "length_penalty_mean": fmean(reward.factor * reward.length for row in shaped_P_G for reward in row),
        "truncated_fraction": fmean(rollout.truncated for rollout in rollouts),
        "loss": stats.loss,
        "grad_norm": stats.grad_norm,
        "lr": stats.lr,
        "entropy": stats.entropy,
        "clip_fraction": stats.clip_fraction,
        "logprob_abs_diff": stats.logprob_abs_diff,
        "kl_rollout_train": stats.kl_rollout_train,
        "lag_mean": fmean(lags),
        "lag_max": max(lags),
        "tokens_trained": stats.tokens_trained,
        "tokens_generated": tokens_generated,
        "packing_fill": stats.packing_fill,
        "packing_balance": balance(batch),
        "samples": len(batch.samples),
        "time_wait_s": seconds.get("wait", 0.0),
        "time_train_s": seconds.get("train", 0.0),
        "time_publish_s": seconds.get("publish", 0.0),
        "time_checkpoint_s": seconds.get("checkpoint", 0.0),
        "tokens_per_s": num_tokens / wall if wall > 0 else 0.0,
    }
    return event | _per_domain(groups, shaped_P_G, targets, trained_before)


def _per_domain(
    groups: Sequence[Group],
    shaped_P_G: Shaped,
    targets: Mapping[str, float],
    trained_before: Mapping[str, int],
) -> dict[str, object]:
    """Fields that end in a domain's name; a domain absent from this step has no reward there."""
    trained = {name: trained_before.get(name, 0) for name in targets}
    fields: dict[str, object] = {}
    for name, target in targets.items():
        mine = [
            (group, row)
            for group, row in zip(groups, shaped_P_G, strict=True)
            if group.problem.domain == name
        ]
        trained[name] += len(mine)
        fields[f"trained_groups.{name}"] = len(mine)
        fields[f"target_share.{name}"] = target
        if not mine:
            continue
        rollouts = [rollout for group, _ in mine for rollout in group.rollouts_G]
        fields[f"reward.{name}"] = fmean(reward.task for _, row in mine for reward in row)
        fields[f"solve_rate.{name}"] = fmean(rollout.verdict.success for rollout in rollouts)
        fields[f"overlong_success.{name}"] = fmean(
            rollout.truncated and rollout.verdict.success for rollout in rollouts
        )
        if any(rollout.reference_logprobs_T for rollout in rollouts):
            fields[f"reference_probability.{name}"] = fmean(
                mean_probability(rollout.reference_logprobs_T) for rollout in rollouts
            )
        lengths = sorted(len(rollout.tokens_T) for rollout in rollouts)
        fields[f"tokens_mean.{name}"] = fmean(lengths)
        fields[f"tokens_p10.{name}"] = lengths[len(lengths) // 10]
        fields[f"tokens_p90.{name}"] = lengths[9 * (len(lengths) - 1) // 10]
    total = sum(trained.values())
    fields |= {f"trained_share.{name}": count / total for name, count in trained.items()}
    return fields
