"""A line counts when its newline is there, and once."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apriel_mcore.disk import AppendOnly
from apriel_mcore.views.tail import Tail


@given(st.lists(st.text("ab", max_size=5), max_size=20), st.lists(st.integers(1, 9), max_size=30))
def test_lines_come_once_however_the_file_grows(words: list[str], cuts: list[int]) -> None:
    from tempfile import TemporaryDirectory

    whole = "".join(word + "\n" for word in words).encode()
    with TemporaryDirectory() as folder:
        path, seen = Path(folder) / "lines", []
        tail = Tail(path)
        with path.open("ab") as file:
            for cut in [*cuts, len(whole)]:
                file.write(whole[:cut])
                file.flush()
                whole = whole[cut:]
                seen += tail.lines()
    assert seen == [word.encode() for word in words]


def test_a_long_file_is_read_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("apriel_mcore.views.tail._CHUNK", 8)
    path = tmp_path / "lines"
    path.write_bytes(b"one\ntwo\na line longer than a piece\nfour\n")
    tail, pieces = Tail(path), [b""]
    looks = 0
    while looks == 0 or tail.has_more:
        pieces += tail.lines()
        looks += 1
    assert pieces[1:] == [b"one", b"two", b"a line longer than a piece", b"four"]
    assert looks == 2


def test_a_torn_line_is_ended_before_the_next_one(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(b'{"whole": 1}\n{"torn": ')
    for _ in range(2):
        file = AppendOnly(path)
        file.append(b"{}\n", sync=False)
        file.close()
    assert path.read_bytes() == b'{"whole": 1}\n{"torn": \n{}\n{}\n'
