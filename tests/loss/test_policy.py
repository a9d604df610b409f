"""Policy losses against plain loops, finite differences, hand calculations and other packings."""

import math
from dataclasses import dataclass
from typing import Literal, get_args, get_type_hints

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from apriel_mcore.config.schema import Loss
from apriel_mcore.loss.policy import KINDS, RowLoss, policy_loss

Kind = Literal["gspo", "ppo_clip", "reinforce_is", "grpo_token_mean", "grpo_seq_mean", "cispo"]
LOW, HIGH = 0.2, 0.28
NUM_ROLLOUTS = 16
NUM_TOKENS = 40
VARIANTS = [Loss(kind=kind, clip_low=LOW, clip_high=HIGH) for kind in get_args(Kind)] + [
    Loss(kind="gspo", clip_low=LOW, clip_high=HIGH, length_weight="uniform")
]
FROZEN_WEIGHT = ("reinforce_is", "cispo")
"""Kinds whose importance weight has no gradient."""
DIFFERENTIABLE = [variant for variant in VARIANTS if variant.kind not in FROZEN_WEIGHT]
STOP_GRADIENT = [variant for variant in VARIANTS if variant.kind in FROZEN_WEIGHT]


def name(variant: Loss) -> str:
    return f"{variant.kind}-{variant.length_weight}"


@dataclass(frozen=True)
class Answer:
    """One sample of a test row."""

    new_T: list[float]
    old_T: list[float]
    advantage: float


def row_loss(
    answers: list[Answer], variant: Loss, dtype: torch.dtype = torch.float64
) -> tuple[RowLoss, Tensor]:
    """The product's loss of one row, and its gradient by token."""
    logprobs_T = torch.tensor([x for a in answers for x in a.new_T], dtype=dtype, requires_grad=True)
    result = policy_loss(
        logprobs_T,
        behaviour_T=torch.tensor([x for a in answers for x in a.old_T], dtype=dtype),
        sample_T=torch.tensor([n for n, a in enumerate(answers) for _ in a.new_T], dtype=torch.int64),
        advantages_N=torch.tensor([a.advantage for a in answers], dtype=dtype),
        num_rollouts=NUM_ROLLOUTS,
        num_tokens=NUM_TOKENS,
        settings=variant,
    )
    (gradient_T,) = torch.autograd.grad(result.loss, logprobs_T)
    return result, gradient_T


# --- the recipe's table as plain loops ---------------------------------------------------------------


def clip(ratio: float) -> float:
    return min(max(ratio, 1 - LOW), 1 + HIGH)


def pessimistic(ratio: float, advantage: float) -> tuple[float, float, bool]:
    """min( ratio A, clip(ratio) A ), its derivative by log(ratio), and whether the clip decided."""
    free, bound = ratio * advantage, clip(ratio) * advantage
    return (bound, 0.0, True) if bound < free else (free, free, False)


def oracle(answers: list[Answer], variant: Loss) -> tuple[float, list[float], int]:
    """Loss, its gradient by token and the clipped tokens, term by term."""
    loss, gradient_T, clipped = 0.0, [], 0
    for answer in answers:
        size = len(answer.new_T)
        x_T = [new - old for new, old in zip(answer.new_T, answer.old_T, strict=True)]
        if variant.kind == "gspo":
            rho = math.exp(sum(x_T) / size)
            mean_length = NUM_TOKENS / NUM_ROLLOUTS
            weight = (size if variant.length_weight == "tokens" else mean_length) / NUM_ROLLOUTS
            value, slope, is_clipped = pessimistic(rho, answer.advantage)
            loss -= weight * value
            gradient_T += [-weight * slope / size] * size
            clipped += size * is_clipped
            continue
        for x, new in zip(x_T, answer.new_T, strict=True):
            ratio = math.exp(x)
            if variant.kind == "reinforce_is":
                weight = min(ratio, 1 + HIGH) * answer.advantage / NUM_ROLLOUTS
                loss, slope, is_clipped = loss - weight * new, weight, ratio > 1 + HIGH
            elif variant.kind == "cispo":
                weight = clip(ratio) * answer.advantage / NUM_TOKENS
                loss, slope, is_clipped = loss - weight * new, weight, clip(ratio) != ratio
            else:
                share = {
                    "ppo_clip": 1 / NUM_ROLLOUTS,
                    "grpo_token_mean": 1 / NUM_TOKENS,
                    "grpo_seq_mean": 1 / NUM_ROLLOUTS / size,
                }[variant.kind]
                value, slope, is_clipped = pessimistic(ratio, answer.advantage)
                loss, slope = loss - share * value, share * slope
            gradient_T.append(-slope)
            clipped += is_clipped
    return loss, gradient_T, clipped


