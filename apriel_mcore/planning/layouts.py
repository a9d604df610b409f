"""Which trainers hold the model, and how long is their step?

    tensor x pipeline x virtual x context x data, row --memory.py--> weakest recomputation --> seconds

A micro-batch is one packed row, so its size is `train.seq_len`; it must hold the longest sample, so the
recipe's is the least that is tried.
"""

from collections.abc import Iterator
from itertools import product
from typing import Literal

import msgspec

from apriel_mcore.config.schema import EngineFp8, Parallel
from apriel_mcore.memory import GB, RESERVED_BYTES, training_memory
from apriel_mcore.planning.flops import Decoder
from apriel_mcore.planning.question import Question
from apriel_mcore.planning.trainer import Layout, Load, step_time
from apriel_mcore.planning.workload import ROW_FILL, Mean

type Recompute = Literal["none", "selective", "full"]

_RECOMPUTED: dict[Recompute, float] = {"none": 0.0, "selective": 0.7, "full": 1.0}
"""Of a layer's forward products: the feed-forward part is some 70% of them."""
_TENSOR = _CONTEXT = (1, 2, 4, 8)
_PIPELINE = ((1, 1), (2, 1), (2, 2), (2, 4), (4, 1), (4, 2), (4, 4))
"""Stages, and chunks of layers of each (interleaved schedule above 1)."""
_ROWS = (1, 2)
"""Of the recipe's `train.seq_len`."""
_LARGEST_REPLICA = 16
_GROWTH = 1.1
"""From one number of replicas to the next one that is tried."""


class Trainer(msgspec.Struct, frozen=True, kw_only=True):
    """How the trainer's GPUs are used."""

    parallel: Parallel
    recompute: Recompute
    row_tokens: int
    """`train.seq_len`: a micro-batch."""


def trainers(question: Question, mean: Mean, num_gpus: int) -> Iterator[tuple[Trainer, float]]:
    """Those whose fullest stage fits and that leave a GPU over, with seconds of their step."""
    shape = question.shape
    for tensor, (pipeline, virtual), context in product(_TENSOR, _PIPELINE, _CONTEXT):
        replica = tensor * pipeline * context
        heads = not (shape.num_kv_heads % tensor or shape.num_heads % tensor)
        divides = heads and shape.num_layers % (pipeline * virtual) == 0
        if not divides or replica > min(_LARGEST_REPLICA, num_gpus - 1):
            continue
        for data, rows in product(_data_sizes((num_gpus - 1) // replica), _ROWS):
            parallel = Parallel(
                tensor=tensor,
                pipeline=pipeline,
                virtual_pipeline=virtual,
                context=context,
                data=data,
                sequence=tensor > 1,
                distributed_optimizer=True,
            )
            trainer = _fitting(question, parallel, rows * question.config.train.seq_len)
            if trainer:
                yield trainer, train_seconds(question, trainer, mean.trained_tokens, mean.context)


def _data_sizes(most: int) -> list[int]:
    """From one to `most` replicas, each some 10% more than the one before."""
    found = [1]
    while found[-1] < most:
        found.append(min(most, max(found[-1] + 1, int(found[-1] * _GROWTH))))
    return found


def _fitting(question: Question, parallel: Parallel, row_tokens: int) -> Trainer | None:
    """With the first of none, selective, full that fits."""
    room = question.profile.device.memory_gb * GB - RESERVED_BYTES
    for recompute in _RECOMPUTED:
        train = msgspec.structs.replace(
            question.config.train, parallel=parallel, recompute=recompute, seq_len=row_tokens
        )
        stages = training_memory(
            question.shape,
            train,
            num_micro_batches=question.num_rollouts,
            weights_in=question.config.publish.weights,
        )
        if max(stage.total for stage in stages) <= room:
            return Trainer(parallel=parallel, recompute=recompute, row_tokens=row_tokens)
    return None


def train_seconds(question: Question, trainer: Trainer, tokens: float, context: float) -> float:
    """Of one optimizer step on `tokens` tokens of sequences with mean length `context`."""
    parallel = trainer.parallel
    rows = -(-tokens // (trainer.row_tokens * ROW_FILL))
    per_rank = int(-(-rows // parallel.data))
    if parallel.virtual_pipeline > 1:  # as data/packing.py: whole rounds of the interleaved schedule
        per_rank = -(-per_rank // parallel.pipeline) * parallel.pipeline
    layout = Layout(
        tensor=parallel.tensor,
        pipeline=parallel.pipeline,
        virtual=parallel.virtual_pipeline,
        context=parallel.context,
        data=parallel.data,
        fp8=isinstance(question.config.train.fp8, EngineFp8),
        fp32_head=True,
        recompute=_RECOMPUTED[trainer.recompute],
        overlaps_data=parallel.overlap_grad_reduce,
    )
    # Rows that exist anyway share the tokens out, and the fullest rank decides.
    load = Load(micro_batches=per_rank, tokens=tokens / (per_rank * parallel.data), context=context)
    return step_time(Decoder.of(question.shape), layout, load, question.profile).total
