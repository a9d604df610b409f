"""`apriel launch`: from a recipe and a cluster's file to a job in the queue, or to all that would be sent.

recipe + site --> node map, estimates, batch script --(tunnel)--> ROOT/launches/NAME-TIME --> sbatch
"""

import re
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

from apriel_mcore.cluster import batch, estimate, record
from apriel_mcore.cluster import site as sites
from apriel_mcore.cluster.folders import Launch, LaunchFolder
from apriel_mcore.cluster.nodes import NodeMap, describe, node_map
from apriel_mcore.cluster.record import Record
from apriel_mcore.cluster.transport import LoginNode
from apriel_mcore.config.load import dump
from apriel_mcore.config.schema import RunConfig
from apriel_mcore.config.schema.site import GitCode, Site
from apriel_mcore.errors import ConfigError, InputError

_NAME = re.compile(r"[A-Za-z0-9][\w.-]*")


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that a launch consists of."""

    config: RunConfig
    site: Site
    launch: Launch
    nodes: NodeMap
    folder: LaunchFolder
    script: str


def prepare(config: RunConfig, cluster: Path, site: Site, launch: Launch) -> Order:
    """All of it, with nothing sent. ConfigError for what cannot be launched."""
    if not _NAME.fullmatch(launch.name):
        raise ConfigError(
            f"name = {launch.name!r} names a folder and a job: use letters, digits, dots, dashes"
        )
    if len(set(launch.seeds)) != len(launch.seeds):
        raise InputError("--seeds: each seed is a run of its own; give none twice")
    template = cluster.parent / site.batch.template
    if not template.is_file():
        raise ConfigError(f"{cluster}: batch.template: no file {template}")
    batch.require_mounted(site, file=cluster)
    for task in range(len(launch.seeds)):
        node_map(config, site, task=task)
    nodes = node_map(config, site, task=0)
    folder = LaunchFolder(Path(site.root) / "launches" / f"{launch.name}-{time.strftime('%Y%m%d-%H%M%S')}")
    script = batch.script(
        template.read_text(encoding="utf-8"),
        config=config,
        site=site,
        launch=launch,
        nodes=nodes,
        folder=folder,
    )
    return Order(config=config, site=site, launch=launch, nodes=nodes, folder=folder, script=script)


def show(order: Order) -> None:
    """Print what would be sent and what it would take."""
    for title, lines in (
        ("batch script", order.script.splitlines()),
        ("recipe", dump(order.config).splitlines()),
        ("nodes", describe(order.nodes)),
        ("estimates", estimate.lines(order.config, order.site)),
        ("folders", _folders(order)),
    ):
        print(f"--- {title} " + "-" * (70 - len(title)))
        print("\n".join(lines))


def submit(order: Order) -> Record:
    """Send and queue it. InputError when a launch of this name is still in the queue."""
    login = LoginNode(order.site)
    try:
        record.require_ended(order.launch.name, login)
        job = _send(order, login)
    finally:
        login.close()
    return record.keep(
        Record(
            name=order.launch.name,
            job=job,
            folder=str(order.folder.path),
            num_tasks=max(1, len(order.launch.seeds)),
            site=order.site,
        )
    )


def _send(order: Order, login: LoginNode) -> str:
    folder = order.folder
    login.run("mkdir", "-p", "-m", "700", str(folder.path))
    login.write(folder.recipe, dump(order.config))
    login.write(folder.site, sites.dump(order.site))
    login.write(folder.launch, msgspec.json.encode(order.launch).decode())
    login.write(folder.script, order.script)
    if isinstance(order.site.code, GitCode):
        login.send_code(order.site.code, folder.code)
    answer = login.run("sbatch", "--parsable", str(folder.script))
    return answer.strip().split(";")[0]


def _folders(order: Order) -> list[str]:
    tasks: Sequence[int] = range(max(1, len(order.launch.seeds)))
    runs = [str(order.folder.run_dir(order.launch, task).root) for task in tasks]
    return [f"launch  {order.folder.path}", *(f"run     {run}" for run in runs)]
