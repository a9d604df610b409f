"""Which ways are there to share out N GPUs, and what do closed forms say of each?

trainers that fit (layouts.py) x servers that fit --> Split, fastest first
"""

import math
from collections.abc import Iterator
from itertools import product

import msgspec

from apriel_mcore.config.schema import StreamPublish
from apriel_mcore.errors import InputError
from apriel_mcore.memory import ServerMemory, server_memory
from apriel_mcore.planning.layouts import Trainer, train_seconds, trainers
from apriel_mcore.planning.pool import Decode, Publish, decode
from apriel_mcore.planning.question import Question
from apriel_mcore.planning.workload import Mean

_SERVER_SIZES = (1, 2, 4, 8)
_MESSAGE_MIB = 64
"""Of a stream's messages; other ways to publish are modelled as a stream."""


class Server(msgspec.Struct, frozen=True, kw_only=True):
    """One of the pool's."""

    tensor: int
    places: int
    """Answers that run at once."""
    model: Decode


class Split(msgspec.Struct, frozen=True, kw_only=True):
    """One way to use the GPUs, with what closed forms say of it."""

    trainer: Trainer
    server: Server
    num_servers: int
    groups_in_flight: int
    """`rollout.max_groups_in_flight` of such a run."""
    train_s: float
    publish: Publish
    generate_s: float
    """Of one step's answers by the whole pool, filtered groups included, by as many answers at a time as the
    lag allows; not less than the longest answer over the steps that it may span."""

    @property
    def step_s(self) -> float:
        """The slower side."""
        return max(self.train_s + self.publish.seconds, self.generate_s)

    @property
    def num_trainers(self) -> int:
        """GPUs of the trainer."""
        return self.trainer.parallel.world_size

    @property
    def num_gpus(self) -> int:
        """Of both sides; some of those given may be left over."""
        return self.num_trainers + self.num_servers * self.server.tensor


def splits(question: Question, num_gpus: int, *, max_lag: float) -> list[Split]:
    """All that fit, fastest first; InputError if none does."""
    mean = question.mean
    sides = product(trainers(question, mean, num_gpus), list(_servers(question, mean)))
    found = [
        _split(question, mean, trainer, server, num_servers=count, max_lag=max_lag)
        for trainer, server in sides
        if (count := (num_gpus - trainer[0].parallel.world_size) // server.tensor)
    ]
    if not found:
        raise InputError(
            f"--gpus {num_gpus}: no layout of the model leaves room for a server; give more or larger GPUs"
        )
    return sorted(found, key=lambda split: (split.step_s, split.num_trainers))


def own_split(question: Question, *, max_lag: float) -> Split:
    """The recipe's. InputError where its servers are of a size that the planner does not know."""
    servers, train, mean = question.servers, question.config.train, question.mean
    fitting = [server for server in _servers(question, mean) if server.tensor == servers.tensor]
    if not fitting:
        raise InputError(
            f"rollout.servers.tensor = {servers.tensor}: the planner knows servers of "
            f"{', '.join(map(str, _SERVER_SIZES))} GPUs that hold the model and an answer"
        )
    trainer = Trainer(parallel=train.parallel, recompute=train.recompute, row_tokens=train.seq_len)
    seconds = train_seconds(question, trainer, mean.trained_tokens, mean.context)
    return _split(
        question,
        mean,
        (trainer, seconds),
        fitting[0],
        num_servers=servers.count,
        max_lag=max_lag,
        in_flight=question.config.rollout.max_groups_in_flight,
    )


def _servers(question: Question, mean: Mean) -> Iterator[Server]:
    """Of each size that holds the model and an answer."""
    held = mean.rollout / 2 + question.prompt
    for tensor in _SERVER_SIZES:
        if question.shape.num_kv_heads % tensor:
            continue
        memory = _server_memory(question, tensor)
        places = min(question.servers.max_num_seqs, int(memory.tokens // held))
        if places >= 1:
            model = decode(
                question.shape,
                memory,
                question.profile,
                tensor=tensor,
                prompt=question.prompt,
                group_size=question.config.rollout.group_size,
            )
            yield Server(tensor=tensor, places=places, model=model)


def _server_memory(question: Question, tensor: int) -> ServerMemory:
    config = question.config
    sized = msgspec.structs.replace(question.servers, tensor=tensor)
    memory_gb = question.profile.device.memory_gb
    cluster = msgspec.structs.replace(config.cluster, gpu_memory_gb=memory_gb)
    return server_memory(question.shape, sized, cluster, config.publish.weights)


def _split(
    question: Question,
    mean: Mean,
    trainer: tuple[Trainer, float],
    server: Server,
    *,
    num_servers: int,
    max_lag: float,
    in_flight: int | None = None,
) -> Split:
    """With `in_flight` groups; without: with as many again as the places hold, so that none stands empty."""
    group_size = question.config.rollout.group_size
    in_flight = in_flight or math.ceil(2 * num_servers * server.places / group_size)
    held = mean.rollout / 2 + question.prompt
    outstanding = min((1 + max_lag) * mean.generated_tokens / mean.rollout, in_flight * group_size)
    running = max(1, min(server.places, int(outstanding / num_servers)))
    speed = num_servers * server.model.tokens_per_s(running, held)
    longest = question.budget * server.model.step(running, running * held)
    return Split(
        trainer=trainer[0],
        server=server,
        num_servers=num_servers,
        groups_in_flight=in_flight,
        train_s=trainer[1],
        publish=publish_of(question, trainer[0], server.tensor, num_servers),
        generate_s=max(mean.generated_tokens / speed, longest / (1 + max_lag)),
    )


def publish_of(question: Question, trainer: Trainer, server_tensor: int, num_servers: int) -> Publish:
    """One replica's ranks send to all servers at once, each message along a chain of them; the busiest wire
    decides, be it of a sender or of a receiver. Then every server stands still and loads what it received."""
    publish, parallel = question.profile.publish, trainer.parallel
    received = _server_memory(question, server_tensor).weights
    sent = _server_memory(question, 1).weights / (parallel.tensor * parallel.pipeline)
    busiest = max(received, sent)
    section = question.config.publish
    mib = section.message_mib if isinstance(section, StreamPublish) else _MESSAGE_MIB
    messages = math.ceil(busiest / (mib * 2**20))
    chain = messages * (num_servers - 1) * question.profile.wires.latency_us * 1e-6
    swap_s = received / (publish.host_gb_s * 1e9)
    return Publish(seconds=publish.fixed_s + busiest / (publish.gb_s * 1e9) + chain + swap_s, swap_s=swap_s)
