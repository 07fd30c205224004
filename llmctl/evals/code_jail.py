"""Runs a program behind a filter of system calls. A script of its own, for `python -I`: it imports nothing of the package.

It reads one JSON object from its input: `source` (of the program with its tests), `token`, `seconds`, `memory` (bytes), `files`.
It writes lines of the token and a JSON list: ["started"], then one of ["passed", ""], ["failed", error], ["memory", error]; or,
without running anything, ["refused", reason].

The numbers of system calls are those of Linux's arch/x86/entry/syscalls/syscall_64.tbl and include/uapi/asm-generic/unistd.h.
"""

import ctypes
import errno
import json
import os
import platform
import resource
import struct
import sys
import types

ARCHITECTURES = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}
"""Of each machine: its AUDIT_ARCH (linux/audit.h), and its column below."""

FORBIDDEN: dict[str, tuple[int | None, int | None]] = {
    # any kind of network, io_uring and descriptors of other processes included: no other call makes a socket that can connect
    "socket": (41, 198), "io_uring_setup": (425, 425), "io_uring_enter": (426, 426), "io_uring_register": (427, 427),
    "pidfd_open": (434, 434), "pidfd_getfd": (438, 438),
    # other processes: to start them, read them, write into them, signal them, slow them down
    "fork": (57, None), "vfork": (58, None), "execve": (59, 221), "execveat": (322, 281), "unshare": (272, 97),
    "setns": (308, 268), "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271),
    "process_madvise": (440, 440), "pidfd_send_signal": (424, 424), "tkill": (200, 130), "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240), "setpriority": (141, 140), "sched_setscheduler": (144, 119),
    "sched_setparam": (142, 118), "sched_setattr": (314, 274), "ioprio_set": (251, 30),
    # memory that no limit counts
    "memfd_create": (319, 279), "memfd_secret": (447, 447), "shmget": (29, 194), "msgget": (68, 186), "semget": (64, 190),
    "mq_open": (240, 180), "add_key": (248, 217), "request_key": (249, 218), "keyctl": (250, 219),
    # parts of the kernel that have been a way out
    "bpf": (321, 280), "userfaultfd": (323, 282), "perf_event_open": (298, 241), "open_by_handle_at": (304, 265),
}  # fmt: skip
CHANGES: dict[str, tuple[int | None, int | None]] = {
    # of the file system, besides open and openat
    "creat": (85, None), "truncate": (76, 45), "unlink": (87, None), "unlinkat": (263, 35), "rename": (82, None),
    "renameat": (264, 38), "renameat2": (316, 276), "mkdir": (83, None), "mkdirat": (258, 34), "rmdir": (84, None),
    "link": (86, None), "linkat": (265, 37), "symlink": (88, None), "symlinkat": (266, 36), "mknod": (133, None),
    "mknodat": (259, 33), "chmod": (90, None), "fchmod": (91, 52), "fchmodat": (268, 53), "fchmodat2": (452, 452),
    "chown": (92, None), "fchown": (93, 55), "lchown": (94, None), "fchownat": (260, 54), "setxattr": (188, 5),
    "lsetxattr": (189, 6), "fsetxattr": (190, 7), "setxattrat": (463, 463), "removexattr": (197, 14),
    "lremovexattr": (198, 15), "fremovexattr": (199, 16), "removexattrat": (466, 466), "utime": (132, None),
    "utimes": (235, None), "utimensat": (280, 88), "futimesat": (261, None), "file_setattr": (469, 469),
}  # fmt: skip
UNKNOWN: dict[str, tuple[int | None, int | None]] = {"clone3": (435, 435), "openat2": (437, 437)}
"""Calls whose flags lie in memory, where a filter cannot read: the C library takes the older ones instead."""
WRITING_OPENS: dict[str, tuple[int | None, int | None, int]] = {"open": (2, None, 1), "openat": (257, 56, 2)}
"""With the argument that holds the flags."""
ON_ITSELF = {"kill": (62, 129), "tgkill": (234, 131), "prlimit64": (302, 261), "sched_setaffinity": (203, 122)}
"""Calls whose first argument is a process: none but this one (0: also this one)."""
CLONE: tuple[int, int] = (56, 220)

CLONE_THREAD = 0x10000
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
X32 = 0x40000000
"""Bit of the second set of numbers that x86-64 has."""
LOAD, EQUAL, AT_LEAST, ANY_BIT, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06  # linux/bpf_common.h
ALLOW, KILL, REFUSE = 0x7FFF0000, 0x80000000, 0x00050000  # linux/seccomp.h
NUMBER, ARCHITECTURE, ARGUMENTS = 0, 4, 16
"""Where `struct seccomp_data` holds what."""
PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS, SECCOMP_MODE_FILTER = 22, 38, 2
CAPABILITY_VERSION = 0x20080522
RESERVE = 2**20
"""Bytes that are given back to tell that there is no memory left."""


