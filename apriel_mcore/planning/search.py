"""Which split and layout of N GPUs is fastest, and what would the run look like?

recipe + N --> layouts that fit (memory.py) x servers that fit --> fastest by closed form --> simulation
"""

from collections.abc import Iterator
from itertools import product

import msgspec

from apriel_mcore.bridge.shape import ModelShape
from apriel_mcore.config.schema import EngineFp8, LocalServers, Parallel, RunConfig
from apriel_mcore.errors import InputError
from apriel_mcore.memory import GB, RESERVED_BYTES, ServerMemory, server_memory, training_memory
from apriel_mcore.planning.flops import Decoder
from apriel_mcore.planning.hardware import Profile
from apriel_mcore.planning.pool import Decode, Fleet, decode
from apriel_mcore.planning.simulation import Limits, Simulation, Trace, scheduler_of
from apriel_mcore.planning.trainer import Layout, Load, step_time
from apriel_mcore.planning.workload import ROW_FILL, Answers, DomainLengths, Mean, mean_step

_RECOMPUTE = {"none": 0.0, "selective": 0.7, "full": 1.0}
"""Of a layer's forward products: the feed-forward part is some 70% of them."""
_POWERS = (1, 2, 4, 8)
_UNLIMITED = 10**9
LAGS = (1.0, 2.0, 4.0, 8.0)
"""Bounds that the search tries."""


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """What is planned for."""

    config: RunConfig
    shape: ModelShape
    profile: Profile
    lengths: dict[str, DomainLengths]

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


class Split(msgspec.Struct, frozen=True, kw_only=True):
    """One way to use the GPUs, with what closed forms say of it."""

    parallel: Parallel
    recompute: str
    server_tensor: int
    num_servers: int
    places: int
    train_s: float
    publish_s: float
    generate_s: float
    """Of one step's answers by the whole pool, filtered groups included, by as many answers at a time as the
    lag allows; not less than the longest answer over the steps that it may span."""

    @property
    def step_s(self) -> float:
        """The slower side."""
        return max(self.train_s + self.publish_s, self.generate_s)


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What the simulation saw, after its warm-up."""

    split: Split
    max_lag: float
    step_s: float
    wait_share: float
    lag_mean: float
    lag_max: int
    rollouts_per_s: float
    trained_tokens_per_s: float
    mfu: float
    """Of the trainer's GPUs, over the whole step."""
    usd_per_step: float

    @property
    def bottleneck(self) -> str:
        """The side that the other one waits for."""
        return "servers" if self.wait_share > 0.1 else "trainer"


def splits(question: Question, num_gpus: int, *, max_lag: float) -> list[Split]:
    """All that fit, fastest first; InputError if none does."""
    mean = question.mean
    trainers = list(_trainers(question, mean, num_gpus))
    servers = list(_servers(question, mean))
    found = [
        _split(question, mean, trainer, server, num_gpus=num_gpus, max_lag=max_lag)
        for trainer, server in product(trainers, servers)
        if num_gpus - trainer[0].world_size >= server[0]
    ]
    if not found:
        raise InputError(
            f"--gpus {num_gpus}: no layout of the model leaves room for a server; give more or larger GPUs"
        )
    return sorted(found, key=lambda split: (split.step_s, split.parallel.world_size))


def _trainers(question: Question, mean: Mean, num_gpus: int) -> Iterator[tuple[Parallel, str, float]]:
    """Layouts whose fullest stage fits, each with the weakest recomputation that makes it fit."""
    shape = question.shape
    for tensor, pipeline, context in product(_POWERS, (1, 2, 4), _POWERS):
        replica = tensor * pipeline * context
        divides = not (shape.num_kv_heads % tensor or shape.num_heads % tensor or shape.num_layers % pipeline)
        if not divides or replica > 16 or replica >= num_gpus:
            continue
        for data in _data_sizes(num_gpus, replica):
            parallel = Parallel(
                tensor=tensor,
                pipeline=pipeline,
                context=context,
                data=data,
                sequence=tensor > 1,
                distributed_optimizer=True,
            )
            recompute = _weakest_recompute(question, parallel)
            if recompute:
                seconds = train_seconds(question, parallel, recompute, mean.trained_tokens, mean.context)
                yield parallel, recompute, seconds


