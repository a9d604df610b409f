"""Which system calls may a solution make? An allow-list as a classic BPF program for seccomp.

    no new processes, no signals, no sockets but pairs, no mounts, no namespaces, no tracing

Everything not listed fails with ENOSYS, as on a kernel that lacks it, so that libraries take their older path
(clone3 -> clone, for a thread). The numbers are those of Linux's unistd tables; the file is data, and it is
compiled here, outside: the sandbox receives bytes.
"""

import platform
import struct

from apriel_mcore.errors import InputError

_ALLOWED: dict[str, tuple[int, ...]] = {
    # files and memory; what may be opened is the mount namespace's or landlock's matter
    "x86_64": (
        *(0, 1, 2, 3, 4, 5, 6, 8, 9, 10, 11, 12, 17, 18, 19, 20, 21, 25, 27, 28),
        *(32, 33, 72, 74, 75, 77, 79, 80, 82, 83, 84, 85, 87, 89, 95),
        *(217, 221, 257, 258, 262, 263, 264, 267, 269, 316, 332, 436, 439),
        # time, signals' handlers, waiting, pipes
        *(7, 13, 14, 15, 22, 23, 24, 34, 35, 36, 37, 38, 96, 127, 128, 130, 131),
        *(201, 213, 222, 223, 224, 225, 226, 228, 229, 230, 232, 233, 270, 271, 281, 290, 291, 292, 293),
        # threads and facts about the process itself
        *(39, 60, 61, 63, 97, 98, 99, 100, 102, 104, 107, 108, 110, 111, 121, 124, 158, 160, 186),
        *(202, 204, 218, 219, 231, 247, 273, 274, 309, 318, 324, 334),
        # the far end of a socket pair
        *(45, 48, 51, 52, 54, 55),
    ),
    "aarch64": (
        *(17, 19, 20, 21, 22, 23, 24, 25, 34, 35, 38, 46, 48, 49, 56, 57, 59, 61, 62, 63, 64, 65, 66, 67, 68),
        *(72, 73, 78, 79, 80, 82, 83, 93, 94, 95, 96, 98, 99, 100, 101, 102, 103, 107, 108, 109, 110, 111),
        *(113, 114, 115, 123, 124, 128, 132, 133, 134, 135, 136, 137, 139, 153, 155, 156, 160, 163, 164),
        *(165, 166, 168, 169, 172, 173, 174, 175, 176, 177, 178, 179, 204, 205, 207, 208, 209, 210),
        *(214, 215, 216, 222, 223, 226, 232, 233, 260, 276, 278, 283, 291, 293, 436, 439),
    ),
}
_AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}

# By argument: name -> (number on x86_64, on aarch64, index of the argument, values that are let through).
_TERMINAL_QUERIES = (0x5401, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451)  # TCGETS, sizes, FIONBIO, FIO(N)CLEX
_GUARDED: dict[str, tuple[int, int, int, tuple[int, ...]]] = {
    "ioctl": (16, 29, 1, _TERMINAL_QUERIES),
    "prctl": (157, 167, 0, (15, 16)),  # PR_SET_NAME, PR_GET_NAME
    "prlimit64": (302, 261, 0, (0,)),  # itself only
    "socketpair": (53, 199, 0, (1,)),  # AF_UNIX: asyncio's wake-up
    "sendto": (44, 206, 4, (0,)),  # to the other end only, never to an address
}
_CLONE = {"x86_64": 56, "aarch64": 220}
_CLONE_THREAD = 0x00010000

_LOAD, _JUMP_EQUAL, _JUMP_SET, _RETURN = 0x20, 0x15, 0x45, 0x06
_ALLOW, _REFUSE, _KILL = 0x7FFF0000, 0x00050000 | 38, 0x80000000  # 38: ENOSYS
_NUMBER, _ARCH, _ARGS = 0, 4, 16
"""Offsets in struct seccomp_data; arguments are 8 bytes each, low word first on both machines."""


def program(machine: str = platform.machine()) -> bytes:
    """The filter as an array of struct sock_filter; InputError where the machine's numbers are not known."""
    if machine not in _ALLOWED:
        raise InputError(
            f"verify.sandbox: no system-call table for {machine}; known are {', '.join(_ALLOWED)}"
        )
    code = _op(_LOAD, _ARCH) + _op(_JUMP_EQUAL, _AUDIT_ARCH[machine], 1, 0) + _op(_RETURN, _KILL)
    code += _op(_LOAD, _NUMBER)
    for number in _ALLOWED[machine]:
        code += _op(_JUMP_EQUAL, number, 0, 1) + _op(_RETURN, _ALLOW)
    for x86, arm, index, values in _GUARDED.values():
        code += _when(x86 if machine == "x86_64" else arm, _argument_is(index, values))
    thread = _op(_LOAD, _ARGS) + _op(_JUMP_SET, _CLONE_THREAD, 0, 1) + _op(_RETURN, _ALLOW)
    code += _when(_CLONE[machine], thread)
    return code + _op(_RETURN, _REFUSE)


def _when(number: int, then: bytes) -> bytes:
    """`then`, which may allow, and a refusal, for one system call; others pass by."""
    then += _op(_RETURN, _REFUSE)
    return _op(_JUMP_EQUAL, number, 0, len(then) // 8) + then


def _argument_is(index: int, values: tuple[int, ...]) -> bytes:
    """Allows when the 64-bit argument is one of some 32-bit values."""
    tests = _op(_LOAD, _ARGS + 8 * index)
    for value in values:
        tests += _op(_JUMP_EQUAL, value, 0, 1) + _op(_RETURN, _ALLOW)
    return _op(_LOAD, _ARGS + 8 * index + 4) + _op(_JUMP_EQUAL, 0, 0, len(tests) // 8) + tests


def _op(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("<HBBI", code, if_true, if_false, value)
