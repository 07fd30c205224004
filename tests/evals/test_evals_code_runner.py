"""Programs that a model wrote: what passes, and what they cannot do."""

import os
import platform
import socket
import struct
import sys
import time
from pathlib import Path

import pytest

from llmctl.errors import StageFailed, UserError
from llmctl.evals import code_jail, code_runner
from llmctl.evals.code_runner import Limits, Outcome, run_program, run_programs

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() not in code_jail.ARCHITECTURES, reason="no filter of system calls here"
)
TESTS = "\nassert double(2) == 4\nassert double('a') == 'aa'\n"
RIGHT = "def double(x):\n    return 2 * x\n"
LIMITS = Limits(seconds=5.0, memory=2**29)


def ran(program: str, limits: Limits = LIMITS) -> Outcome:
    return run_program(program, limits)


def test_a_right_program_passes_and_a_wrong_one_says_why():
    programs = [RIGHT + TESTS, "def double(x):\n    return x + 2\n" + TESTS, "def double(x:\n" + TESTS, "1 / 0" + TESTS] * 3
    kinds = [(one.status, one.error.partition(":")[0]) for one in run_programs(programs, LIMITS)]
    expected = [("passed", ""), ("failed", "TypeError"), ("failed", "SyntaxError"), ("failed", "ZeroDivisionError")]
    assert kinds == expected * 3


def test_what_ordinary_programs_use_is_there():
    program = """
import collections, dataclasses, functools, hashlib, itertools, math, random, re, threading, typing
@dataclasses.dataclass
class Point:
    x: "int"
found = []
thread = threading.Thread(target=lambda: found.append(Point(1)))
thread.start(); thread.join()
print(random.random(), __name__)
assert found == [Point(1)] and open("/dev/null").read() == "" and __name__ != "__main__"
"""
    assert ran(program) == Outcome("passed")


@pytest.mark.parametrize(
    "leaving",
    [
        "import sys; sys.exit(0)", "import os; os._exit(0)", "quit()", "raise SystemExit", "import os; os.kill(os.getpid(), 9)",
        "import os; os.execv('/bin/true', ['true'])", "raise KeyboardInterrupt", "import os; os.abort()",
        "import os\nos.write(1, b'passed')\nfor n in range(3, 9):\n    try: os.write(n, b'[\"passed\"]\\n')\n"
        "    except OSError: pass\nos._exit(0)",
        "import os; os.closerange(0, 64)",
        "import sys; sys.stdin.read(); print('[\"passed\"]', flush=True); sys.exit(0)",
        "import builtins, os, sys\nbuiltins.exec = print; os._exit = os.write = print; sys.exit()",
    ],
)  # fmt: skip
def test_leaving_before_the_tests_is_no_pass(leaving):
    assert ran(f"{leaving}\n{RIGHT}{TESTS}").status != "passed"


def test_the_word_that_tells_a_pass_is_in_no_place_that_a_program_reads_by_chance(tmp_path, monkeypatch):
    monkeypatch.setattr(code_runner.secrets, "token_hex", lambda size: "word-of-the-pass")
    program = """
import os, sys
places = [open("/proc/self/cmdline").read(), open("/proc/self/environ").read(), sys.stdin.read(), repr(sys.argv)]
places += [repr(os.environ), repr(globals()), repr(vars(sys.modules["__main__"])), repr(os.listdir("."))]
assert not any("word-of-the-" + "pass" in place for place in places)
"""
    assert ran(program) == Outcome("passed")


def test_no_socket_of_any_kind():
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)
        address = server.getsockname()
        outcome = ran(f"import socket\nsocket.create_connection({address!r}, timeout=2)\n")
        assert (outcome.status, outcome.error) == ("failed", "PermissionError: [Errno 1] Operation not permitted")
        with pytest.raises(TimeoutError):
            server.accept()
    for family in ("AF_UNIX", "AF_INET6", "AF_NETLINK", "AF_PACKET"):
        assert "PermissionError" in ran(f"import socket\nsocket.socket(socket.{family}, socket.SOCK_RAW)").error, family


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the numbers are those of x86-64")
@pytest.mark.parametrize(("number", "code"), [(425, 1), (435, 38), (437, 38), (319, 1), (0x40000000 + 41, 38)])
def test_no_way_around_the_filter(number, code):
    """io_uring, clone3, openat2, memfd_create, and socket by the second set of numbers."""
    program = f"import ctypes\ncall = ctypes.CDLL(None, use_errno=True).syscall\nassert call({number}, 2, 1, 0) == -1\n"
    assert ran(f"{program}assert ctypes.get_errno() == {code}, ctypes.get_errno()") == Outcome("passed")


