"""`apriel pool`: what is said while a server comes, and a table without cut numbers."""

import threading
import time
from pathlib import Path

import msgspec
import pytest

from apriel_mcore import cli
from apriel_mcore.rollout import orders
from apriel_mcore.rollout.keeper import ServerRecord

SERVER = ServerRecord(
    name="server-0@http://a-host-with-a-long-name.example:8000",
    url="",
    state="serving",
    version=123456,
    running=1024,
    requests=123456789,
    tokens=9876543210,
    failures=12345,
    restarts=1234,
    seconds_mean=1234.56,
)


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    """Of a run that goes on, as far as its files tell."""
    (tmp_path / "pool").mkdir()
    (tmp_path / "events.jsonl").touch()
    listing = orders.Listing(time=time.time(), servers=[SERVER])
    (tmp_path / "pool" / "servers.json").write_bytes(msgspec.json.encode(listing))
    return tmp_path


def test_adding_a_server_says_what_happens_next(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def answer() -> None:
        while not (found := list((run_dir / "pool").glob("*.order.json"))):
            time.sleep(0.01)
        reply = found[0].with_name(found[0].name.replace("order", "reply"))
        reply.write_bytes(msgspec.json.encode(orders.Reply(message="server-1 serves")))

    running = threading.Thread(target=answer)
    running.start()
    cli.main(["pool", "add", str(run_dir)])
    running.join()
    asked, served = capsys.readouterr().out.splitlines()
    assert "asked the run for one more server" in asked
    assert f"apriel pool list {run_dir}" in asked
    assert served == "server-1 serves"


def test_a_list_in_a_pipe_is_whole(
    run_dir: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    cli.main(["pool", "list", str(run_dir)])
    said = capsys.readouterr().out
    for value in msgspec.to_builtins(SERVER).values():
        assert str(value) in said


def test_a_folder_that_is_no_run_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["pool", "list", str(tmp_path / "none")])
    assert f"{tmp_path / 'none'}: no such folder" in capsys.readouterr().err
