"""The whole system on one screen: a prompt becomes a better model, again and again.

sampler -> pool -> judge  =>  reward -> advantage -> pack -> train -> publish => pool
'---- feed (background) --'   '-------------- loop (every rank) ------------'
"""

from apriel_mcore.checkpoints import Checkpoints
from apriel_mcore.config.schema import RunConfig
from apriel_mcore.data.packing import pack_step
from apriel_mcore.evaluate import Evaluator
from apriel_mcore.loss.advantage import to_samples
from apriel_mcore.loss.reward import shape_group
from apriel_mcore.obs.steplog import StepLog
from apriel_mcore.seams import Feed, Learner, Publisher


def run(
    config: RunConfig,
    *,
    learner: Learner,
    publisher: Publisher,
    feed: Feed,
    evaluator: Evaluator,
    log: StepLog,
    checkpoints: Checkpoints,
) -> None:
    """Train until `train.num_steps`; the same program on every rank."""
    publisher.publish(learner.step)
    feed.settle(learner.step)
    evaluator.run_if_due(learner.step)

    while learner.step < config.train.num_steps:
        # Oldest first, in the mixture's proportions, each with a learning signal; and their stage's recipe.
        groups, recipe = feed.take()

        # Verdict to reward, minus length where the group finds it easy; then better or worse than siblings.
        shaped_P_G = [shape_group(group, recipe) for group in groups]
        samples = [
            sample
            for group, shaped_G in zip(groups, shaped_P_G, strict=True)
            for sample in to_samples(group, shaped_G, recipe.advantage)
        ]
        batch = pack_step(samples, recipe, num_data_ranks=learner.num_data_ranks)

        stats = learner.train_step(batch)
        publisher.publish(learner.step)
        feed.settle(learner.step)

        log.write(learner.step, groups, shaped_P_G, batch, stats)
        checkpoints.save_if_due(learner.step)
        evaluator.run_if_due(learner.step)
