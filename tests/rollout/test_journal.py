"""What is on disk is a prefix of what was appended, also when the disk is full; waiters are told."""

import asyncio
from pathlib import Path

import pytest

from apriel_mcore.errors import CheckpointError
from apriel_mcore.rollout import journal as module
from apriel_mcore.rollout.journal import Composed, Dispatched, Journal, Record, Settled, records_since
from tests.conftest import FullDisk


def dispatched(number: int) -> Record:
    return Dispatched(version=0, group_id=number, domain="math", problem_id=str(number))


def composed(number: int) -> Record:
    return Composed(version=number, force=False, group_ids=(number,), stale=())


def silent(message: str) -> None:
    pass


def test_records_are_read_back_in_order_over_segments(tmp_path: Path) -> None:
    async def write() -> None:
        journal = Journal(tmp_path, tell=silent)
        for number in range(50):
            journal.append(dispatched(number))
            if number == 20:
                assert journal.rotate() == 1
        await journal.durable()
        journal.close()

    asyncio.run(write())
    assert records_since(tmp_path, 0) == [dispatched(number) for number in range(50)]
    assert records_since(tmp_path, 1) == [dispatched(number) for number in range(21, 50)]


def test_durable_waits_for_one_fsync_of_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    syncs: list[int] = []
    monkeypatch.setattr("apriel_mcore.disk.os.fsync", lambda descriptor: syncs.append(descriptor))

    async def write() -> None:
        journal = Journal(tmp_path, tell=silent)
        for number in range(100):
            journal.append(composed(number))
        await asyncio.gather(*(journal.durable() for _ in range(10)))
        assert len(records_since(tmp_path, 0)) == 100
        assert 1 <= len(syncs) < 50
        journal.append(Settled(version=1))
        await journal.durable()
        journal.close()

    asyncio.run(write())


def test_a_full_disk_pauses_and_goes_on(
    tmp_path: Path, full_disk: FullDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RETRY_S", 0.01)
    told: list[str] = []

    async def write() -> None:
        journal = Journal(tmp_path, tell=told.append)
        journal.append(composed(0))
        await journal.durable()
        full_disk.after(30)
        for number in range(1, 20):
            journal.append(composed(number))
        waiting = asyncio.create_task(journal.durable())
        while not journal.stalled:
            await asyncio.sleep(0.005)
        await asyncio.sleep(0.05)
        assert not waiting.done()
        assert records_since(tmp_path, 0) == [composed(0)]
        assert len(told) == 1 and "disk is full" in told[0]
        full_disk.never()
        await asyncio.wait_for(waiting, 5.0)
        assert not journal.stalled
        assert len(told) == 2 and "space again" in told[1]
        journal.close()

    asyncio.run(write())
    assert records_since(tmp_path, 0) == [composed(number) for number in range(20)]


def test_a_journal_that_cannot_be_written_is_an_error_for_all(tmp_path: Path) -> None:
    async def write() -> None:
        journal = Journal(tmp_path / "folder", tell=silent)
        (tmp_path / "folder").rmdir()
        journal.append(composed(0))
        with pytest.raises(CheckpointError, match="cannot be written"):
            await asyncio.wait_for(journal.durable(), 5.0)
        journal.append(composed(1))
        with pytest.raises(CheckpointError):
            await journal.durable()
        journal.close()

    asyncio.run(write())


def test_closing_on_a_full_disk_does_not_wait(tmp_path: Path, full_disk: FullDisk) -> None:
    async def write() -> None:
        journal = Journal(tmp_path, tell=silent)
        full_disk.after(0)
        journal.append(composed(0))
        while not journal.stalled:
            await asyncio.sleep(0.005)
        await asyncio.wait_for(asyncio.to_thread(journal.close), 5.0)

    asyncio.run(write())
    assert records_since(tmp_path, 0) == []
