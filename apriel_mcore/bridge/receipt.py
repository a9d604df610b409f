"""Did the weights arrive as they were sent? A digest of the bytes on both sides, and a record of it.

The digest is built for speed on one core (the worker that serves requests computes it too) and catches
accidents, not attacks. Over the whole file, header included, padded with zeros to 8-byte words:

    block i = words [32768 i, 32768 (i + 1)), each word an unsigned little-endian pair (low, high)
    sum_i   = sum_j ((low_j + a_j) mod 2^32) * ((high_j + b_j) mod 2^32)   mod 2^64
    digest  = blake2b-128(file length, sum_0, sum_1, ...), as hex

with fixed keys a_j, b_j: the NH hash (Black et al., UMAC, CRYPTO 1999; RFC 4418). For keys drawn at
random, any two different blocks of equal length have different sums but for a chance of 2^-32, whatever
the difference is: a bit, words or rows that changed places, zeros. Blocks are told apart by their order.
"""

import hashlib
from collections.abc import Buffer, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from apriel_mcore.bridge.acks import differences
from apriel_mcore.bridge.scales import by_layers
from apriel_mcore.bridge.tensorfile import contents
from apriel_mcore.disk import AppendOnly, patiently
from apriel_mcore.errors import BridgeError
from apriel_mcore.seams import Ack, Sent

_BLOCK = 32768
_BLOCKS_AT_ONCE = 128
"""On a device: 32 MiB of weights and six times that of working space."""
_WORD = np.dtype("<u8")
_HALF = np.dtype("<u4")

type Words = NDArray[np.uint64]


class Receipt(msgspec.Struct, frozen=True, kw_only=True):
    """One published version, a line of receipts.jsonl."""

    version: int
    num_tensors: int
    num_bytes: int
    digest: str
    plan: str
    """Digest of the copy plan."""
    probe_mean_abs_diff: float
    """Mean over probe tokens of |log-prob of trainer - of server|, for the worst server."""
    probe_max_abs_diff: float
    servers: tuple[str, ...]
    quantised: tuple[str, ...] = ()
    """Weights that trainer and servers have in FP8, in short; the same on both sides."""
    seconds: float
    """From the call to the last check."""
    export_s: float
    """Of which: until every rank had written its part."""
    time: float
    """When it was done, seconds since the epoch."""


def summarize(file: Buffer, *, where: str, threads: int = 1) -> Sent:
    """What a whole safetensors file in memory holds. InputError if it is not one."""
    with memoryview(file) as whole:
        tensors = contents(whole, where=where)
        return Sent(
            num_tensors=len(tensors),
            num_bytes=sum(tensor.num_bytes for tensor in tensors.values()),
            digest=digest(whole, threads=threads),
            quantised=by_layers(name for name, tensor in tensors.items() if tensor.dtype == "float8_e4m3"),
        )


def digest(buffer: Buffer, *, threads: int = 1) -> str:
    """32 hex digits of the bytes in `buffer`, as defined above; `threads` does not change the result."""
    data = np.frombuffer(buffer, dtype=np.uint8)
    num_whole = data.size // (8 * _BLOCK)
    blocks = data[: num_whole * 8 * _BLOCK].view(_WORD).reshape(num_whole, _BLOCK)
    sums = np.empty(num_whole + 1, dtype=_WORD)
    if threads == 1:
        _sum_blocks(blocks, sums[:num_whole])
    else:
        with ThreadPoolExecutor(threads) as pool:
            shares = np.array_split(np.arange(num_whole), threads)
            list(pool.map(lambda share: _sum_blocks(blocks[_run(share)], sums[_run(share)]), shares))
    tail = np.zeros(8 * _BLOCK, dtype=np.uint8)
    tail[: data.size % tail.size] = data[num_whole * tail.size :]
    _sum_blocks(tail.view(_WORD).reshape(1, _BLOCK), sums[num_whole:])
    size = data.size.to_bytes(8, "little")
    return hashlib.blake2b(size + sums.tobytes(), digest_size=16).hexdigest()


