"""What was launched from here, so that `status`, `logs` and `stop` find it: launched/NAME.json."""

from pathlib import Path

import msgspec

from apriel_mcore.cluster.folders import LaunchFolder, put
from apriel_mcore.cluster.transport import LoginNode
from apriel_mcore.config.schema.site import Site
from apriel_mcore.errors import InputError

_FOLDER = Path("launched")


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """One launch."""

    name: str
    job: str
    """SLURM's number of it."""
    folder: str
    """LaunchFolder, on the cluster."""
    num_tasks: int
    site: Site

    @property
    def launch_folder(self) -> LaunchFolder:
        """On the cluster."""
        return LaunchFolder(Path(self.folder))


def keep(record: Record) -> Record:
    """Write it down; the latest launch of a name counts."""
    _FOLDER.mkdir(exist_ok=True)
    put(_FOLDER / f"{record.name}.json", msgspec.json.encode(record))
    return record


def find(name: str) -> Record:
    """InputError when nothing of this name was launched from here."""
    path = _FOLDER / f"{name}.json"
    if not path.is_file():
        known = sorted(one.stem for one in _FOLDER.glob("*.json"))
        raise InputError(
            f"{name}: nothing of this name was launched from this folder; "
            + (f"there are {', '.join(known)}" if known else "`apriel launch` starts a run")
        )
    return msgspec.json.decode(path.read_bytes(), type=Record)


def require_ended(name: str, login: LoginNode) -> None:
    """InputError when an earlier launch of the name has not ended: two would share a run directory."""
    if (_FOLDER / f"{name}.json").is_file() and (states := states_of(find(name), login)):
        raise InputError(
            f"{name}: job {find(name).job} is {', '.join(sorted(set(states.values())))}; "
            f"`apriel stop {name}` ends it, or give another name=NAME"
        )


def states_of(record: Record, login: LoginNode) -> dict[str, str]:
    """Job or task that is in the queue -> state, as SLURM calls it."""
    listing = login.run("squeue", "--noheader", "--array", "--user", _user(login), "--format=%F %i %T")
    rows = [line.split(maxsplit=2) for line in listing.splitlines()]
    return {job: state for array, job, state in rows if array == record.job}


def _user(login: LoginNode) -> str:
    return login.run("id", "-un").strip()