def instruction(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, if_true, if_false, value)


def rule(call: int | None, *then: bytes) -> bytes:
    """What happens to a system call; `then` ends in a return. No number: the machine has no such call."""
    return b"" if call is None else instruction(EQUAL, call, 0, len(then)) + b"".join(then)


def refuse(code: int) -> bytes:
    return instruction(RETURN, REFUSE | code)


def seccomp_filter(machine: str, process: int) -> bytes:
    """The filter as a classic BPF program (Linux: Documentation/userspace-api/seccomp_filter.rst) for the process `process`."""
    architecture, column = ARCHITECTURES[machine]
    allow, denied = instruction(RETURN, ALLOW), refuse(errno.EPERM)
    program = instruction(LOAD, ARCHITECTURE) + instruction(EQUAL, architecture, 1, 0) + instruction(RETURN, KILL)
    program += instruction(LOAD, NUMBER)
    if machine == "x86_64":
        program += instruction(AT_LEAST, X32, 0, 1) + refuse(errno.ENOSYS)
    for calls, code in ((FORBIDDEN, errno.EPERM), (CHANGES, errno.EROFS), (UNKNOWN, errno.ENOSYS)):
        for numbers in calls.values():
            program += rule(numbers[column], refuse(code))
    for *numbers, argument in WRITING_OPENS.values():
        flags = instruction(LOAD, ARGUMENTS + 8 * argument)
        program += rule(numbers[column], flags, instruction(ANY_BIT, WRITING, 0, 1), refuse(errno.EROFS), allow)
    first = instruction(LOAD, ARGUMENTS)
    for numbers in ON_ITSELF.values():
        zero, own = instruction(EQUAL, 0, 2, 0), instruction(EQUAL, process, 1, 0)
        program += rule(numbers[column], first, zero, own, denied, allow)
    program += rule(CLONE[column], first, instruction(ANY_BIT, CLONE_THREAD, 1, 0), denied, allow)
    return program + allow


def lock_in(seconds: float, memory: int, files: int) -> None:
    """From here on this process has limits, no capabilities, and only the system calls that the filter lets through.

    Raises:
        OSError: the system refuses one of them, with the reason.
    """
    machine = platform.machine()
    if sys.platform != "linux" or machine not in ARCHITECTURES:
        raise OSError(f"there is no filter of system calls for {sys.platform} on {machine}")
    system = ctypes.CDLL(None, use_errno=True)

    def must(done: int, what: str) -> None:
        if done:
            raise OSError(f"{what}: {os.strerror(ctypes.get_errno())}")

    for kind, most in (
        (resource.RLIMIT_CORE, 0), (resource.RLIMIT_FSIZE, 0), (resource.RLIMIT_NOFILE, files), (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_CPU, int(seconds) + 1),
    ):  # fmt: skip
        hardest = resource.getrlimit(kind)[1]
        most = most if hardest == resource.RLIM_INFINITY else min(most, hardest)
        resource.setrlimit(kind, (most, most))
    header, sets = struct.pack("=Ii", CAPABILITY_VERSION, 0), bytes(24)
    must(system.capset(header, sets), "capset")
    must(system.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "prctl(PR_SET_NO_NEW_PRIVS)")
    program = seccomp_filter(machine, os.getpid())
    held = ctypes.create_string_buffer(program, len(program))
    described = struct.pack("@HP", len(program) // 8, ctypes.addressof(held))
    must(system.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, described, 0, 0), "prctl(PR_SET_SECCOMP)")


def attempt(source: str) -> tuple[str, str]:
    """("passed", "") if the program comes to its end, else what kept it from that."""
    module = types.ModuleType("program")
    sys.modules["program"] = module  # where dataclasses and pickle look for its names
    reserve = bytearray(RESERVE)
    try:
        exec(compile(source, "program.py", "exec"), module.__dict__)
        return "passed", ""
    except BaseException as error:
        del reserve
        kind = "memory" if isinstance(error, MemoryError) else "failed"
        try:
            words = str(error).strip().splitlines()
            return kind, f"{type(error).__name__}: {words[-1][:300]}" if words else type(error).__name__
        except BaseException:
            return kind, "an error that cannot be written"


def main() -> None:
    write, end, encode = os.write, os._exit, json.dumps  # the program may put others in their place
    order = json.loads(sys.stdin.buffer.read())
    reports = os.dup(1)
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    os.close(null)

    def report(*words: str) -> None:
        write(reports, f"{order['token']} {encode(words)}\n".encode())

    try:
        lock_in(order["seconds"], order["memory"], order["files"])
    except (OSError, ValueError) as error:
        report("refused", str(error))
        end(0)
    report("started")
    report(*attempt(order["source"]))
    end(0)


if __name__ == "__main__":
    main()
