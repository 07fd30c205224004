"""Checkpoints while training goes on: the state is copied between two steps, and written by a thread."""

import errno
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import torch

from llmctl import events
from llmctl.errors import Interrupted, StageFailed
from llmctl.interrupts import StopRequest
from llmctl.recipe.execution_schema import CheckpointTable
from llmctl.train import checkpoint
from llmctl.train.checkpoint import Position
from llmctl.train.distributed import agreed_maximum
from llmctl.train.engine import Engine

POLL_SECONDS = 0.05
PATIENCE = 600.0  # seconds in which all ranks have to have written their shards


class Saver:
    """One checkpoint is written at a time. Ranks tell each other through the folder that they are done: collective calls are for
    the main thread alone."""

    def __init__(self, engine: Engine, folder: Path, table: CheckpointTable, steps: int) -> None:
        self.engine, self.folder, self.table, self.steps = engine, folder, table, steps
        self._last = time.monotonic()
        self._seconds = 0.0
        """That the last checkpoint took, from the step before it to its name."""
        self._thread: threading.Thread | None = None
        self._failure: BaseException | None = None

    def due(self, step: int) -> bool:
        """Whether the time has come, after `step` steps. Collective."""
        # Clocks differ, and a save is collective: the first rank whose time has come decides for all.
        by_time = agreed_maximum(self.engine, int(time.monotonic() - self._last >= self.table.every_minutes * 60))
        by_step = self.table.every_steps is not None and step % self.table.every_steps == 0
        return bool(by_time or by_step) and step < self.steps

    def time_for_one(self, stop: StopRequest) -> bool:
        """Whether a checkpoint can be whole before the process is killed, by the time that the last one took. Collective."""
        grace = self.table.grace_seconds
        waited = time.monotonic() - stop.at if stop.number else 0.0  # another rank may have the signal alone
        return not agreed_maximum(self.engine, int(grace is not None and waited + self._seconds >= grace))

    def leave(self, step: int, exit_code: int) -> NoReturn:
        """Wait for what is being written, and say which checkpoint training goes on from.

        Raises:
            Interrupted: always.
        """
        self.finish()
        newest = next(iter(checkpoint.steps_on_disk(self.folder)), None)
        if newest is not None and newest.name == checkpoint.step_name(step):
            left = "with a checkpoint of it; the same command goes on from there"
        elif newest is not None:
            left = f"without a checkpoint of it; the same command goes on from {newest.name}"
        else:
            left = "without a checkpoint; the same command begins anew"
        raise Interrupted(f"stopped at step {step:,} of {self.steps:,} {left}", exit_code)

    def save(self, position: Position) -> None:
        """Begin to write. Collective; waits for the checkpoint before it."""
        self.finish()
        self._last = time.monotonic()
        folder = self.folder / checkpoint.step_name(position.step)
        try:
            aside = checkpoint.begin(self.engine, folder)
        except OSError as error:
            if self.engine.world_size > 1:  # the others are waiting at the barrier
                raise
            self._failure = error
            self._tell()
            return
        tensors = checkpoint.snapshot(self.engine)
        self._thread = threading.Thread(target=self._guarded, args=(lambda: self._write(aside, folder, tensors, position),))
        self._thread.start()

    def finish(self) -> None:
        """Wait until what is being written is there. What went wrong is told.

        Raises:
            StageFailed: for a reason that no later attempt would mend.
        """
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self._tell()

    def _write(self, aside: Path, folder: Path, tensors: dict[str, torch.Tensor], position: Position) -> None:
        rank, ranks = self.engine.rank, self.engine.world_size
        checkpoint.write_shard(aside, tensors, rank, ranks)
        until = time.monotonic() + PATIENCE
        # The others wait, too, so that a failure of the first rank is known to all before the next one is begun.
        while not (checkpoint.shards_written(aside, ranks) if rank == 0 else not aside.exists()):
            if time.monotonic() > until:
                raise TimeoutError(f"{aside}: not all ranks have written their shards within {PATIENCE:.0f} seconds")
            time.sleep(POLL_SECONDS)
        if rank == 0:
            checkpoint.commit(aside, folder, position, ranks)
            checkpoint.prune(self.folder, self.table.keep)
        self._seconds = time.monotonic() - self._last

    def _guarded(self, write: Callable[[], None]) -> None:
        try:
            write()
        except BaseException as error:
            self._failure = error

    def _tell(self) -> None:
        failure, self._failure = self._failure, None
        if failure is None:
            return
        if not isinstance(failure, OSError):
            raise StageFailed(f"a checkpoint could not be written: {failure}") from failure
        for aside in self.folder.glob(".step-*.tmp"):
            shutil.rmtree(aside, ignore_errors=True)
        full = "no space is left on the disk" if failure.errno in (errno.ENOSPC, errno.EDQUOT) else str(failure)
        newest = next(iter(checkpoint.steps_on_disk(self.folder)), None)
        left = f"the last one is {newest}" if newest is not None else "and there is none before it"
        events.warn(
            f"a checkpoint could not be written ({full}); {left}. Training goes on, and the next one is tried in its time"
        )
