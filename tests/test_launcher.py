"""How the trainer's ranks are started."""

import subprocess
from pathlib import Path
from typing import Any

import pytest

from apriel_mcore import launcher
from apriel_mcore.config.load import load
from apriel_mcore.rundir import RunDir

RECIPE = Path(__file__).parents[1] / "recipes" / "quickstart.toml"


class Started(Exception):
    """With this environment."""


@pytest.mark.parametrize(("given", "listens"), [("", "lo"), ("eth7", "eth7")])
def test_ranks_of_one_host_listen_on_loopback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str, listens: str
) -> None:
    def start(*_: Any, env: dict[str, str], **__: Any) -> None:
        raise Started(env["GLOO_SOCKET_IFNAME"])

    monkeypatch.delenv("GLOO_SOCKET_IFNAME", raising=False)
    if given:
        monkeypatch.setenv("GLOO_SOCKET_IFNAME", given)
    monkeypatch.setattr(subprocess, "Popen", start)
    run_dir = RunDir(tmp_path)
    run_dir.logs.mkdir()
    with pytest.raises(Started, match=f"^{listens}$"):
        launcher.train(load(RECIPE), run_dir)