def decision(program: bytes, machine: int, number: int, *arguments: int) -> int:
    """What a filter returns for a system call: the instructions of classic BPF that filters here are made of."""
    call = struct.pack("=iIQ6Q", number, machine, 0, *arguments, *[0] * (6 - len(arguments)))
    at, loaded = 0, 0
    while True:
        code, if_true, if_false, value = struct.unpack_from("=HBBI", program, 8 * at)
        if code == code_jail.RETURN:
            return value
        at += 1
        if code == code_jail.LOAD:
            loaded = struct.unpack_from("=I", call, value)[0]
            continue
        tests = {code_jail.EQUAL: loaded == value, code_jail.AT_LEAST: loaded >= value, code_jail.ANY_BIT: bool(loaded & value)}
        at += if_true if tests[code] else if_false


def test_the_filter_of_a_machine_that_is_not_at_hand():
    """aarch64, with numbers of its own table."""
    program, machine = code_jail.seccomp_filter("aarch64", 42), 0xC00000B7

    def refused(number: int, *arguments: int) -> int:
        found = decision(program, machine, number, *arguments)
        assert found == 0x7FFF0000 or found >> 16 == 5
        return found & 0xFFFF if found >> 16 == 5 else 0

    assert [refused(number) for number in (63, 64, 222, 199, 93)] == [0] * 5  # read, write, mmap, socketpair, exit
    assert [refused(number) for number in (198, 425, 221, 117, 97)] == [1] * 5  # socket, io_uring, execve, ptrace, unshare
    assert [refused(56, -100 % 2**64, 0, flags) for flags in (0, os.O_CLOEXEC, os.O_WRONLY, os.O_RDWR)] == [0, 0, 30, 30]
    assert [refused(129, process, 9) for process in (0, 42, 43, 2**32 - 1)] == [0, 0, 1, 1]  # kill
    assert [refused(220, flags) for flags in (17, 0x3D0F00)] == [1, 0]  # clone: a process, a thread
    assert [refused(number) for number in (435, 437)] == [38, 38]
    assert decision(program, 0x40000028, 63) == 0x80000000  # a call of 32-bit ARM


@pytest.mark.parametrize(
    "change",
    [
        "open(r'{0}', 'w')", "open(r'{0}', 'a')", "open(r'{0}', 'r+b')", "open(r'{0}.new', 'x')", "os.remove(r'{0}')",
        "os.rename(r'{0}', r'{0}.new')", "os.truncate(r'{0}', 0)", "os.chmod(r'{0}', 0)", "os.utime(r'{0}')",
        "os.mkdir(r'{0}.new')", "os.symlink('a', r'{0}.new')", "os.link(r'{0}', r'{0}.new')", "open('here', 'w')",
    ],
)  # fmt: skip
def test_no_file_is_changed(tmp_path, change):
    file = tmp_path / "file"
    file.write_text("mine")
    file.chmod(0o644)
    before = file.stat()
    outcome = ran("import os\n" + change.format(file))
    assert (outcome.status, outcome.error.partition(":")[0]) == ("failed", "OSError")
    assert file.read_text() == "mine"
    assert (file.stat().st_mode, file.stat().st_mtime_ns) == (before.st_mode, before.st_mtime_ns)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize(
    "start",
    [
        "import os\nwhile True: os.fork()", "import subprocess\nsubprocess.Popen(['sleep', '77'])",
        "import os\nos.system('exit 1') == 0 or 1/0",
        "import multiprocessing as m\nm.get_context('fork').Process(target=print).start()",
        "import os\nos.posix_spawn('/bin/sleep', ['sleep', '77'], {})",
    ],
)  # fmt: skip
def test_no_other_process_is_started_or_left_behind(start):
    outcome = ran(start)
    assert outcome.status == "failed"
    assert "PermissionError" in outcome.error or "ZeroDivisionError" in outcome.error


