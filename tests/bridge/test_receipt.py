"""The digest notices every small accident; answers that differ are named; receipts are kept."""

import hashlib
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from apriel_mcore.bridge.arena import Arena
from apriel_mcore.bridge.receipt import (
    Receipt,
    append,
    check_acks,
    digest,
    digest_of_tensor,
    read,
    summarize,
    sums_on_device,
    together,
)
from apriel_mcore.errors import BridgeError
from apriel_mcore.seams import Ack, Sent

BLOCK_BYTES = 8 * 32768
SENT = Sent(num_tensors=3, num_bytes=100, digest="aa")
ACK = Ack(server="s0", version=4, read_R=(SENT,), seconds=0.1)
rng = np.random.default_rng(0)
WEIGHTS = rng.standard_normal(3 * BLOCK_BYTES // 4 + 5).astype(np.float32)


def nh_in_words(content: bytes) -> list[int]:
    """The block sums as the docstring of receipt.py defines them, one word at a time."""
    padded = content + bytes(-len(content) % BLOCK_BYTES)
    words = np.frombuffer(padded, dtype="<u4").astype(object).reshape(-1, 32768, 2)
    state, sums = [], []
    for j in range(1, 32769):
        z = j * 0x9E3779B97F4A7C15 % 2**64
        z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 % 2**64
        z = (z ^ z >> 27) * 0x94D049BB133111EB % 2**64
        state.append(z ^ z >> 31)
    keys = [(z % 2**32, z >> 32) for z in state]
    for block in words:
        terms = (
            (low + a) % 2**32 * ((high + b) % 2**32) for (low, high), (a, b) in zip(block, keys, strict=True)
        )
        sums.append(sum(terms) % 2**64)
    return sums


def test_the_digest_is_the_one_defined() -> None:
    content = rng.bytes(BLOCK_BYTES + 1001)
    sums = np.array(nh_in_words(content), dtype="<u8").tobytes()
    expected = hashlib.blake2b(len(content).to_bytes(8, "little") + sums, digest_size=16).hexdigest()
    assert digest(content) == expected


@settings(max_examples=100, deadline=None)
@given(bit=st.integers(0, 8 * WEIGHTS.nbytes - 1))
def test_any_flipped_bit_is_noticed(bit: int) -> None:
    altered = WEIGHTS.copy().view(np.uint8)
    altered[bit // 8] ^= np.uint8(1 << bit % 8)
    assert digest(altered) != digest(WEIGHTS)


@settings(max_examples=60, deadline=None)
@given(st.tuples(st.integers(0, WEIGHTS.size - 1), st.integers(0, WEIGHTS.size - 1)))
def test_elements_that_changed_places_or_sign_are_noticed(pair: tuple[int, int]) -> None:
    i, j = pair
    if i == j:
        return
    swapped = WEIGHTS.copy()
    swapped[[i, j]] = swapped[[j, i]]
    negated = WEIGHTS.copy()
    negated[[i, j]] *= -1
    assert len({digest(WEIGHTS), digest(swapped), digest(negated)}) == 3


def test_rows_tensors_and_blocks_that_changed_places_are_noticed() -> None:
    rows = WEIGHTS[: 64 * 2048].reshape(64, 2048)
    swapped_rows = rows.copy()
    swapped_rows[[3, 40]] = swapped_rows[[40, 3]]
    blocks = WEIGHTS[: 3 * BLOCK_BYTES // 4].reshape(3, -1)
    found = [
        digest(rows),
        digest(swapped_rows),
        digest(np.ascontiguousarray(rows.T)),
        digest(blocks),
        digest(np.ascontiguousarray(blocks[::-1])),
    ]
    assert len(set(found)) == len(found)


def test_length_and_zeros_count() -> None:
    zeros = [
        digest(bytes(n)) for n in (0, 1, 8, BLOCK_BYTES - 1, BLOCK_BYTES, BLOCK_BYTES + 1, 2 * BLOCK_BYTES)
    ]
    assert len(set(zeros)) == len(zeros)


@pytest.mark.parametrize("threads", [2, 3, 7])
def test_threads_do_not_change_the_digest(threads: int) -> None:
    assert digest(WEIGHTS, threads=threads) == digest(WEIGHTS)
    assert digest(b"short", threads=threads) == digest(b"short")


def test_a_summary_counts_tensors_and_hashes_the_file(tmp_path: Path) -> None:
    arena = Arena.create(tmp_path / "x.safetensors", {"a": (3, 2), "b": (5,)}, "float32")
    before = summarize(arena.mapping, where="x")
    assert (before.num_tensors, before.num_bytes) == (2, 44)
    assert before.digest == digest(arena.path.read_bytes())
    arena.views["b"][4] = 1e-30
    assert summarize(arena.mapping, where="x").digest != before.digest


def test_answers_that_agree_pass() -> None:
    check_acks([ACK, msgspec.structs.replace(ACK, server="s1")], [SENT], version=4)
    both = msgspec.structs.replace(ACK, read_R=(SENT, SENT))
    check_acks([both], [SENT], version=4)  # each of two ranks read the whole file
    check_acks([both], [SENT, SENT], version=4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"digest": "bb"}, "s0 has digest bb, sent was aa"),
        ({"version": 3}, "s0 has version 3, sent was 4"),
        ({"num_tensors": 2}, "s0 has num_tensors 2"),
        ({"num_bytes": 1}, "s0 has num_bytes 1"),
    ],
)
def test_an_answer_that_differs_is_named(change: dict[str, object], message: str) -> None:
    with pytest.raises(BridgeError, match=message):
        check_acks([_changed(change)], [SENT], version=4)


