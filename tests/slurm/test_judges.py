"""A judge node of a launched run: real judges behind its port, with the attempt's token."""

import threading
import time
from pathlib import Path

import msgspec
import pytest

from apriel_mcore import secret
from apriel_mcore.cluster.folders import Orders, put
from apriel_mcore.cluster.follow import judge
from apriel_mcore.cluster.lead import answers
from apriel_mcore.cluster.place import Ended, Place
from tests.cluster.test_place import place_on

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(200), pytest.mark.xdist_group("slurm-run")]
"""In the group of the real runs: it listens on a port that theirs take too."""
TOKEN = "a token of thirty-two characters"


def test_it_judges_from_the_orders_to_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = place_on(tmp_path, monkeypatch, "n4", "verifier_nodes=1")
    node = place.nodes.verifier_nodes.start
    place = msgspec.structs.replace(place, node=node)
    put(place.attempt.address(node), b"127.0.0.1")
    place.run_dir.logs.mkdir(parents=True)
    ended = threading.Thread(target=expect_end, args=(place,))
    ended.start()
    secret.write(place.attempt.token, TOKEN)
    put(place.attempt.orders, msgspec.json.encode(Orders(attempt=1)))

    url = f"http://127.0.0.1:{place.nodes.verifier_port(node)}"
    deadline = time.monotonic() + 120
    while not answers(url, TOKEN):
        assert time.monotonic() < deadline, (place.run_dir.logs / "judges-0-attempt1.log").read_text()
        time.sleep(0.2)
    assert not answers(url, "another token of 32 characters..")

    put(place.attempt.exit_code, b"0")
    ended.join(timeout=30)
    assert not ended.is_alive()
    assert not answers(url, TOKEN)


def expect_end(place: Place) -> None:
    with pytest.raises(Ended):
        judge(place)