@pytest.mark.parametrize("call", ["os.kill(os.getppid(), 15)", "os.kill(-1, 0)", "os.setpriority(os.PRIO_PROCESS, 0, 5)"])
def test_no_other_process_is_touched(call):
    assert ran(f"import os\n{call}").error == "PermissionError: [Errno 1] Operation not permitted"


@pytest.mark.parametrize(
    "program",
    [
        "while True: pass",
        "import time\ntime.sleep(60)",
        "import signal\nfor n in {*range(1, 32)} - {9, 19}: signal.signal(n, signal.SIG_IGN)\nwhile True: pass",
        "try:\n    while True: pass\nexcept BaseException: pass\nwhile True: pass",
        "import os\nwhile True: os.write(3, b'x' * 9999)",
        "while True: print('x' * 9999)",
        "import threading as t\nfor _ in range(8): t.Thread(target=lambda: [0 for _ in iter(int, 1)]).start()\nwhile True: pass",
    ],
)
def test_a_program_without_an_end_is_stopped(program):
    started = time.monotonic()
    assert ran(program, Limits(seconds=1.0)).status == "timed out"
    assert time.monotonic() - started < 4


def test_memory_is_bounded():
    for program in ("x = [0] * 10**9", "x = []\nwhile True: x.append(bytes(10**6))", "x = []\nwhile True: x.append([x])"):
        assert ran(program, Limits(seconds=60.0, memory=2**29)).status == "out of memory"
    raising = "import resource\nresource.setrlimit(resource.RLIMIT_AS, (2**40, 2**40))"
    assert ran(raising).status == "failed"


def test_open_files_are_bounded():
    assert "Too many open files" in ran("x = []\nwhile True: x.append(open('/dev/null'))").error


def test_much_printed_before_the_end_is_no_failure():
    assert ran("print('x' * 10**8)\n" + RIGHT + TESTS) == Outcome("passed")


def test_a_crash_is_a_failure():
    assert ran("import ctypes\nctypes.string_at(0)").error == "it ended before its tests did: killed by SIGSEGV"


def test_nothing_of_this_process_is_inherited(monkeypatch, tmp_path):
    monkeypatch.setenv("SECRET", "1")
    with (tmp_path / "file").open("w") as file:
        os.set_inheritable(file.fileno(), True)
        program = f"""
import os, sys
assert dict(os.environ).keys() <= {{"LC_CTYPE"}}, dict(os.environ)
assert os.listdir(".") == []
links = [os.readlink("/proc/self/fd/" + n) for n in os.listdir("/proc/self/fd") if os.path.lexists("/proc/self/fd/" + n)]
assert {str(tmp_path / "file")!r} not in links
assert not any("llmctl" in name.split(".") for name in sys.modules)
"""
        assert ran(program) == Outcome("passed")


def test_the_folder_is_removed(tmp_path, monkeypatch):
    monkeypatch.setattr(code_runner.tempfile, "tempdir", str(tmp_path))
    assert str(tmp_path) in ran("import os\nraise ValueError(os.getcwd())").error
    assert list(tmp_path.iterdir()) == []


def test_where_nothing_keeps_a_program_from_the_network_none_is_run(tmp_path, monkeypatch):
    """A machine that the filter does not know."""
    copy = tmp_path / "jail.py"
    copy.write_text(Path(code_jail.__file__).read_text().replace('"x86_64": (', '"vax": (').replace('"aarch64": (', '"pdp": ('))
    monkeypatch.setattr(code_runner.code_jail, "__file__", str(copy))
    with pytest.raises(UserError, match=r"are not run here: .*there is no filter of system calls for linux on"):
        run_programs([f"raise ValueError\n{RIGHT}"] * 3)


def test_a_python_that_does_not_start_is_told(tmp_path, monkeypatch):
    copy = tmp_path / "jail.py"
    copy.write_text("import no_such_module")
    monkeypatch.setattr(code_runner.code_jail, "__file__", str(copy))
    with pytest.raises(StageFailed, match="No module named 'no_such_module'"):
        run_programs(["1"])