def off_the_kink(answer: Answer) -> bool:
    """Ratios, of tokens and of the sequence, that rounding cannot carry across a clip bound."""
    x_T = [new - old for new, old in zip(answer.new_T, answer.old_T, strict=True)]
    return all(
        abs(x - math.log(bound)) > 1e-4 for x in (*x_T, sum(x_T) / len(x_T)) for bound in (1 - LOW, 1 + HIGH)
    )


@st.composite
def answers(draw: st.DrawFn) -> Answer:
    size = draw(st.integers(1, 6))
    token_values = st.lists(st.floats(-4, -0.01), min_size=size, max_size=size)
    gaps_T = draw(st.lists(st.floats(-0.7, 0.7), min_size=size, max_size=size))
    new_T = draw(token_values)
    old_T = [new - gap for new, gap in zip(new_T, gaps_T, strict=True)]
    return Answer(new_T, old_T, draw(st.sampled_from([-1.0, -1 / 3, 0.0, 0.5, 1.0])))


rows = st.lists(answers().filter(off_the_kink), min_size=1, max_size=5)


def test_every_kind_of_the_recipe_is_registered() -> None:
    assert set(KINDS) == set(get_args(get_type_hints(Loss)["kind"])) == set(get_args(Kind))


@pytest.mark.parametrize("variant", VARIANTS, ids=name)
@given(row=rows)
@settings(max_examples=60, deadline=None)
def test_loss_gradient_and_clipped_tokens_equal_plain_loops(variant: Loss, row: list[Answer]) -> None:
    result, gradient_T = row_loss(row, variant)
    loss, expected_T, clipped = oracle(row, variant)
    assert result.loss.item() == pytest.approx(loss, rel=1e-10, abs=1e-12)
    assert gradient_T.tolist() == pytest.approx(expected_T, rel=1e-10, abs=1e-12)
    assert result.sums.clipped_tokens.item() == clipped


MIXED_ROW = [  # tokens inside, above and below the bounds, both signs; sequences inside, above and below
    Answer([-0.5, -1.0, -0.2], [-0.6, -1.5, -0.1], 1.0),
    Answer([-0.5, -1.0], [-0.9, -1.6], 0.75),
    Answer([-2.0, -0.4, -1.0, -0.1], [-1.5, -0.3, -1.6, -0.1], -0.5),
    Answer([-2.0, -1.9], [-1.5, -1.2], -1.0),
    Answer([-1.0], [-1.4], -0.25),
]


