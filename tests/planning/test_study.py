"""Several plans at once, and what `apriel plan` prints of them."""

import pytest

from apriel_mcore.planning import report, study
from apriel_mcore.planning.workload import cut_mean, with_sigma
from tests.planning.asked import QUESTION, with_settings

SMALL = with_settings("train.groups_per_step=5")


@pytest.fixture(scope="module")
def found() -> study.Study:
    return study.run(SMALL, study.Wanted(gpus=[16, 8], most_lag=2.0, weak_from=8, skews=[1.2]))


def test_a_study_has_a_plan_for_each_size_in_the_order_asked(found):
    assert list(found.plans) == [16, 8]
    assert all(plan.chosen.max_lag <= 2 for plan in found.plans.values())
    assert all(plan.chosen.split.num_gpus <= num for num, plan in found.plans.items())


def test_weak_scaling_trains_a_batch_in_proportion(found):
    double, single = found.plans.values()
    trained = [one.by_lag[0].trained_tokens_per_s * one.by_lag[0].step_s for one in (double, single)]
    assert trained[0] / trained[1] == pytest.approx(2, rel=0.15)


def test_the_report_has_the_steps_of_every_lag_and_says_what_it_leaves_out(found):
    text = "\n".join(report.lines(found, SMALL, origin="assumed", weak_from=8))
    assert "40 rollouts a step at 8 GPUs, in proportion at others" in text
    for plan in found.plans.values():
        for one in plan.by_lag:
            assert f"{one.step_s:.1f} +- {one.step_spread_s:.1f}" in text
    assert "prices staleness" in text
    assert "| 1.2 |" in text
    assert report.page(found, SMALL, origin="assumed", weak_from=8).count("<svg") == 6


@pytest.mark.parametrize("sigma", [0.1, 0.4, 1.2, 2.0])
def test_another_spread_keeps_the_mean_after_the_cut(sigma):
    for one in QUESTION.lengths.values():
        other = with_sigma(one, sigma, budget=16000)
        assert other.sigma == sigma
        assert cut_mean(other, budget=16000) == pytest.approx(cut_mean(one, budget=16000), rel=1e-6)


def test_the_mean_after_the_cut_is_that_of_the_draws():
    expected = QUESTION.mean.trained_tokens / QUESTION.num_rollouts
    ratios = {name: domain.ratio for name, domain in QUESTION.config.domains.items()}
    means = {name: cut_mean(one, budget=16000) + one.prompt for name, one in QUESTION.lengths.items()}
    weighted = sum(ratio * means[name] for name, ratio in ratios.items()) / sum(ratios.values())
    assert weighted == pytest.approx(expected, rel=0.02)
