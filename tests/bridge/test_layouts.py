"""Each layout against its definition in words, with numpy; and that both directions are inverse."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from apriel_mcore.bridge.layouts import Box, Columns, GateUp, GroupedQKV, GroupedQKVBias, Layout, Rows, Same

Matrix = NDArray[np.int64]
RANKS = [1, 2, 4]


def at(box: Box) -> tuple[slice, ...]:
    return tuple(slice(*span) for span in box)


def hf_tensors(layout: Layout) -> list[Matrix]:
    """Every element of every part has a number of its own."""
    tensors: list[Matrix] = []
    first = 1
    for sizes in layout.hf_sizes:
        tensors.append(np.arange(first, first + np.prod(sizes)).reshape(sizes))
        first += tensors[-1].size
    return tensors


def shard(layout: Layout, rank: int, num_ranks: int) -> Matrix:
    """The HF tensors read into one rank's shard; zero where nothing lies."""
    tensors, result = hf_tensors(layout), np.zeros(layout.shard_sizes(num_ranks), dtype=np.int64)
    for piece in layout.pieces(rank, num_ranks):
        assert not result[at(piece.shard)].any(), "boxes overlap"
        result[at(piece.shard)] = tensors[piece.part][at(piece.hf)]
    return result


@pytest.mark.parametrize("num_ranks", RANKS)
def test_qkv_is_grouped_query_heads_then_key_then_value(num_ranks: int) -> None:
    groups, per_group, head_dim, columns = 4, 3, 2, 5
    layout = GroupedQKV(groups, per_group, head_dim, columns)
    q, k, v = hf_tensors(layout)
    whole = np.concatenate(
        [
            q.reshape(groups, per_group * head_dim, columns),
            k.reshape(groups, head_dim, columns),
            v.reshape(groups, head_dim, columns),
        ],
        axis=1,
    ).reshape(-1, columns)
    for rank, expected in enumerate(np.split(whole, num_ranks)):
        np.testing.assert_array_equal(shard(layout, rank, num_ranks), expected)


@pytest.mark.parametrize("num_ranks", RANKS)
def test_qkv_biases_are_grouped_as_their_rows_are(num_ranks: int) -> None:
    groups, per_group, head_dim = 4, 3, 2
    layout = GroupedQKVBias(groups, per_group, head_dim)
    whole = np.concatenate([part.reshape(groups, -1) for part in hf_tensors(layout)], axis=1).flatten()
    for rank, expected in enumerate(np.split(whole, num_ranks)):
        np.testing.assert_array_equal(shard(layout, rank, num_ranks), expected)


@pytest.mark.parametrize("num_ranks", RANKS)
def test_each_rank_holds_its_gate_above_its_up(num_ranks: int) -> None:
    layout = GateUp(8, 3)
    gates, ups = (np.split(part, num_ranks) for part in hf_tensors(layout))
    for rank in range(num_ranks):
        np.testing.assert_array_equal(
            shard(layout, rank, num_ranks), np.concatenate([gates[rank], ups[rank]])
        )


@pytest.mark.parametrize("num_ranks", RANKS)
def test_columns_are_split_along_dim_1(num_ranks: int) -> None:
    layout = Columns(3, 8)
    for rank, expected in enumerate(np.split(hf_tensors(layout)[0], num_ranks, axis=1)):
        np.testing.assert_array_equal(shard(layout, rank, num_ranks), expected)


@pytest.mark.parametrize("num_ranks", RANKS)
def test_rows_are_padded_at_the_end(num_ranks: int) -> None:
    layout = Rows(5, 3)
    whole = np.concatenate([shard(layout, rank, num_ranks) for rank in range(num_ranks)])
    np.testing.assert_array_equal(whole[:5], hf_tensors(layout)[0])
    assert whole.shape[0] % num_ranks == 0
    assert not whole[5:].any()


def test_a_shard_of_padding_alone_holds_nothing() -> None:
    assert Rows(2, 3).pieces(3, 4) == ()
    assert Rows(2, 3).shard_sizes(4) == (1, 3)


def test_same_is_whole_everywhere() -> None:
    layout = Same(7)
    assert layout.replicated
    assert layout.pieces(0, 4) == layout.pieces(3, 4)
    np.testing.assert_array_equal(shard(layout, 3, 4), hf_tensors(layout)[0])


@given(
    num_ranks=st.sampled_from(RANKS),
    layout=st.one_of(
        st.builds(Rows, st.integers(1, 20), st.integers(1, 4)),
        st.builds(Columns, st.integers(1, 4), st.sampled_from([4, 8, 12])),
        st.builds(
            GroupedQKV, st.sampled_from([4, 8]), st.integers(1, 3), st.integers(1, 3), st.integers(1, 3)
        ),
        st.builds(GroupedQKVBias, st.sampled_from([4, 8]), st.integers(1, 3), st.integers(1, 3)),
        st.builds(GateUp, st.sampled_from([4, 8, 12]), st.integers(1, 4)),
    ),
)
def test_export_is_the_inverse_of_load(num_ranks: int, layout: Layout) -> None:
    tensors = hf_tensors(layout)
    written = [np.zeros_like(tensor) for tensor in tensors]
    for rank in range(num_ranks):
        source = shard(layout, rank, num_ranks)
        for piece in layout.pieces(rank, num_ranks):
            assert not written[piece.part][at(piece.hf)].any(), "an element is written twice"
            written[piece.part][at(piece.hf)] = source[at(piece.shard)]
    for expected, found in zip(tensors, written, strict=True):
        np.testing.assert_array_equal(found, expected)
