"""Where does each part of a tensor-parallel shard lie in the Hugging Face tensors?

    Megatron shard [rows, columns]  --Piece-->  part i of the HF tensors [rows, columns]

A layout is an index mapping and nothing else: it lists pairs of boxes of equal size. Read from left to
right it exports, from right to left it loads. Because the mapping is applied on each shard by itself
(split before gather), no rank ever joins shards, and no temporary is needed.
"""

from typing import ClassVar, Protocol

import msgspec

type Sizes = tuple[int, ...]
type Box = tuple[tuple[int, int], ...]
"""Half-open (start, stop) of each dim."""


class Piece(msgspec.Struct, frozen=True):
    """Box `shard` of a Megatron shard holds what box `hf` of HF tensor number `part` holds."""

    part: int
    shard: Box
    hf: Box


class Layout(Protocol):
    """How one Megatron parameter, split over tensor ranks, makes up one or more HF tensors."""

    replicated: ClassVar[bool]
    """Whether every tensor rank holds the whole parameter."""

    @property
    def hf_sizes(self) -> tuple[Sizes, ...]:
        """Sizes of the whole HF tensors."""
        ...

    def shard_sizes(self, num_ranks: int) -> Sizes:
        """Sizes of the parameter on one of `num_ranks` tensor ranks."""
        ...

    def pieces(self, rank: int, num_ranks: int) -> tuple[Piece, ...]:
        """What the shard of tensor rank `rank` holds; boxes never overlap."""
        ...


class Same(msgspec.Struct, frozen=True):
    """One HF tensor, whole on every tensor rank."""

    replicated: ClassVar[bool] = True
    size: int

    @property
    def hf_sizes(self) -> tuple[Sizes, ...]:
        """One vector."""
        return ((self.size,),)

    def shard_sizes(self, num_ranks: int) -> Sizes:
        """The same vector."""
        return (self.size,)

    def pieces(self, rank: int, num_ranks: int) -> tuple[Piece, ...]:
        """The whole vector."""
        return (Piece(0, ((0, self.size),), ((0, self.size),)),)


class Rows(msgspec.Struct, frozen=True):
    """Split along dim 0; the last shards end in padding where ranks do not divide the rows."""

    replicated: ClassVar[bool] = False
    rows: int
    columns: int

    @property
    def hf_sizes(self) -> tuple[Sizes, ...]:
        """One matrix, without padding."""
        return ((self.rows, self.columns),)

    def shard_sizes(self, num_ranks: int) -> Sizes:
        """Equal shards, with padding."""
        return (-(-self.rows // num_ranks), self.columns)

    def pieces(self, rank: int, num_ranks: int) -> tuple[Piece, ...]:
        """The rows that exist; a shard of padding alone holds nothing."""
        size = self.shard_sizes(num_ranks)[0]
        start, stop = min(rank * size, self.rows), min((rank + 1) * size, self.rows)
        if start == stop:
            return ()
        columns = (0, self.columns)
        return (Piece(0, ((0, stop - start), columns), ((start, stop), columns)),)


class Columns(msgspec.Struct, frozen=True):
    """Split along dim 1: the input of a row-parallel projection."""

    replicated: ClassVar[bool] = False
    rows: int
    columns: int

    @property
    def hf_sizes(self) -> tuple[Sizes, ...]:
        """One matrix."""
        return ((self.rows, self.columns),)

    def shard_sizes(self, num_ranks: int) -> Sizes:
        """Every row, a share of the columns."""
        return (self.rows, self.columns // num_ranks)

    def pieces(self, rank: int, num_ranks: int) -> tuple[Piece, ...]:
        """One strip of columns."""
        size = self.columns // num_ranks
        rows = (0, self.rows)
        return (Piece(0, (rows, (0, size)), (rows, (rank * size, (rank + 1) * size))),)


class GroupedQKV(msgspec.Struct, frozen=True):
    """Query, key and value in one matrix, interleaved by group: its query heads, its key, its value.

    Split along dim 0 by whole groups. HF parts: q, k, v.
    """

    replicated: ClassVar[bool] = False
    groups: int
    heads_per_group: int
    head_dim: int
    columns: int

    @property
    def hf_sizes(self) -> tuple[Sizes, ...]:
        """q, k, v."""
        return tuple((self.groups * rows, self.columns) for rows in self._rows_of_group)

    def shard_sizes(self, num_ranks: int) -> Sizes:
        """Whole groups only: `num_ranks` divides the groups (ModelShape.check_layout)."""
        return (self.groups // num_ranks * sum(self._rows_of_group), self.columns)

    def pieces(self, rank: int, num_ranks: int) -> tuple[Piece, ...]:
        """Three runs of rows for each local group."""
        local_groups = self.groups // num_ranks
        columns = (0, self.columns)
        pieces: list[Piece] = []
        shard_row = 0
        for group in range(rank * local_groups, (rank + 1) * local_groups):
            for part, rows in enumerate(self._rows_of_group):
                shard = ((shard_row, shard_row + rows), columns)
                pieces.append(Piece(part, shard, ((group * rows, (group + 1) * rows), columns)))
                shard_row += rows
        return tuple(pieces)

    @property
    def _rows_of_group(self) -> tuple[int, int, int]:
        return (self.heads_per_group * self.head_dim, self.head_dim, self.head_dim)


class GroupedQKVBias(msgspec.Struct, frozen=True):
    """The biases of query, key and value in one vector, interleaved as the rows of GroupedQKV are.

    HF parts: q, k, v.
    """

    replicated: ClassVar[bool] = False
    groups: int
    heads_per_group: int
    head_dim: int

    @property
    def hf_sizes(self) -> tuple[Sizes, ...]:
        """q, k, v."""
        return tuple(sizes[:1] for sizes in self._of_one_column.hf_sizes)

    def shard_sizes(self, num_ranks: int) -> Sizes:
        """Whole groups only."""
        return self._of_one_column.shard_sizes(num_ranks)[:1]

    def pieces(self, rank: int, num_ranks: int) -> tuple[Piece, ...]:
        """Three runs for each local group."""
        return tuple(
            Piece(piece.part, piece.shard[:1], piece.hf[:1])
            for piece in self._of_one_column.pieces(rank, num_ranks)
        )

    @property
    def _of_one_column(self) -> GroupedQKV:
        return GroupedQKV(self.groups, self.heads_per_group, self.head_dim, 1)


class GateUp(msgspec.Struct, frozen=True):
    """The two inputs of a gated MLP: each rank holds its share of gate, then its share of up.

    Not shares of the joined matrix. HF parts: gate, up.
    """

    replicated: ClassVar[bool] = False
    rows: int
    """Of one of the two."""
    columns: int

    @property
    def hf_sizes(self) -> tuple[Sizes, ...]:
        """gate, up."""
        return ((self.rows, self.columns),) * 2

    def shard_sizes(self, num_ranks: int) -> Sizes:
        """Both shares, one above the other."""
        return (2 * self.rows // num_ranks, self.columns)

    def pieces(self, rank: int, num_ranks: int) -> tuple[Piece, ...]:
        """One run of rows for each of the two."""
        size = self.rows // num_ranks
        columns = (0, self.columns)
        hf = ((rank * size, (rank + 1) * size), columns)
        return tuple(Piece(part, ((part * size, (part + 1) * size), columns), hf) for part in (0, 1))
