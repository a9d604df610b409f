"""Does a sandbox hold? A program that runs as a solution would, and names each attack that succeeded.

Every backend must stop them all.
"""

import contextlib
import os
import socket
from collections.abc import Iterator

from apriel_mcore.verify.sandbox_launch import Backend

REMEDIES: dict[Backend, str] = {
    "bwrap": (
        "Remedies: allow unprivileged user namespaces (sysctl user.max_user_namespaces, and on Ubuntu "
        "kernel.apparmor_restrict_unprivileged_userns=0); in a container also a seccomp profile that permits "
        'them; or choose a sandbox that needs none: verify.sandbox.kind = "landlock"'
    ),
    "landlock": (
        "Remedies: Linux 6.2 or newer with landlock among its security modules (lsm=landlock,...); or "
        'verify.sandbox.kind = "bwrap"'
    ),
}

SOURCE = """
import os, signal, socket, time

def attempt(attack, *args):
    try:
        return bool(attack(*args))
    except (OSError, MemoryError):
        return False

def network(port):
    return socket.create_connection(("127.0.0.1", port), timeout=1)

def files():
    return open("/etc/passwd").read()

def signals(pid):
    os.kill(pid, 0)
    return True

def environment():
    found = b""
    for name in os.listdir("/proc"):
        if name.isdigit() and attempt(open, f"/proc/{name}/environ", "rb"):
            with open(f"/proc/{name}/environ", "rb") as stream:
                found += stream.read()
    return b"PATH=" in found or b"HOME=" in found

def memory():
    return bytearray(2 << 30)

def processes():
    born = []
    try:
        while len(born) < 40:
            pid = os.fork()
            if pid == 0:
                time.sleep(60)
                os._exit(0)
            born.append(pid)
        return True
    finally:
        for pid in born:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)

def devices():
    path = f"/dev/shm/apriel-probe-{os.getpid()}"
    open(path, "w").close()
    os.remove(path)
    return True

def breaches(port, pid):
    tried = {
        "network": attempt(network, port),
        "files": attempt(files),
        "signals": attempt(signals, pid),
        "environment": attempt(environment),
        "memory": attempt(memory),
        "processes": attempt(processes),
        "devices": attempt(devices),
    }
    return [name for name, succeeded in tried.items() if succeeded]
"""


@contextlib.contextmanager
def targets() -> Iterator[list[int]]:
    """The arguments of `breaches`: a port on the host's loopback that answers, and this process's id."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield [listener.getsockname()[1], os.getpid()]