def _changed(change: dict[str, object]) -> Ack:
    if "version" in change:
        return msgspec.structs.replace(ACK, **change)
    return msgspec.structs.replace(ACK, read_R=(msgspec.structs.replace(SENT, **change),))


def test_every_rank_of_a_server_is_compared_with_what_was_sent_to_it() -> None:
    other = msgspec.structs.replace(SENT, digest="bb")
    check_acks([msgspec.structs.replace(ACK, read_R=(SENT, other))], [SENT, other], version=4)
    with pytest.raises(BridgeError, match="s0 rank 1 has digest aa, sent was bb"):
        check_acks([msgspec.structs.replace(ACK, read_R=(SENT, SENT))], [SENT, other], version=4)
    with pytest.raises(BridgeError, match="s0 has 1 tensor ranks, sent was to 2"):
        check_acks([ACK], [SENT, other], version=4)


def test_what_was_sent_to_several_ranks_is_one_in_the_receipt() -> None:
    other = msgspec.structs.replace(SENT, digest="bb", num_bytes=11)
    assert together([SENT]) == SENT
    assert together([SENT, other]).num_bytes == 111
    assert together([SENT, other]).digest != together([other, SENT]).digest


@pytest.mark.parametrize("count", [0, 1, 100, 32768 * 4, 32768 * 4 * 3 + 17])
def test_a_tensor_has_the_digest_of_its_bytes_on_every_device(count: int) -> None:
    tensor = torch.arange(count, dtype=torch.int32).mul_(2654435761 % 2**31).view(torch.int16)[: 2 * count]
    data = tensor.view(torch.uint8)
    assert digest_of_tensor(tensor) == digest(data.numpy())
    sums = sums_on_device(data).numpy()
    size = data.numel().to_bytes(8, "little")
    assert hashlib.blake2b(size + sums.tobytes(), digest_size=16).hexdigest() == digest(data.numpy())


def test_no_answer_at_all_is_an_error() -> None:
    with pytest.raises(BridgeError, match="no server"):
        check_acks([], [SENT], version=4)


def test_receipts_are_appended_and_read_back(tmp_path: Path) -> None:
    receipts = [
        Receipt(
            version=version,
            num_tensors=1,
            num_bytes=2,
            digest="d",
            plan="p",
            probe_mean_abs_diff=0.01,
            probe_max_abs_diff=0.02,
            servers=("s0",),
            seconds=0.3,
            export_s=0.1,
            time=1.0,
        )
        for version in (0, 1)
    ]
    for receipt in receipts:
        append(receipt, tmp_path / "receipts.jsonl")
    assert read(tmp_path / "receipts.jsonl") == receipts
