"""From a recipe to the real objects of one rank: the only place where variants are chosen.

    every rank   learner, publisher, checkpoints
    first rank   the backstage (servers, judges, log), the feed, the evaluator
    the others   a feed that listens

Collectives come in the same order on both sides: start, learner, restore, servers, publisher.
"""

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import msgspec

from apriel_mcore import checkpoint_folder
from apriel_mcore.backstage import Backstage, open_backstage
from apriel_mcore.bridge import shape as model_shape
from apriel_mcore.bridge.publish import VersionPublisher
from apriel_mcore.build.publisher import NoServers, publisher_of
from apriel_mcore.build.rank import Rank
from apriel_mcore.checkpoints import Checkpoints, best_steps, newest_healthy
from apriel_mcore.config.schema import RunConfig
from apriel_mcore.data import constant, model_files, problems
from apriel_mcore.data.controllers import controller_of
from apriel_mcore.data.problems import Dataset
from apriel_mcore.data.prompts import Renderer
from apriel_mcore.data.sampler import DomainScheduler
from apriel_mcore.evaluate import Evaluator, HeldOutEvaluator, NoEvaluator, by_domain
from apriel_mcore.fp8 import kind_of
from apriel_mcore.mcore import checkpoint, parallel
from apriel_mcore.mcore.background_save import BackgroundSave
from apriel_mcore.mcore.learner import MegatronLearner
from apriel_mcore.obs.runlog import Event, read_events
from apriel_mcore.obs.steplog import SilentStepLog, StepFiles, StepLog
from apriel_mcore.obs.stragglers import Stragglers
from apriel_mcore.obs.timeline import Timeline
from apriel_mcore.obs.watch import Watchman
from apriel_mcore.rollout.feed import RolloutFeed
from apriel_mcore.rollout.journal import Journal
from apriel_mcore.rollout.reference import require_references
from apriel_mcore.rollout.shared_feed import FirstRankFeed, ListeningFeed
from apriel_mcore.rollout.shared_start import listen_for_servers, wait_for_servers
from apriel_mcore.rundir import RunDir


class Parts(msgspec.Struct, frozen=True, kw_only=True):
    """What loop.run needs."""

    learner: MegatronLearner
    publisher: VersionPublisher
    feed: FirstRankFeed | ListeningFeed
    evaluator: Evaluator
    log: StepLog
    checkpoints: Checkpoints


def build(config: RunConfig, run_dir: RunDir, *, attempt: int, resources: ExitStack) -> Parts:
    """Everything one rank needs, started; `resources` ends it in reverse order."""
    model = model_files.model_folder(config.model)
    ranks = parallel.start(config.train, seed=config.seed)
    resources.callback(parallel.stop)
    rank = Rank(
        config=config,
        run_dir=run_dir,
        model=model,
        ranks=ranks,
        renderer=Renderer(model),
        resources=resources,
    )
    return _first_rank(rank, attempt) if ranks.is_first else _other_rank(rank, attempt)


def _other_rank(rank: Rank, attempt: int) -> Parts:
    _watch(rank, alarm=None)
    learner, state = _learner(rank, _silent)
    listen_for_servers(rank.ranks)
    publisher = publisher_of(rank, learner, NoServers())
    feed = ListeningFeed(rank.config.stages(), rank.ranks, lambda: publisher.publish(learner.step))
    return Parts(
        learner=learner,
        publisher=publisher,
        feed=feed,
        evaluator=NoEvaluator(),
        log=SilentStepLog(_timeline(rank, attempt)),
        checkpoints=_checkpoints(rank, feed, _saver(rank, learner, _silent), state, prune=_nothing),
    )


def _first_rank(rank: Rank, attempt: int) -> Parts:
    config, run_dir = rank.config, rank.run_dir
    past = read_events(run_dir.events)
    backstage = open_backstage(config, run_dir, rank.model, rank.renderer, rank.resources)
    log = backstage.log
    _watch(rank, alarm=backstage.alarm)
    log.event("phase", message="rollout servers are starting; reading problems and checking their golds")
    dataset = problems.load(config, rank.renderer)
    dataset = backstage.self_check(dataset)
    problems.require_problems(config, dataset)
    require_references(config, dataset, rank.renderer)
    problems.write_rejects(dataset, run_dir.rejects)
    log.event("data", **_counts(dataset))
    log.event("phase", message="building the trainer")
    learner, state = _learner(rank, backstage.alarm)
    log.event("trainer", optimizer=learner.optimizer.implementation, fp8=kind_of(config.train.fp8))
    log.event("resume" if past else "start", step=learner.step, attempt=attempt)
    wait_for_servers(
        rank.ranks,
        backstage,
        stop_requested=run_dir.stop_request.exists,
        tell=lambda message: log.event("phase", message=message),
    )
    publisher = publisher_of(rank, learner, backstage)
    log.event("phase", message="publishing the first weights")
    own_feed = _feed(rank, dataset, backstage, state)
    feed = FirstRankFeed(own_feed, config.stages(), rank.ranks, lambda: publisher.publish(learner.step))
    done = [event for event in past if event.get("step", 0) <= learner.step]
    evaluator = _evaluator(rank, dataset, backstage, done)
    return Parts(
        learner=learner,
        publisher=publisher,
        feed=feed,
        evaluator=evaluator,
        log=StepLog(
            log,
            files=StepFiles(run_dir.rollouts, _timeline(rank, attempt)),
            targets=lambda: own_feed.targets,
            feed_metrics=lambda: own_feed.metrics() | backstage.pool.metrics(),
            stragglers=Stragglers(config.watch.slow_server),
            past=done,
        ),
        checkpoints=_checkpoints(
            rank,
            feed,
            _saver(rank, learner, backstage.alarm),
            state,
            prune=lambda: _prune(config, run_dir.checkpoints, evaluator),
        ),
    )


