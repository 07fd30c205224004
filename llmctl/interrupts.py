"""Told to stop: SIGTERM (a scheduler's), SIGINT (Ctrl-C), SIGUSR1 (Slurm's warning before the time limit).

Outside the training loop the signal raises at once: every file is written aside and renamed, so that nothing is lost but
the work since the last artifact. Inside the loop it raises a flag, and the loop stops after the step with a fresh checkpoint.
"""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from llmctl.errors import EXIT_CTRL_C, EXIT_INTERRUPTED, Interrupted

WATCHED = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)


def exit_code_for(number: int) -> int:
    return EXIT_CTRL_C if number == signal.SIGINT else EXIT_INTERRUPTED


def raise_interrupted(number: int, frame: FrameType | None) -> None:
    name = signal.Signals(number).name
    raise Interrupted(f"stopped by {name}; the same command goes on from here", exit_code_for(number))


def raise_on_signals() -> None:
    """From now on a watched signal raises `Interrupted` in the main thread."""
    for number in WATCHED:
        signal.signal(number, raise_interrupted)


class StopRequest:
    """The signal that asked for a stop, if any came."""

    def __init__(self) -> None:
        self.number = 0

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self.number = number


@contextmanager
def deferred() -> Iterator[StopRequest]:
    """Inside the block a watched signal is only noted; a second one raises."""
    request = StopRequest()

    def note(number: int, frame: FrameType | None) -> None:
        if request.number:
            raise_interrupted(number, frame)
        request(number, frame)

    before = {number: signal.signal(number, note) for number in WATCHED}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
