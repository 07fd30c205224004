"""The training loop: the same for every stage."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from llmctl import events
from llmctl.errors import Interrupted, StageFailed
from llmctl.interrupts import deferred, exit_code_for
from llmctl.recipe.schema import CheckpointTable
from llmctl.train import checkpoint
from llmctl.train.checkpoint import Position, SavedState
from llmctl.train.data import TrainingRows
from llmctl.train.engine import Engine
from llmctl.train.guard import StepGuard
from llmctl.train.meters import SpeedMeter, memory_bytes
from llmctl.train.saver import Saver
from llmctl.train.schedule import Schedule


@dataclass(frozen=True, slots=True)
class LoopSettings:
    steps: int
    seq_len: int
    micro_batch: int
    schedule: Schedule
    peak_learning_rate: float
    seed: int
    checkpoints: Path
    checkpoint: CheckpointTable
    skip_sigmas: float = 6.0
    max_rollbacks: int = 2


def train(
    engine: Engine,
    rows: TrainingRows,
    settings: LoopSettings,
    position: Position,
    on_step: Callable[[int], None] = lambda step: None,
    keep: Callable[[Position], None] = lambda position: None,
) -> Position:
    """Train from `position` to the last step and return where it ended. `keep` writes the model down for good, on all ranks.

    Raises:
        Interrupted: a signal asked for a stop; a checkpoint of the step just made is on disk.
        StageFailed: the loss is no number any more, and going back did not help.
    """
    meter = SpeedMeter(settings.steps)
    saver = Saver(engine, settings.checkpoints, settings.checkpoint, settings.steps)
    guard = StepGuard(settings.skip_sigmas, list(position.losses), set(position.left_out))
    batch_tokens = rows.batch_rows * settings.seq_len
    with deferred() as stop:
        while position.step < settings.steps:
            step = position.step
            # The only randomness of a step is dropout: seeded by the step, a resumed stage draws what it would have drawn.
            torch.manual_seed(settings.seed + (step * engine.world_size + engine.rank))
            loss, z_loss, stopping = accumulate(engine, rows, settings.micro_batch, step, stop.number)
            multiplier = settings.schedule.multiplier(step)
            why_not = guard.why_not(step, loss)
            if why_not is None:
                gradient_norm = engine.step(multiplier)
            else:
                engine.discard()
                gradient_norm = 0.0
                events.warn(f"step {step + 1:,} is left out: {why_not}")
            guard.record(step, loss, gradient_norm)
            if guard.weights_lost:
                saver.finish()
                position = _go_back(engine, settings, guard)
                continue
            made = position.optimizer_step + (why_not is None and math.isfinite(gradient_norm))
            position = Position(
                step + 1, position.tokens + batch_tokens, made, tuple(guard.losses), tuple(sorted(guard.left_out))
            )
            meter.step(batch_tokens)
            events.metrics(
                {"step": position.step, "steps": settings.steps, "tokens": position.tokens}
                | {"loss": loss, "z_loss": z_loss, "gradient_norm": gradient_norm, "left_out": int(why_not is not None)}
                | {"learning_rate": multiplier * settings.peak_learning_rate, "memory_bytes": memory_bytes(engine.device)}
                | {"tokens_per_second": meter.tokens_per_second, "eta_seconds": meter.eta_seconds(position.step)}
            )
            on_step(position.step)
            if not guard.lost:  # weights that may be lost are not written down
                if settings.checkpoint.keep_every is not None and position.step % settings.checkpoint.keep_every == 0:
                    keep(position)
                if saver.due(position.step) or stopping:
                    saver.save(position)
            if stopping:
                written = saver.finish() and not guard.lost
                left, place = ("with", "there") if written else ("without", "the one before")
                raise Interrupted(
                    f"stopped at step {position.step:,} of {settings.steps:,} {left} a checkpoint of it; "
                    f"the same command goes on from {place}",
                    exit_code_for(stopping),
                )
        saver.finish()
    return position


def accumulate(engine: Engine, rows: TrainingRows, micro_batch: int, step: int, signal_number: int) -> tuple[float, float, int]:
    """Gradients of a step. Returns mean loss and z-loss over all ranks, and the largest signal that any rank has received."""
    count = rows.supervised(step)
    sums = torch.zeros(2, dtype=torch.float64)
    for batch in rows.micro_batches(step, micro_batch, engine.rank, engine.world_size):
        cross_entropy, z_loss = engine.accumulate(batch.to(engine.device), count)
        sums += torch.stack([cross_entropy, z_loss]).to("cpu", torch.float64)
    if engine.world_size > 1:
        torch.distributed.all_reduce(sums)
        number = torch.tensor(signal_number)
        torch.distributed.all_reduce(number, op=torch.distributed.ReduceOp.MAX)
        signal_number = int(number)
    return float(sums[0]) / count, float(sums[1]) / count, signal_number


def _go_back(engine: Engine, settings: LoopSettings, guard: StepGuard) -> Position:
    """Take the weights of the last checkpoint from before they were lost; the steps that lost them are left out from now on.

    Raises:
        StageFailed: there is none, or it was done too often.
    """
    first = guard.lost[0]
    told = f"the loss is no number since step {first + 1:,}, and the weights are lost"
    newest = checkpoint.newest_whole(settings.checkpoints, up_to=max(0, first - 1))
    if newest is None or len(guard.left_out) >= 2 * settings.max_rollbacks:
        tried = f"after going back {settings.max_rollbacks} times" if newest is not None else "and no checkpoint is from before"
        raise StageFailed(f"{told}, {tried}; lower the learning rate (`--set STAGE.lr=...`) or look at the rows of these steps")
    saved = SavedState(newest)
    engine.load_state(saved.read, saved.position.optimizer_step)
    guard.left_out |= {max(0, first - 1), first}
    guard.losses, guard.lost = list(saved.position.losses), []
    events.warn(f"{told}: back to step {saved.position.step:,}, and on without steps {first:,} and {first + 1:,}")
    if engine.rank == 0:
        checkpoint.remove_after(settings.checkpoints, saved.position.step)
    if engine.world_size > 1:
        torch.distributed.barrier()
    return saved.position