def _timeline(rank: Rank, attempt: int) -> Timeline:
    return Timeline(rank.run_dir.timeline, rank=rank.ranks.world, attempt=attempt)


def _watch(rank: Rank, *, alarm: Callable[[str], None] | None) -> None:
    """Signs of life of this rank, until it ends."""
    watchman = Watchman(rank.config.watch, rank.run_dir.pulse, rank=rank.ranks.world, alarm=alarm)
    rank.resources.enter_context(watchman)


def _learner(rank: Rank, alarm: Callable[[str], None]) -> tuple[MegatronLearner, dict[str, Any]]:
    """The trainer with the weights of the newest healthy checkpoint, or of the model folder; and the loop's
    state."""
    config = rank.config
    learner = MegatronLearner(
        model_shape.read(rank.model),
        config.train,
        config.loss,
        ranks=rank.ranks,
    )
    newest = newest_healthy(rank.run_dir.checkpoints, rank.ranks, alarm)
    if newest is None:
        learner.load_hf(rank.model)
        return learner, {"step": 0}
    return learner, checkpoint.load(newest, learner)


def _saver(rank: Rank, learner: MegatronLearner, alarm: Callable[[str], None]) -> BackgroundSave:
    saver = BackgroundSave(rank.run_dir.checkpoints, learner, ranks=rank.ranks, tell=alarm)
    rank.resources.callback(saver.close)
    return saver


def _checkpoints(
    rank: Rank,
    feed: FirstRankFeed | ListeningFeed,
    saver: BackgroundSave,
    state: dict[str, Any],
    *,
    prune: Callable[[], None],
) -> Checkpoints:
    return Checkpoints(
        rank.config.checkpoint,
        num_steps=rank.config.train.num_steps,
        last_saved=state["step"],
        feed=feed,
        saver=saver,
        prune=prune,
    )


def _prune(config: RunConfig, root: Path, evaluator: HeldOutEvaluator) -> None:
    best = best_steps(evaluator.accuracy, root, config.checkpoint.keep_best)
    checkpoint_folder.prune(root, keep=config.checkpoint.keep, best=best)


def _nothing() -> None:
    """Files are the first rank's to remove."""


def _silent(message: str) -> None:
    """The first rank speaks for all."""


def _feed(rank: Rank, dataset: Dataset, backstage: Backstage, state: dict[str, Any]) -> RolloutFeed:
    """The feed, with everything that earlier attempts finished."""
    config, run_dir = rank.config, rank.run_dir
    feed = RolloutFeed(
        config,
        scheduler=_scheduler(config, dataset),
        controller=controller_of(config),
        problems={problem.id: problem for part in dataset.train.values() for problem in part},
        asker=backstage.asker,
        journal=Journal(run_dir.rollouts, tell=backstage.alarm),
        loop=backstage.thread.loop,
        stop_requested=run_dir.stop_request.exists,
        weights_wanted=lambda: backstage.pool.needs_weights,
        alarm=backstage.alarm,
    )
    rank.resources.callback(feed.stop)
    feed.restore(state.get("feed") or feed.fresh())
    return feed


def _scheduler(config: RunConfig, dataset: Dataset) -> DomainScheduler:
    return DomainScheduler(
        config.ratios,
        {domain: [problem.id for problem in part] for domain, part in dataset.train.items()},
        groups_per_step=config.train.groups_per_step,
        group_size=config.rollout.group_size,
        settings=config.sampler,
        max_lag=config.rollout.max_lag,
        max_group_age=config.rollout.oldest_group,
        seed=config.seed,
    )


def _evaluator(rank: Rank, dataset: Dataset, backstage: Backstage, past: list[Event]) -> HeldOutEvaluator:
    return HeldOutEvaluator(
        rank.config,
        held_out=dataset.held_out,
        constant=constant.best_constants(dataset.held_out),
        asker=backstage.asker,
        log=backstage.log,
        run_async=backstage.run,
        stop_requested=rank.run_dir.stop_request.exists,
        accuracy={event["step"]: by_domain(event) for event in past if event["event"] == "eval"},
    )


def _counts(dataset: Dataset) -> dict[str, dict[str, int]]:
    return {
        "train": {domain: len(part) for domain, part in dataset.train.items()},
        "held_out": {domain: len(part) for domain, part in dataset.held_out.items()},
        "rejected": {domain: sum(reasons.values()) for domain, reasons in dataset.rejected.items()},
    }