def _data_sizes(num_gpus: int, replica: int) -> list[int]:
    """Up to four, then about 32 sizes evenly spread."""
    most = (num_gpus - 1) // replica
    step = max(1, most // 32)
    return [data for data in range(1, most + 1) if data <= 4 or data % step == 0]


def _weakest_recompute(question: Question, parallel: Parallel) -> str:
    """The first of none, selective, full that fits; empty if nothing does."""
    room = question.profile.device.memory_gb * GB - RESERVED_BYTES
    for recompute in ("none", "selective", "full"):
        train = msgspec.structs.replace(question.config.train, parallel=parallel, recompute=recompute)
        stages = training_memory(
            question.shape,
            train,
            num_micro_batches=question.num_rollouts,
            weights_in=question.config.publish.weights,
        )
        if max(stage.total for stage in stages) <= room:
            return recompute
    return ""


def train_seconds(
    question: Question, parallel: Parallel, recompute: str, tokens: float, context: float
) -> float:
    """Of one optimizer step on `tokens` tokens of sequences with mean length `context`."""
    rows = -(-tokens // (question.config.train.seq_len * ROW_FILL))
    per_rank = int(-(-rows // parallel.data))
    layout = Layout(
        tensor=parallel.tensor,
        pipeline=parallel.pipeline,
        virtual=parallel.virtual_pipeline,
        context=parallel.context,
        data=parallel.data,
        fp8=isinstance(question.config.train.fp8, EngineFp8),
        fp32_head=True,
        recompute=_RECOMPUTE[recompute],
        overlaps_data=parallel.overlap_grad_reduce,
    )
    # Rows that exist anyway share the tokens out, and the fullest rank decides.
    load = Load(micro_batches=per_rank, tokens=tokens / (per_rank * parallel.data), context=context)
    return step_time(Decoder.of(question.shape), layout, load, question.profile).total


def _servers(question: Question, mean: Mean) -> Iterator[tuple[int, int, Decode]]:
    """Devices, places and speed of each server size that holds the model."""
    servers = question.config.rollout.servers
    assert isinstance(servers, LocalServers)
    for tensor in _POWERS:
        if question.shape.num_kv_heads % tensor:
            continue
        memory = _server_memory(question, tensor)
        held = mean.rollout / 2 + question.prompt
        places = min(servers.max_num_seqs, int(memory.tokens // held))
        if places >= 1:
            model = decode(
                question.shape,
                memory,
                question.profile,
                tensor=tensor,
                prompt=question.prompt,
                group_size=question.config.rollout.group_size,
            )
            yield tensor, places, model


def _server_memory(question: Question, tensor: int) -> ServerMemory:
    config = question.config
    assert isinstance(config.rollout.servers, LocalServers)
    sized = msgspec.structs.replace(config.rollout.servers, tensor=tensor)
    return server_memory(question.shape, sized, config.cluster, config.publish.weights)


def _split(
    question: Question,
    mean: Mean,
    trainer: tuple[Parallel, str, float],
    server: tuple[int, int, Decode],
    *,
    num_gpus: int,
    max_lag: float,
) -> Split:
    (parallel, recompute, train_s), (tensor, places, model) = trainer, server
    count = (num_gpus - parallel.world_size) // tensor
    held = mean.rollout / 2 + question.prompt
    outstanding = (1 + max_lag) * mean.generated_tokens / mean.rollout
    running = max(1, min(places, int(outstanding / count)))
    speed = count * model.tokens_per_s(running, held)
    longest = question.budget * model.step(running, running * held)
    return Split(
        parallel=parallel,
        recompute=recompute,
        server_tensor=tensor,
        num_servers=count,
        places=places,
        train_s=train_s,
        publish_s=publish_seconds(question, tensor),
        generate_s=max(mean.generated_tokens / speed, longest / (1 + max_lag)),
    )


def publish_seconds(question: Question, server_tensor: int) -> float:
    """Every server device receives its share of the weights, one after another through its own wire."""
    publish = question.profile.publish
    return publish.fixed_s + _server_memory(question, server_tensor).weights / (publish.gb_s * 1e9)


def simulate(question: Question, split: Split, *, max_lag: float, num_steps: int, seed: int) -> Outcome:
    """The split under the product's scheduler; the first third of the steps is warm-up."""
    config = question.config
    ((_, _, model),) = [one for one in _servers(question, question.mean) if one[0] == split.server_tensor]
    fleet = Fleet(model, count=split.num_servers, places=split.places, prompt=question.prompt)
    answers = Answers(
        question.lengths,
        group_size=config.rollout.group_size,
        budget=question.budget,
        train_seconds=lambda lengths: _step_seconds(question, split, lengths),
        seed=seed,
    )
    in_flight = max(
        config.rollout.max_groups_in_flight,
        2 * split.num_servers * split.places // config.rollout.group_size,
    )
    limits = Limits(num_steps=num_steps, max_queued=_UNLIMITED, max_in_flight=in_flight)
    rollout = msgspec.structs.replace(config.rollout, max_lag=max_lag)
    scheduler = scheduler_of(msgspec.structs.replace(config, rollout=rollout), seed=seed)
    trace = Simulation(scheduler, fleet, answers, limits).run()
    return _outcome(question, split, trace, max_lag)


def _step_seconds(question: Question, split: Split, lengths: list[float]) -> float:
    sizes = [tokens + question.prompt for tokens in lengths]
    tokens = sum(sizes)
    context = sum(size * size for size in sizes) / tokens
    return split.publish_s + train_seconds(question, split.parallel, split.recompute, tokens, context)


def _outcome(question: Question, split: Split, trace: Trace, max_lag: float) -> Outcome:
    steady = trace.steps[len(trace.steps) // 3 :]
    seconds = steady[-1].begin + steady[-1].seconds - (steady[0].begin - steady[0].wait)
    step_s = seconds / len(steady)
    lags = [lag for step in steady for lag in step.lags]
    trained = sum(step.work for step in steady) + len(steady) * question.num_rollouts * question.prompt
    num_gpus = split.parallel.world_size + split.num_servers * split.server_tensor
    device = question.profile.device
    flops = Decoder.of(question.shape).training_flops(question.mean.context)
    return Outcome(
        split=split,
        max_lag=max_lag,
        step_s=step_s,
        wait_share=sum(step.wait for step in steady) / seconds,
        lag_mean=sum(lags) / len(lags),
        lag_max=max(lags),
        rollouts_per_s=trace.num_rollouts / trace.seconds,
        trained_tokens_per_s=trained / seconds,
        mfu=trained * flops / seconds / (split.parallel.world_size * device.bf16_tflops * 1e12),
        usd_per_step=num_gpus * device.usd_per_hour / 3600 * step_s,
    )


def best(question: Question, num_gpus: int) -> Outcome:
    """For several bounds on the lag the fastest splits by closed form, one of each server size, simulated:
    the least bound within 3% of the shortest step."""
    found = [min(_candidates(question, num_gpus, max_lag), key=lambda one: one.step_s) for max_lag in LAGS]
    shortest = min(outcome.step_s for outcome in found)
    return next(outcome for outcome in found if outcome.step_s <= 1.03 * shortest)


def as_is(question: Question) -> Outcome:
    """The recipe's own split and layout, simulated."""
    config = question.config
    servers = config.rollout.servers
    assert isinstance(servers, LocalServers)
    mean, parallel, recompute = question.mean, config.train.parallel, config.train.recompute
    lag = LAGS[-1] if config.rollout.max_lag == "unbounded" else config.rollout.max_lag
    seconds = train_seconds(question, parallel, recompute, mean.trained_tokens, mean.context)
    fitting = [server for server in _servers(question, mean) if server[0] == servers.tensor]
    if not fitting:
        raise InputError(f"rollout.servers.tensor = {servers.tensor}: the planner knows no such server")
    split = _split(
        question,
        mean,
        (parallel, recompute, seconds),
        fitting[0],
        num_gpus=parallel.world_size + servers.num_devices,
        max_lag=lag,
    )
    return simulate(question, split, max_lag=lag, num_steps=int(6 + 3 * lag), seed=0)


def _candidates(question: Question, num_gpus: int, max_lag: float) -> Iterator[Outcome]:
    fastest: dict[int, Split] = {}
    for split in splits(question, num_gpus, max_lag=max_lag):
        fastest.setdefault(split.server_tensor, split)
    num_steps = int(6 + 3 * max_lag)  # the first third, in which the lag grows, is not counted
    few = sorted(fastest.values(), key=lambda split: split.step_s)[:2]
    return (simulate(question, split, max_lag=max_lag, num_steps=num_steps, seed=0) for split in few)
