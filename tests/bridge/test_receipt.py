"""The digest notices every small accident; answers that differ are named; receipts are kept."""

import hashlib
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apriel_mcore.bridge.arena import Arena
from apriel_mcore.bridge.receipt import Receipt, Sent, append, check_acks, digest, read, summarize
from apriel_mcore.errors import BridgeError
from apriel_mcore.seams import Ack

BLOCK_BYTES = 8 * 32768
SENT = Sent(num_tensors=3, num_bytes=100, digest="aa")
ACK = Ack(server="s0", version=4, num_tensors=3, num_bytes=100, digest="aa", seconds=0.1)
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
    check_acks([ACK, msgspec.structs.replace(ACK, server="s1")], SENT, version=4)


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
        check_acks([msgspec.structs.replace(ACK, **change)], SENT, version=4)


def test_no_answer_at_all_is_an_error() -> None:
    with pytest.raises(BridgeError, match="no server"):
        check_acks([], SENT, version=4)


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
