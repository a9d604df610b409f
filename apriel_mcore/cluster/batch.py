"""The batch script of a launch: the template with directives and settings in it, and nothing of the recipe.

What comes from a user's files is either matched against a narrow pattern (directives) or quoted (settings);
the recipe travels as a file of its own.
"""

import shlex
from pathlib import Path, PurePosixPath

from apriel_mcore.cluster.folders import Launch, LaunchFolder
from apriel_mcore.cluster.nodes import NodeMap
from apriel_mcore.config.schema import RunConfig
from apriel_mcore.config.schema.site import (
    BareEnvironment,
    Batch,
    ContainerEnvironment,
    GitCode,
    Site,
)
from apriel_mcore.errors import ConfigError

_DIRECTIVES, _SETTINGS = "#@DIRECTIVES@\n", "#@SETTINGS@\n"


def script(
    template: str, *, config: RunConfig, site: Site, launch: Launch, nodes: NodeMap, folder: LaunchFolder
) -> str:
    """The whole script. ConfigError for a template that lacks a mark."""
    for mark in (_DIRECTIVES, _SETTINGS):
        if template.count(mark) != 1:
            raise ConfigError(
                f"batch.template: needs the line {mark.strip()} once, found {template.count(mark)}"
            )
    directives = "".join(f"#SBATCH {one}\n" for one in _directives(config, site, launch, nodes, folder))
    return template.replace(_DIRECTIVES, directives).replace(_SETTINGS, _settings(site, nodes, folder))


def require_mounted(site: Site, *, file: Path) -> None:
    """ConfigError for a path that the processes of a run are given and that their container does not have."""
    if not isinstance(site.environment, ContainerEnvironment):
        return
    targets = [mount.split(":")[:2][-1] for mount in _mounts(site.root, site.environment)]
    cache = "variables.APRIEL_CACHE"
    for key, text in (("secrets", site.secrets), (cache, site.variables.get("APRIEL_CACHE", ""))):
        if text and not any(PurePosixPath(text).is_relative_to(target) for target in targets):
            raise ConfigError(
                f"{file}: {key} = {text!r}: not in the container, which has {', '.join(targets)}; name a "
                "path below one of these, or add its folder to environment.mounts as SOURCE:TARGET"
            )


def _mounts(root: str, environment: ContainerEnvironment) -> list[str]:
    root = str(PurePosixPath(root))
    return [f"{root}:{root}", *environment.mounts]


def _directives(
    config: RunConfig, site: Site, launch: Launch, nodes: NodeMap, folder: LaunchFolder
) -> list[str]:
    batch = site.batch
    tasks = "%A_%a" if launch.seeds else "%j"
    words = {
        "--job-name": launch.name,
        "--account": batch.account,
        "--partition": batch.partition,
        "--qos": batch.qos,
        "--time": batch.time,
        "--nodes": str(nodes.num_nodes),
        "--ntasks-per-node": "1",
        "--cpus-per-task": str(batch.cpus_per_task or ""),
        "--mem": batch.mem,
        "--signal": f"B:USR1@{batch.save_before_s}",
        "--mail-user": batch.mail,
        "--mail-type": batch.mail_types if batch.mail else "",
        "--array": f"0-{len(launch.seeds) - 1}" if launch.seeds else "",
        "--output": f"{folder.path}/job-{tasks}.log",
        "--open-mode": "append",
    } | _gpus(config, batch)
    given = [f"{flag}={value}" for flag, value in words.items() if value]
    exclusive = ["--exclusive"] if batch.exclusive else []
    return [*given, "--requeue", *exclusive, *batch.options]


def _gpus(config: RunConfig, batch: Batch) -> dict[str, str]:
    match batch.gpus:
        case "gres":
            return {"--gres": f"gpu:{config.cluster.gpus_per_node}"}
        case "gpus_per_node":
            return {"--gpus-per-node": str(config.cluster.gpus_per_node)}
        case "none":
            return {}


def _settings(site: Site, nodes: NodeMap, folder: LaunchFolder) -> str:
    code = f"export PYTHONPATH={shlex.quote(str(folder.code))}\n" if isinstance(site.code, GitCode) else ""
    return (
        f"LAUNCH={shlex.quote(str(folder.path))}\n"
        f"NODES={nodes.num_nodes}\n"
        f"RETRIES={site.batch.retries}\n"
        f"PYTHON={shlex.quote(site.environment.python)}\n"
        f"STEP_OPTIONS=({shlex.join(_step_options(site))})\n"
        f"{code}"
    )


def _step_options(site: Site) -> list[str]:
    """What srun is told of the environment."""
    match site.environment:
        case BareEnvironment():
            return ["--chdir", site.root]
        case ContainerEnvironment() as environment:
            return [
                f"--container-image={environment.image}",
                f"--container-mounts={','.join(_mounts(site.root, environment))}",
                f"--container-workdir={PurePosixPath(site.root)}",
                "--no-container-mount-home",
                "--container-env=PYTHONPATH",  # an image's own would win otherwise
            ]
