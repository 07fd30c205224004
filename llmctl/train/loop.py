"""The training loop: the same for every stage."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from llmctl import events
from llmctl.errors import Interrupted, StageFailed
from llmctl.interrupts import deferred, exit_code_for
from llmctl.recipe.schema import CheckpointTable
from llmctl.train import checkpoint
from llmctl.train.checkpoint import Position
from llmctl.train.data import TrainingRows
from llmctl.train.engine import Engine
from llmctl.train.meters import SpeedMeter, memory_bytes
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


def train(
    engine: Engine,
    rows: TrainingRows,
    settings: LoopSettings,
    position: Position,
    on_step: Callable[[int], None] = lambda step: None,
) -> Position:
    """Train from `position` to the last step and return where it ended.

    Raises:
        Interrupted: a signal asked for a stop; a checkpoint of the step just made is on disk.
        StageFailed: the loss is not finite.
    """
    meter = SpeedMeter(settings.steps)
    last_save = time.monotonic()
    batch_tokens = rows.batch_rows * settings.seq_len
    with deferred() as stop:
        for step in range(position.step, settings.steps):
            # The only randomness of a step is dropout: seeded by the step, a resumed stage draws what it would have drawn.
            torch.manual_seed(settings.seed + (step * engine.world_size + engine.rank))
            global_count = rows.supervised(step)
            sums = torch.zeros(2, dtype=torch.float64)
            for batch in rows.micro_batches(step, settings.micro_batch, engine.rank, engine.world_size):
                cross_entropy, z_loss = engine.accumulate(batch.to(engine.device), global_count)
                sums += torch.stack([cross_entropy, z_loss]).to("cpu", torch.float64)
            multiplier = settings.schedule.multiplier(step)
            gradient_norm = engine.step(multiplier)
            position = Position(step + 1, position.tokens + batch_tokens, position.optimizer_step + 1)

            loss, z_loss_mean, stopping = _over_ranks(engine, sums, stop.number, global_count)
            if loss != loss or loss in (float("inf"), float("-inf")):
                raise StageFailed(
                    f"the loss of step {step + 1} is {loss}. The last checkpoint is from before it; "
                    "lower the learning rate (`--set STAGE.lr=...`) or look at the rows of this step."
                )
            meter.step(batch_tokens)
            events.metrics(
                {
                    "step": position.step,
                    "steps": settings.steps,
                    "tokens": position.tokens,
                    "loss": loss,
                    "z_loss": z_loss_mean,
                    "gradient_norm": gradient_norm,
                    "learning_rate": multiplier * settings.peak_learning_rate,
                    "tokens_per_second": meter.tokens_per_second,
                    "eta_seconds": meter.eta_seconds(position.step),
                    "memory_bytes": memory_bytes(engine.device),
                }
            )
            on_step(position.step)

            every = settings.checkpoint.every_steps
            by_step = every is not None and position.step % every == 0
            by_time = _agreed(engine, time.monotonic() - last_save >= settings.checkpoint.every_minutes * 60)
            if stopping or ((by_step or by_time) and position.step < settings.steps):
                checkpoint.save(engine, settings.checkpoints / f"step-{position.step:08d}", position)
                if engine.rank == 0:
                    checkpoint.prune(settings.checkpoints, settings.checkpoint.keep)
                last_save = time.monotonic()
            if stopping:
                raise Interrupted(
                    f"stopped at step {position.step:,} of {settings.steps:,} with a checkpoint; "
                    "the same command goes on from there",
                    exit_code_for(stopping),
                )
    return position


def _over_ranks(engine: Engine, sums: torch.Tensor, signal_number: int, count: int) -> tuple[float, float, int]:
    """Mean loss and z-loss over all ranks, and the largest signal number that any rank has received."""
    if engine.world_size > 1:
        torch.distributed.all_reduce(sums)
        number = torch.tensor(signal_number)
        torch.distributed.all_reduce(number, op=torch.distributed.ReduceOp.MAX)
        signal_number = int(number)
    return float(sums[0]) / count, float(sums[1]) / count, signal_number


def _agreed(engine: Engine, mine: bool) -> bool:
    """Rank 0's answer, on every rank: clocks differ, and a save is collective."""
    if engine.world_size == 1:
        return mine
    answer = torch.tensor(int(mine))
    torch.distributed.broadcast(answer, src=0)
    return bool(answer)