def digest_of_tensor(tensor: Tensor) -> str:
    """`digest` of a contiguous tensor's bytes, computed where they lie."""
    data = tensor.flatten().view(torch.uint8)
    if data.device.type == "cpu":
        return digest(data.numpy())
    sums = sums_on_device(data).cpu().numpy().view(_WORD)
    return hashlib.blake2b(data.numel().to_bytes(8, "little") + sums.tobytes(), digest_size=16).hexdigest()


def sums_on_device(data: Tensor) -> Tensor:
    """sum_0, sum_1, ... of the uint8 `data`, int64 on its device, the padded tail last."""
    size = 8 * _BLOCK
    num_whole = data.numel() // size
    tail = torch.zeros(size, dtype=torch.uint8, device=data.device)
    tail[: data.numel() - num_whole * size] = data[num_whole * size :]
    keys = torch.from_numpy(_KEYS.view(np.int32).copy()).to(data.device)
    runs = [*data[: num_whole * size].view(-1, size).split(_BLOCKS_AT_ONCE), tail[None]]
    return torch.cat([_sums_of(run.view(torch.int32), keys) for run in runs])


def _sums_of(blocks: Tensor, keys: Tensor) -> Tensor:
    """NH of each row; int32 and int64 wrap as the definition asks."""
    mixed = (blocks + keys).view(blocks.shape[0], _BLOCK, 2).long().bitwise_and_(0xFFFFFFFF)
    return (mixed[..., 0] * mixed[..., 1]).sum(dim=1)


def _run(indices: NDArray[np.intp]) -> slice:
    """The slice of an ascending run of indices."""
    return slice(indices[0], indices[-1] + 1) if indices.size else slice(0, 0)


def _sum_blocks(blocks: Words, sums: Words) -> None:
    """NH of each block, in buffers that stay in the cache."""
    mixed = np.empty(_BLOCK, dtype=_WORD)
    high = np.empty(_BLOCK, dtype=_WORD)
    keys = _KEYS.view(_HALF)
    low_mask, half_bits = np.uint64(0xFFFFFFFF), np.uint64(32)
    for index, block in enumerate(blocks):
        np.add(block.view(_HALF), keys, out=mixed.view(_HALF))  # wraps: addition mod 2^32
        np.right_shift(mixed, half_bits, out=high)
        np.bitwise_and(mixed, low_mask, out=mixed)
        np.multiply(mixed, high, out=mixed)
        sums[index] = mixed.sum(dtype=np.uint64)


def _make_keys() -> Words:
    """SplitMix64 (Steele et al., OOPSLA 2014) of 1, 2, 3, ...: the same on every machine and version."""
    state = np.arange(1, _BLOCK + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return (state ^ (state >> np.uint64(31))).astype(_WORD)


_KEYS = _make_keys()


def check_acks(acks: Sequence[Ack], sent_R: Sequence[Sent], version: int) -> None:
    """BridgeError naming every server whose answer differs from what was sent, and in what.

    `sent_R` is what each tensor rank of a server must have read; one entry stands for all of them.
    """
    if not acks:
        raise BridgeError(f"version {version}: no server took the weights")
    problems = [problem for ack in acks for problem in differences(ack, sent_R, version)]
    if problems:
        raise BridgeError(f"version {version} did not arrive as it was sent: {'; '.join(problems)}")


def together(sent_R: Sequence[Sent]) -> Sent:
    """All that was sent, as one: what a receipt says of it."""
    if len(sent_R) == 1:
        return sent_R[0]
    digests = "".join(sent.digest for sent in sent_R)
    return Sent(
        num_tensors=sent_R[0].num_tensors,
        num_bytes=sum(sent.num_bytes for sent in sent_R),
        digest=hashlib.blake2b(digests.encode(), digest_size=16).hexdigest(),
        quantised=sent_R[0].quantised,
    )


def append(receipt: Receipt, path: Path) -> None:
    """Add a line to receipts.jsonl; waits while the disk is full."""
    line = msgspec.json.encode(receipt) + b"\n"
    file = AppendOnly(path)
    patiently(lambda: file.append(line, sync=False), where=path)
    file.close()


def read(path: Path) -> list[Receipt]:
    """Every receipt of a run, oldest first."""
    return [msgspec.json.decode(line, type=Receipt) for line in path.read_bytes().splitlines()]
