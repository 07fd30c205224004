"""Told to stop: SIGTERM (a scheduler's), SIGINT (Ctrl-C), SIGUSR1 (Slurm's warning before the time limit), SIGALRM (our own
`--max-time`).

Outside the training loop the signal raises at once: every file is written aside and renamed, so that nothing is lost but
the work since the last artifact. Inside the loop it raises a flag, and the loop stops after the step with a fresh checkpoint.

An exception from nowhere does not always arrive: imports of extension modules catch it and try another way (daft, torch: one
signal in ten was lost there), finalizers drop it. It is raised again until it has come to a place that waits for it.
"""

import atexit
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

from llmctl.errors import EXIT_CTRL_C, EXIT_INTERRUPTED, Interrupted

INSISTENCE_SECONDS = 5.0
AGAIN_SECONDS = 0.5
NAMES = ("SIGTERM", "SIGINT", "SIGUSR1", "SIGALRM")
WATCHED = tuple(getattr(signal, name) for name in NAMES if hasattr(signal, name))  # Windows has the first two
DEADLINE = "LLMCTL_DEADLINE"  # seconds since 1970, for this process and the ranks that it starts


def exit_code_for(number: int) -> int:
    return EXIT_CTRL_C if number == signal.SIGINT else EXIT_INTERRUPTED


@dataclass
class StopRequest:
    """The signal that asked for a stop, if any came."""

    number: int = 0
    at: float = 0.0


_asked = StopRequest()
"""What raised in this process; `at` is when the exception arrived."""


def raise_interrupted(number: int, frame: FrameType | None) -> None:
    """The handler. Raises again after a while, by the timer that no deadline needs any more; once the exception has arrived,
    only where a person insists seconds later."""
    if _asked.at and time.monotonic() - _asked.at < INSISTENCE_SECONDS:
        return
    _asked.number = _asked.number or number
    _ring_in(AGAIN_SECONDS)
    raise _interrupted()


def _ring_in(seconds: float) -> None:
    """SIGALRM after so many seconds, 0: never; nor on Windows."""
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_REAL, seconds)


def _interrupted() -> Interrupted:
    name = signal.Signals(_asked.number).name
    name = "--max-time" if name == "SIGALRM" else name
    return Interrupted(f"stopped by {name}; the same command goes on from here", exit_code_for(_asked.number))


@contextmanager
def arriving() -> Iterator[None]:
    """Here an interruption arrives. Another error that comes after one is its consequence (a module imported by half, say)."""
    try:
        yield
    except BaseException as error:
        if not _asked.number:
            raise
        _asked.at = _asked.at or time.monotonic()
        _ring_in(0)
        if isinstance(error, Interrupted):
            raise
        raise _interrupted() from None


def leave(code: int) -> None:
    """End the process where it was interrupted, without Python's finalization: native threads that are still at work (daft's)
    abort the process when they come upon it, and others would be waited for."""
    if _asked.number:
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def interruptible(work: Callable[[], None]) -> None:
    """Do work of native code that does not look for signals: in a thread, which is left behind when a signal comes."""
    failures: list[BaseException] = []

    def guarded() -> None:
        try:
            work()
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=guarded, daemon=True)
    thread.start()
    thread.join()
    if failures:
        raise failures[0]


def _hide(lost: "sys.UnraisableHookArgs") -> None:
    """For exceptions that nobody can catch (in a finalizer): an interruption is raised again anyway."""
    if not isinstance(lost.exc_value, Interrupted):
        sys.__unraisablehook__(lost)


def raise_on_signals() -> None:
    """From now on a watched signal raises `Interrupted` in the main thread, and so does the deadline, if there is one.
    Inside `arriving`."""
    for number in WATCHED:
        signal.signal(number, raise_interrupted)
    sys.unraisablehook = _hide
    if DEADLINE in os.environ:
        _ring_in(max(0.01, float(os.environ[DEADLINE]) - time.time()))


def stop_in(seconds: float) -> None:
    """Set the deadline. Before `raise_on_signals`."""
    os.environ[DEADLINE] = str(time.time() + seconds)


@contextmanager
def deferred() -> Iterator[StopRequest]:
    """Inside the block a watched signal is only noted. The same one again, seconds later, is a person who insists, and raises;
    at once, it is a launcher that hands on what the process has received itself. One that is on its way already counts."""
    request = StopRequest(_asked.number, time.monotonic())

    def note(number: int, frame: FrameType | None) -> None:
        if number == request.number and time.monotonic() - request.at > INSISTENCE_SECONDS:
            raise_interrupted(number, frame)
        if not request.number:
            request.number, request.at = number, time.monotonic()

    before = {number: signal.signal(number, note) for number in WATCHED}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    _asked.number = _asked.number or request.number  # the block has ended before it could act on it


def raise_if_asked() -> None:
    """Raises:
    Interrupted: a signal came in a `deferred` block that did not act on it.
    """
    if _asked.number:
        raise _interrupted()
