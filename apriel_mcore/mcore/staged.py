"""A rank's share of a checkpoint in host memory: how it gets there, to the disk, and is it there?

    sharded state --copied--> buckets --written, synced--> files --read back, compared, digested--> sums

Megatron plans who writes what and writes the files; its own asynchronous save hands them to processes that
outlive the trainer. Here they are written by the thread that calls `write`.
"""

import hashlib
import io
import queue
from pathlib import Path
from typing import Any

import msgspec
import torch
from megatron.core.dist_checkpointing import ShardedTensor
from megatron.core.dist_checkpointing.core import CheckpointingConfig, save_config
from megatron.core.dist_checkpointing.dict_utils import nested_values
from megatron.core.dist_checkpointing.mapping import is_main_replica
from megatron.core.dist_checkpointing.strategies import filesystem_async
from megatron.core.dist_checkpointing.strategies.async_utils import AsyncRequest
from megatron.core.dist_checkpointing.strategies.filesystem_async import FileSystemWriterAsync, WriteBucket
from megatron.core.dist_checkpointing.strategies.torch import TorchDistSaveShardedStrategy
from torch import Tensor
from torch.distributed.checkpoint.metadata import Metadata
from torch.distributed.checkpoint.storage import WriteResult

from apriel_mcore.checkpoint_folder import FileSum, forget_cached
from apriel_mcore.errors import CheckpointError


class Written(msgspec.Struct, frozen=True):
    """What a rank put on disk: Megatron's index of it, and what each of its files must be."""

    results: list[WriteResult]
    sums: dict[str, FileSum]


class Staged:
    """One rank's share; `write` may be called from any thread, and again after it failed."""

    def __init__(self, writer: FileSystemWriterAsync, metadata: Metadata | None) -> None:
        self._writer = writer
        self._metadata = metadata
        self._buckets: list[WriteBucket] = writer.write_buckets or []

    @property
    def num_bytes(self) -> int:
        """Of the tensors that wait in host memory."""
        return sum(tensor.nbytes for _, _, (_, tensors) in self._buckets for _, tensor in tensors)

    def write(self) -> Written:
        """Write this rank's files and read them back.

        Raises the system's OSError, and CheckpointError when the disk holds something else than memory.
        """
        results: list[WriteResult] = []
        sums: dict[str, FileSum] = {}
        for number, bucket in enumerate(self._buckets):
            _, found = FileSystemWriterAsync.write_preloaded_data(  # pyright: ignore[reportGeneralTypeIssues]
                [self._writer.transforms],
                local_proc_idx=number,
                write_bucket=bucket,
                results_queue=None,
                count_queue=None,
                use_fsync=True,
            )
            if isinstance(found, Exception):
                raise found
            results += found
            sums[bucket[1]] = _read_back(bucket, found)
        return Written(results, sums)

    def discard_files(self) -> None:
        """Give back the room of what was written; memory keeps all of it."""
        for path, _, _ in self._buckets:
            Path(path).unlink(missing_ok=True)

    def finish(self, results_R: list[list[WriteResult]]) -> None:
        """Write Megatron's index of what all ranks wrote; first rank only."""
        assert self._metadata is not None, "the first rank plans"
        self._writer.finish(self._metadata, results_R)
        strategy = TorchDistSaveShardedStrategy()
        save_config(CheckpointingConfig(strategy.backend, strategy.version), str(self._writer.checkpoint_dir))


class StagingStrategy(TorchDistSaveShardedStrategy):
    """Megatron's save up to the first byte: what this rank would write is in `staged` instead."""

    staged: Staged

    def async_save(self, sharded_state_dict: Any, checkpoint_dir: Path, async_strategy: str = "mcore") -> Any:
        """Copies what this rank writes, which Megatron does for views only; then plans. Collective."""
        for value in nested_values(sharded_state_dict):
            if isinstance(value, ShardedTensor) and is_main_replica(value.replica_id):
                assert value.data is not None
                value.data = _copied(value.data)
        # Megatron would start a server process here for a queue of write results that nobody reads.
        filesystem_async._results_queue = queue.Queue()  # pyright: ignore[reportAttributeAccessIssue]
        return super().async_save(sharded_state_dict, checkpoint_dir, async_strategy)

    def _get_save_and_finalize_callbacks(
        self, writer: Any, save_state_dict_ret: Any, async_strategy: str
    ) -> AsyncRequest:
        _, metadata, _ = save_state_dict_ret
        self.staged = Staged(writer, metadata)
        return AsyncRequest(None, (), [])


def _copied(tensor: Tensor) -> Tensor:
    """In host memory, apart from what training changes."""
    tensor = tensor.detach()
    if "dequantize" in type(tensor).__dict__:  # Transformer Engine's FP8 parameters, as Megatron writes them
        tensor = tensor.dequantize()
    copy = torch.empty(tensor.shape, dtype=tensor.dtype, device="cpu")
    return copy.copy_(tensor)


def _read_back(bucket: WriteBucket, results: list[WriteResult]) -> FileSum:
    """What the disk has, record by record as memory has it."""
    path, _, (objects, tensors) = bucket
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        forget_cached(file.fileno())
        for (item, data), result in zip([*objects, *tensors], results, strict=True):
            assert result.storage_data.offset == file.tell(), "records follow each other"
            record = file.read(result.storage_data.length)
            if not _same(record, data):
                raise CheckpointError(
                    f"{path}: {item.index.fqn} was read back different from what was written: "
                    "check the disk; older checkpoints are untouched"
                )
            digest.update(record)
        assert not file.read(1), "nothing but records"
        return FileSum(file.tell(), digest.hexdigest())


def _same(record: bytes, data: io.BytesIO | Tensor) -> bool:
    if isinstance(data, io.BytesIO):
        return record == data.getvalue()
    found = torch.load(io.BytesIO(record), weights_only=True)
    return torch.equal(_as_bytes(found), _as_bytes(data))


def _as_bytes(tensor: Tensor) -> Tensor:
    """Compared as bits, so that NaN equals itself."""
    return tensor.reshape(-1).view(torch.uint8)
