"""Runs programs that a model wrote, each in a process of its own.

What the isolation gives (`code_jail`, Linux on x86-64 and aarch64): a filter of system calls under which a program can open no
socket of any kind, change no file, start no process and signal or trace no other; limits of time, address space and open files;
no environment, no input, no descriptors of this process; a working folder that is empty. At its end the process is killed.

What it does not give: it is no container. A program reads what the user may read, it runs on the user's kernel, and its threads
and the processor's time are bounded only by its own limits. For programs that are meant to do harm, take a virtual machine.

A program has passed if it came to the end of its tests. The process says so with a random word that comes with the program
and is in no file, no environment and no descriptor when the program runs: exits of any kind and anything printed are no
pass. A program that looks for the word in the frames below its own can find it, as it could change its tests: no process can
keep a secret from itself.
"""

import json
import os
import secrets
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from llmctl import events
from llmctl.errors import StageFailed, UserError
from llmctl.evals import code_jail
from llmctl.runs.machine import usable_cores

Status = Literal["passed", "failed", "timed out", "out of memory"]
KEPT = 64 * 1024
"""Bytes at the end of what a process reports that are read."""
REFUSED = (
    "programs that a model writes are not run here: they could reach the network and change files ({reason}). Run this on Linux "
    "(x86-64 or aarch64) where a process may set a seccomp filter, or leave tasks of programs out"
)


@dataclass(frozen=True, slots=True)
class Limits:
    """Of one program."""

    seconds: float = 10.0
    """By the clock; of the processor, threads together, up to a second more."""
    memory: int = 2 * 1024**3
    """Bytes of address space, Python's own included."""
    files: int = 64
    """Open at a time."""


@dataclass(frozen=True, slots=True)
class Outcome:
    status: Status
    error: str = ""
    """The last line of what kept it from passing."""

    @property
    def passed(self) -> bool:
        return self.status == "passed"


def run_programs(sources: Sequence[str], limits: Limits | None = None, at_once: int | None = None) -> list[Outcome]:
    """What becomes of each program, `at_once` (left out: as many as this process has cores) at a time.

    Raises:
        UserError: this machine cannot keep a program from the network; none was run.
        StageFailed: Python does not start.
    """
    found: list[Outcome | None] = [None] * len(sources)
    with ThreadPoolExecutor(at_once or usable_cores()) as pool:
        try:
            running = {pool.submit(run_program, source, limits or Limits()): index for index, source in enumerate(sources)}
            for done, future in enumerate(as_completed(running), start=1):
                found[running[future]] = future.result()
                events.progress("running programs", done, len(sources), "programs")
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return [outcome for outcome in found if outcome is not None]


def run_program(source: str, limits: Limits) -> Outcome:
    """What becomes of a program with its tests.

    Raises:
        UserError, StageFailed: as `run_programs`.
    """
    token = secrets.token_hex(16)
    order = {"source": source, "token": token, "seconds": limits.seconds, "memory": limits.memory, "files": limits.files}
    with tempfile.TemporaryDirectory(prefix="program-") as folder:
        process = subprocess.Popen(
            [sys.executable, "-I", "-B", str(Path(code_jail.__file__).resolve())],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            cwd=folder, env={}, start_new_session=True,
        )  # fmt: skip
        try:
            text, in_time = _reported(process, json.dumps(order).encode(), limits.seconds)
            with suppress(subprocess.TimeoutExpired):  # it closed its output and goes on: no pass can come of that
                process.wait(1.0 if in_time else 0.0)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    return _outcome(text, token, None if in_time else limits.seconds, process.returncode)


def _reported(process: subprocess.Popen[bytes], order: bytes, seconds: float) -> tuple[str, bool]:
    """The end of what a process writes until it closes its output, and whether it did so in time."""
    assert process.stdin is not None
    assert process.stdout is not None
    with suppress(BrokenPipeError), process.stdin:
        process.stdin.write(order)
    found, ends = b"", time.monotonic() + seconds
    with selectors.DefaultSelector() as selector, process.stdout:
        selector.register(process.stdout, selectors.EVENT_READ)
        while (left := ends - time.monotonic()) > 0:
            if not selector.select(left):
                continue
            piece = os.read(process.stdout.fileno(), KEPT)
            if not piece:
                return found.decode(errors="replace"), True
            found = (found + piece)[-KEPT:]
    return found.decode(errors="replace"), False


def _outcome(text: str, token: str, late: float | None, code: int) -> Outcome:
    """From what a process reported; `late`: the seconds it had and did not end in; `code`: its exit code, or minus the signal
    that ended it."""
    reports = [json.loads(line.removeprefix(token)) for line in text.splitlines() if line.startswith(token)]
    match reports[-1] if reports else []:
        case ["passed", *_]:
            return Outcome("passed")
        case ["failed", error]:
            return Outcome("failed", error)
        case ["memory", error]:
            return Outcome("out of memory", error)
        case ["refused", reason]:
            raise UserError(REFUSED.format(reason=reason))
    if late is not None or code == -signal.SIGXCPU:
        return Outcome("timed out", f"no end after {late:g} seconds" if late is not None else "no processor time is left to it")
    if not reports:
        raise StageFailed(f"{sys.executable} -I does not start, which programs that a model wrote are run by:\n{text.strip()}")
    if code == -signal.SIGKILL:
        return Outcome("out of memory", "the system ended it")
    how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
    return Outcome("failed", f"it ended before its tests did: {how}")