@pytest.mark.parametrize("variant", DIFFERENTIABLE, ids=name)
def test_gradient_by_finite_differences(variant: Loss) -> None:
    def loss_of(logprobs_T: Tensor) -> Tensor:
        return policy_loss(
            logprobs_T,
            behaviour_T=torch.tensor([x for a in MIXED_ROW for x in a.old_T], dtype=torch.float64),
            sample_T=torch.tensor([n for n, a in enumerate(MIXED_ROW) for _ in a.new_T]),
            advantages_N=torch.tensor([a.advantage for a in MIXED_ROW], dtype=torch.float64),
            num_rollouts=NUM_ROLLOUTS,
            num_tokens=NUM_TOKENS,
            settings=variant,
        ).loss

    start_T = torch.tensor([x for a in MIXED_ROW for x in a.new_T], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(loss_of, (start_T,))


@pytest.mark.parametrize("variant", STOP_GRADIENT, ids=name)
def test_the_importance_weight_has_no_gradient(variant: Loss) -> None:
    """The gradient is that of the surrogate whose weights are frozen, which is linear in log pi."""
    _, gradient_T = row_loss(MIXED_ROW, variant)
    step = 1e-6
    for position in range(len(gradient_T)):
        shifted = [surrogate(MIXED_ROW, variant, position=position, shift=shift) for shift in (step, -step)]
        slope = (shifted[0] - shifted[1]) / (2 * step)
        assert gradient_T[position].item() == pytest.approx(slope, rel=1e-6, abs=1e-9)


def surrogate(row: list[Answer], variant: Loss, *, position: int, shift: float) -> float:
    """The loss with log pi of one token moved while every importance weight stays where it was."""
    total, index = 0.0, 0
    for answer in row:
        for new, old in zip(answer.new_T, answer.old_T, strict=True):
            ratio = math.exp(new - old)
            if variant.kind == "cispo":
                weight = clip(ratio) / NUM_TOKENS
            else:
                weight = min(ratio, 1 + HIGH) / NUM_ROLLOUTS
            total -= weight * answer.advantage * (new + (shift if index == position else 0.0))
            index += 1
    return total


# --- by hand -----------------------------------------------------------------------------------------


def test_gspo_by_hand() -> None:
    """Mean x of 0.1 and 0.4, A = 1 and 2: the first is inside 1.28, the second above it."""
    row = [Answer([-1.0, -1.0], [-1.2, -1.0], 1.0), Answer([-1.0] * 3, [-1.5, -1.3, -1.4], 2.0)]
    result, gradient_T = row_loss(row, Loss(clip_low=LOW, clip_high=HIGH))
    assert result.loss.item() == pytest.approx(-(2 * math.exp(0.1) * 1.0 + 3 * 1.28 * 2.0) / 16)
    assert gradient_T.tolist() == pytest.approx([-math.exp(0.1) / 16] * 2 + [0.0] * 3)
    assert result.sums.clipped_tokens.item() == 3


def test_gspo_uniform_by_hand() -> None:
    """Each sequence weighs mean|y| / Bs = (40 / 16) / 16, whatever its own length."""
    row = [Answer([-1.0, -1.0], [-1.2, -1.0], 1.0), Answer([-1.0] * 3, [-1.5, -1.3, -1.4], 2.0)]
    result, gradient_T = row_loss(row, Loss(clip_low=LOW, clip_high=HIGH, length_weight="uniform"))
    weight = 2.5 / 16
    assert result.loss.item() == pytest.approx(-weight * (math.exp(0.1) + 2.56))
    assert gradient_T.tolist() == pytest.approx([-weight * math.exp(0.1) / 2] * 2 + [0.0] * 3)


@pytest.mark.parametrize("variant", DIFFERENTIABLE, ids=name)
@pytest.mark.parametrize(
    ("gap", "advantage", "is_clipped"),
    [
        (0.4, 1.0, True),  # good and already likelier than the bound: no further pull
        (0.4, -1.0, False),  # bad and likelier: still pushed down
        (-0.4, -1.0, True),  # bad and already rarer than the bound: no further push
        (-0.4, 1.0, False),  # good and rarer: still pulled up
        (0.1, 1.0, False),
        (-0.1, -1.0, False),
        (0.4, 0.0, False),  # nothing to clip
    ],
)
def test_the_clip_acts_only_where_the_step_has_gone_far_enough(
    variant: Loss, gap: float, advantage: float, is_clipped: bool
) -> None:
    result, gradient_T = row_loss([Answer([-1.0, -2.0], [-1.0 - gap, -2.0 - gap], advantage)], variant)
    assert result.sums.clipped_tokens.item() == 2 * is_clipped
    assert bool((gradient_T == 0).all()) == (is_clipped or advantage == 0.0)


def test_cispo_and_reinforce_keep_the_gradient_of_clipped_tokens() -> None:
    row = [Answer([-1.0, -1.0], [-1.4, -0.6], 1.0)]
    cispo, cispo_T = row_loss(row, Loss(kind="cispo", clip_low=LOW, clip_high=HIGH))
    reinforce, reinforce_T = row_loss(row, Loss(kind="reinforce_is", clip_low=LOW, clip_high=HIGH))
    assert cispo_T.tolist() == pytest.approx([-1.28 / 40, -0.8 / 40])
    assert reinforce_T.tolist() == pytest.approx([-1.28 / 16, -math.exp(-0.4) / 16])
    assert (cispo.sums.clipped_tokens.item(), reinforce.sums.clipped_tokens.item()) == (2, 1)


@pytest.mark.parametrize("variant", VARIANTS, ids=name)
def test_on_policy_every_kind_is_reinforce_with_its_own_weights(variant: Loss) -> None:
    """At ratio 1 nothing is clipped, even with bounds of 0, and the gradient is -weight * A."""
    on_policy = Loss(kind=variant.kind, clip_low=0.0, clip_high=0.0, length_weight=variant.length_weight)
    result, gradient_T = row_loss([Answer([-0.5, -1.5], [-0.5, -1.5], 0.75)], on_policy)
    weight = {
        "gspo-tokens": 1 / NUM_ROLLOUTS,
        "gspo-uniform": NUM_TOKENS / NUM_ROLLOUTS**2 / 2,
        "ppo_clip-tokens": 1 / NUM_ROLLOUTS,
        "reinforce_is-tokens": 1 / NUM_ROLLOUTS,
        "grpo_token_mean-tokens": 1 / NUM_TOKENS,
        "grpo_seq_mean-tokens": 1 / NUM_ROLLOUTS / 2,
        "cispo-tokens": 1 / NUM_TOKENS,
    }[name(variant)]
    assert gradient_T.tolist() == pytest.approx([-0.75 * weight] * 2)
    assert result.sums.clipped_tokens.item() == 0


# --- packing -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", VARIANTS, ids=name)
@given(row=rows, choices=st.lists(st.integers(0, 3), min_size=5, max_size=5))
@settings(max_examples=40, deadline=None)
def test_any_packing_has_the_same_loss_gradient_and_metrics(
    variant: Loss, row: list[Answer], choices: list[int]
) -> None:
    """The samples of a row, dealt over four rows (some empty), against all in one."""
    whole, whole_T = row_loss(row, variant)
    by_answer = dict(enumerate(torch.split(whole_T, [len(a.new_T) for a in row])))
    parts = [[n for n in range(len(row)) if choices[n] == part] for part in range(4)]
    results = [row_loss([row[n] for n in part], variant) for part in parts]

    assert sum(result.loss.item() for result, _ in results) == pytest.approx(whole.loss.item(), abs=1e-12)
    for part, (_, gradient_T) in zip(parts, results, strict=True):
        expected_T = torch.cat([by_answer[n] for n in part]) if part else torch.zeros(0)
        assert gradient_T.tolist() == pytest.approx(expected_T.tolist(), abs=1e-12)
    summed = torch.stack([torch.stack(result.sums) for result, _ in results]).sum(0)
    assert summed.tolist() == pytest.approx(torch.stack(whole.sums).tolist(), abs=1e-9)
    assert max(r.max_abs_log_ratio.item() for r, _ in results) == whole.max_abs_log_ratio.item()


@pytest.mark.parametrize("variant", VARIANTS, ids=name)
def test_the_order_of_tokens_in_the_row_does_not_matter(variant: Loss) -> None:
    order_T = torch.randperm(12, generator=torch.Generator().manual_seed(0))
    new_T = torch.tensor([x for a in MIXED_ROW for x in a.new_T], dtype=torch.float64)
    old_T = torch.tensor([x for a in MIXED_ROW for x in a.old_T], dtype=torch.float64)
    sample_T = torch.tensor([n for n, a in enumerate(MIXED_ROW) for _ in a.new_T])
    shuffled = policy_loss(
        new_T[order_T],
        behaviour_T=old_T[order_T],
        sample_T=sample_T[order_T],
        advantages_N=torch.tensor([a.advantage for a in MIXED_ROW], dtype=torch.float64),
        num_rollouts=NUM_ROLLOUTS,
        num_tokens=NUM_TOKENS,
        settings=variant,
    )
    assert shuffled.loss.item() == pytest.approx(row_loss(MIXED_ROW, variant)[0].loss.item())


@pytest.mark.parametrize("variant", VARIANTS, ids=name)
def test_an_empty_row_is_zero_and_still_runs_backward(variant: Loss) -> None:
    result, gradient_T = row_loss([], variant)
    assert result.loss.requires_grad
    assert result.loss.item() == 0.0
    assert gradient_T.shape == (0,)
    assert torch.stack(result.sums).tolist() == [0.0] * 5
    assert result.max_abs_log_ratio.item() == 0.0


@pytest.mark.parametrize("variant", VARIANTS, ids=name)
def test_a_sample_without_tokens_contributes_nothing(variant: Loss) -> None:
    alone, alone_T = row_loss(MIXED_ROW, variant)
    with torch.autograd.set_detect_anomaly(True):  # no NaN on the way either
        beside, beside_T = row_loss([*MIXED_ROW, Answer([], [], 1.0)], variant)
    assert beside.loss.item() == alone.loss.item()
    assert beside_T.tolist() == alone_T.tolist()


# --- metrics and precision ---------------------------------------------------------------------------


def test_metric_sums_by_hand() -> None:
    result, _ = row_loss([Answer([-1.0, -1.0], [-1.1, -0.7], 1.0), Answer([-2.0], [-2.0], 0.0)], VARIANTS[0])
    k3 = sum(math.exp(x) - 1 - x for x in (0.1, -0.3))
    assert result.sums._asdict() == pytest.approx(
        {"tokens": 3, "sequences": 2, "clipped_tokens": 0, "abs_log_ratio": 0.4, "k3": k3}
    )
    assert result.max_abs_log_ratio.item() == pytest.approx(0.3)
    assert not any(metric.requires_grad for metric in (*result.sums, result.max_abs_log_ratio))


def test_k3_estimates_the_divergence_of_the_server_from_the_trainer() -> None:
    """Its expectation under the server's distribution is KL(server || trainer), exactly."""
    server_V, trainer_V = [0.5, 0.3, 0.2], [0.6, 0.3, 0.1]
    divergence = sum(p * math.log(p / q) for p, q in zip(server_V, trainer_V, strict=True))
    expected = 0.0
    for p, q in zip(server_V, trainer_V, strict=True):
        result, _ = row_loss([Answer([math.log(q)], [math.log(p)], 0.0)], VARIANTS[0])
        expected += p * result.sums.k3.item()
    assert expected == pytest.approx(divergence)


def test_k3_of_tiny_ratios_does_not_cancel() -> None:
    result, _ = row_loss([Answer([-1.0], [-1.0 - 1e-8], 0.0)], VARIANTS[0])
    assert result.sums.k3.item() == pytest.approx(0.5e-16, rel=1e-5, abs=0)


@pytest.mark.parametrize("variant", VARIANTS, ids=name)
def test_float32_log_probs_give_a_float32_loss_and_gradient(variant: Loss) -> None:
    result, gradient_T = row_loss(MIXED_ROW, variant, dtype=torch.float32)
    exact, exact_T = row_loss(MIXED_ROW, variant)
    assert result.loss.dtype == gradient_T.dtype == torch.float32
    assert result.loss.item() == pytest.approx(exact.loss.item(), rel=1e-5)
    assert gradient_T.tolist() == pytest.approx(exact_T.tolist(), rel=1e-5)


@pytest.mark.parametrize(("excess", "is_clipped"), [(1e-8, True), (-1e-8, False)])
def test_a_long_sequence_is_clipped_at_the_bound_and_not_beside_it(excess: float, is_clipped: bool) -> None:
    """Log-probs that float32 holds exactly, 16,384 of them, whose mean ratio is 1e-8 beside the bound."""
    size, gap = 16384, 2.0**-8
    bound = math.expm1(gap) - excess
    new_T, old_T = [-0.5] * size, [-0.5 - gap] * size
    result, _ = row_loss([Answer(new_T, old_T, 1.0)], Loss(clip_high=bound), dtype=torch.float32)
    assert result.sums.clipped_tokens.item() == size * is_clipped


def test_a_token_without_a_sample_is_our_own_mistake() -> None:
    with pytest.raises(AssertionError, match="response token"):
        policy_loss(
            torch.zeros(2),
            behaviour_T=torch.zeros(2),
            sample_T=torch.zeros(1, dtype=torch.int64),
            advantages_N=torch.zeros(1),
            num_rollouts=1,
            num_tokens=2,
            settings=Loss(),
        )
