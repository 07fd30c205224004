"""What must not need Linux: to look at a recipe and to be told what is missing."""

import subprocess
import sys

import pytest
from helpers import REPOSITORY

POORER = """
import builtins, os, signal, sys, types

UNIX = {"fcntl", "resource", "termios", "pwd", "grp", "pty", "tty", "readline"}
LACKING = {
    "os": {"sched_getaffinity", "sysconf", "killpg", "fork", "setsid", "getuid", "geteuid", "posix_fadvise"},
    "signal": {"SIGUSR1", "SIGALRM", "SIGKILL", "SIGHUP", "SIGXCPU", "setitimer", "ITIMER_REAL"},
}
poorer = {}
for name, lacking in LACKING.items():
    poorer[name] = types.ModuleType(name)
    poorer[name].__dict__.update({key: value for key, value in sys.modules[name].__dict__.items() if key not in lacking})
plain = builtins.__import__

def as_on_windows(name, globals=None, locals=None, fromlist=(), level=0):
    if not str((globals or {}).get("__name__")).startswith("llmctl"):
        return plain(name, globals, locals, fromlist, level)
    if name in UNIX:
        raise ImportError(f"there is no {name} here")
    return poorer[name] if name in poorer else plain(name, globals, locals, fromlist, level)

builtins.__import__ = as_on_windows
"""
COMMAND = f"{POORER}\nfrom llmctl.cli import main\nmain()"


def run_poorer(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run code without the modules and functions that Windows lacks; the libraries have them."""
    return subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=300, cwd=REPOSITORY)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--help",), "Takes raw text to a tuned language model"),
        (("explain", "pretrain.lr"), "lr"),
        (("plan", "recipes/olmo_small.toml", "--gpus", "1", "--gpu", "h100"), "olmo_small on 1 rank"),
        (("runs", "--runs", "no-such-folder"), "no runs in no-such-folder"),
        (("doctor", "--quick"), "torch"),
    ],
)
def test_commands_that_train_nothing_need_no_unix(arguments, told):
    run = run_poorer(COMMAND, *arguments)
    assert "Traceback" not in run.stderr, run.stderr
    assert run.returncode == 0, run.stderr
    assert told in run.stdout


def test_an_artifact_is_held_by_one_process_alone_with_the_lock_of_windows(tmp_path):
    """`msvcrt.locking`, as its documentation has it, on top of POSIX locks."""
    windows = f"""{POORER}
import fcntl, subprocess, types
def locking(descriptor, mode, length):
    fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, length, 0, os.SEEK_CUR)
sys.modules["msvcrt"] = types.SimpleNamespace(locking=locking, LK_LOCK=1, LK_NBLCK=2)

from pathlib import Path
from llmctl.runs import locks
from llmctl.runs.artifact import Artifact
assert locks.fcntl is None
artifact = Artifact(Path(sys.argv[1]))
"""
    first = f"""{windows}
with artifact.lock():
    sys.exit(subprocess.run([sys.executable, "-c", sys.argv[2], sys.argv[1]]).returncode)
"""
    second = f"""{windows}
from llmctl.errors import StageFailed
try:
    with artifact.lock():
        sys.exit("both hold it")
except StageFailed as failed:
    sys.exit(0 if "another process (pid " in str(failed) else str(failed))
"""
    run = run_poorer(first, str(tmp_path), second)
    assert run.returncode == 0, run.stderr
    free = run_poorer(f"{windows}\nwith artifact.lock(): print('mine')", str(tmp_path))
    assert free.stdout == "mine\n", free.stderr


def test_training_on_windows_is_refused_with_the_way_out():
    run = run_poorer(
        f"""{POORER}
from llmctl.train import distributed
from llmctl.errors import StageFailed
sys.platform = "win32"
try:
    distributed.join_process_group()
except StageFailed as failed:
    print(failed)
"""
    )
    assert "WSL 2" in run.stdout, run.stderr
