"""Told to stop: SIGTERM (a scheduler's), SIGINT (Ctrl-C), SIGUSR1 (Slurm's warning before the time limit), SIGALRM (our own
`--max-time`).

Outside the training loop the signal raises at once: every file is written aside and renamed, so that nothing is lost but
the work since the last artifact. Inside the loop it raises a flag, and the loop stops after the step with a fresh checkpoint.
"""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

from llmctl.errors import EXIT_CTRL_C, EXIT_INTERRUPTED, Interrupted

INSISTENCE_SECONDS = 5.0
WATCHED = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGALRM)
DEADLINE = "LLMCTL_DEADLINE"  # seconds since 1970, for this process and the ranks that it starts


def exit_code_for(number: int) -> int:
    return EXIT_CTRL_C if number == signal.SIGINT else EXIT_INTERRUPTED


def raise_interrupted(number: int, frame: FrameType | None) -> None:
    name = "--max-time" if number == signal.SIGALRM else signal.Signals(number).name
    raise Interrupted(f"stopped by {name}; the same command goes on from here", exit_code_for(number))


def raise_on_signals() -> None:
    """From now on a watched signal raises `Interrupted` in the main thread, and so does the deadline, if there is one."""
    for number in WATCHED:
        signal.signal(number, raise_interrupted)
    if DEADLINE in os.environ:
        signal.setitimer(signal.ITIMER_REAL, max(0.01, float(os.environ[DEADLINE]) - time.time()))


def stop_in(seconds: float) -> None:
    """Set the deadline. Before `raise_on_signals`."""
    os.environ[DEADLINE] = str(time.time() + seconds)


@dataclass
class StopRequest:
    """The signal that asked for a stop, if any came."""

    number: int = 0
    at: float = 0.0


@contextmanager
def deferred() -> Iterator[StopRequest]:
    """Inside the block a watched signal is only noted. The same one again, seconds later, is a person who insists, and raises;
    at once, it is a launcher that hands on what the process has received itself."""
    request = StopRequest()

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
