"""The training loop: the same for every stage."""

import math
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from llmctl import events
from llmctl.errors import StageFailed
from llmctl.interrupts import StopRequest, deferred, exit_code_for
from llmctl.recipe.execution_schema import CheckpointTable
from llmctl.train import checkpoint
from llmctl.train.checkpoint import Position, SavedState
from llmctl.train.data import TrainingRows
from llmctl.train.distributed import agreed_maximum
from llmctl.train.engine import Engine
from llmctl.train.guard import StepGuard
from llmctl.train.memory import memory_of
from llmctl.train.meters import SpeedMeter, memory_bytes
from llmctl.train.prefetch import Prefetch, StepData
from llmctl.train.saver import Saver
from llmctl.train.schedule import Schedule


@dataclass(frozen=True, slots=True)
class LoopSettings:
    steps: int
    micro_batch: int
    schedule: Schedule
    peak_learning_rate: float
    seed: int
    checkpoints: Path
    checkpoint: CheckpointTable
    measure_every: int | None = None
    """Steps between two calls of `measure`."""
    skip_sigmas: float = 6.0
    max_rollbacks: int = 2
    early_stopping: int | None = None
    """Measurements without a new lowest loss after which training ends."""

    @property
    def best(self) -> Path:
        """State of the step of the lowest held-out loss, where training may end early."""
        return self.checkpoints.with_name("best")

    def patient(self, position: Position) -> bool:
        """Whether training goes on from there."""
        return self.early_stopping is None or position.since_best < self.early_stopping

    def due(self, step: int) -> bool:
        """Whether there is a measurement after `step` steps."""
        every = self.measure_every
        return every is not None and step > 0 and (step % every == 0 or step == self.steps)


def train(
    engine: Engine,
    rows: TrainingRows,
    settings: LoopSettings,
    position: Position,
    keep: Callable[[Position, str], None] = lambda position, name: None,
    measure: Callable[[int, StopRequest], float | None] = lambda step, stop: None,
    after_step: Callable[[], None] = lambda: None,
) -> Position:
    """Train from `position` to the last step and return where it ended. On all ranks `keep` writes the model down for good,
    under a name, and `measure` gives its held-out loss. `after_step` is called when a step is made.

    Raises:
        Interrupted: a signal asked for a stop; a checkpoint of the step just made is on disk, if there was time for it.
        StageFailed: the loss is no number any more, and going back did not help; or memory does not suffice.
    """
    meter = SpeedMeter(settings.steps)
    saver = Saver(engine, settings.checkpoints, settings.checkpoint, settings.steps)
    guard = StepGuard(settings.skip_sigmas, list(position.losses), set(position.left_out), norms=list(position.norms))
    data = Prefetch(rows, settings.micro_batch, engine.data_rank, engine.data_ranks, engine.device, settings.steps)
    with deferred() as stop:
        if settings.due(position.step) and position.measured < position.step:  # a signal came before it
            position = _measured(engine, settings, position, measure, keep, stop)
        while position.step < settings.steps and settings.patient(position):
            step = position.step
            # The only randomness of a step is dropout: seeded by the step, a resumed stage draws what it would have drawn.
            torch.manual_seed(settings.seed + (step * engine.world_size + engine.rank))
            loss, z_loss, stopping = accumulate(engine, data.step(step), stop.number)
            multiplier = settings.schedule.multiplier(step)
            why_not, gradient_norm = guard.why_not(step, loss), 0.0
            if why_not is None:
                with memory_of("the optimizer's step"):
                    gradient_norm = engine.step(multiplier, guard.norm_limit)
                why_not = guard.too_large(gradient_norm) if engine.norm_in_time else None
            else:
                engine.discard()
            if why_not is not None:
                events.warn(f"step {step + 1:,} is left out: {why_not}")
            guard.record(step, loss, gradient_norm)
            if guard.weights_lost:
                saver.finish()
                position = _go_back(engine, settings, guard, position)
                continue
            tokens = len(rows.steps.rows_of(step)) * rows.steps.seq_len
            made = position.optimizer_step + (why_not is None and math.isfinite(gradient_norm))
            position = replace(
                position, step=step + 1, tokens=position.tokens + tokens, optimizer_step=made,
                losses=tuple(guard.losses), norms=tuple(guard.norms), left_out=tuple(sorted(guard.left_out)),
            )  # fmt: skip
            meter.step(tokens)
            after_step()
            measured = {"loss": loss, "z_loss": z_loss, "gradient_norm": gradient_norm, "left_out": int(why_not is not None)}
            _tell(engine, settings, position, measured | {"learning_rate": multiplier * settings.peak_learning_rate}, meter)
            if not guard.lost:  # weights that may be lost are not written down
                if not stopping and settings.due(position.step):
                    position = _measured(engine, settings, position, measure, keep, stop)
                    meter.pause()
                    stopping = agreed_maximum(engine, stop.number)
                if settings.checkpoint.keep_every is not None and position.step % settings.checkpoint.keep_every == 0:
                    keep(position, checkpoint.step_name(position.step))
                if saver.time_for_one(stop) if stopping else saver.due(position.step):
                    saver.save(position)
            if stopping:
                saver.leave(position.step, exit_code_for(stopping))
        saver.finish()
    if not settings.patient(position):
        events.say(f"{settings.early_stopping} measurements without a lower held-out loss: ended at step {position.step:,}")
    return position


def _tell(
    engine: Engine, settings: LoopSettings, position: Position, measured: dict[str, float | int | str], meter: SpeedMeter
) -> None:
    """The numbers of the step that was just made, for whoever listens."""
    events.metrics(
        {"step": position.step, "steps": settings.steps, "tokens": position.tokens}
        | measured
        | {"memory_bytes": memory_bytes(engine.device)}
        | {"tokens_per_second": meter.tokens_per_second, "eta_seconds": meter.eta_seconds(position.step)}
    )


def accumulate(engine: Engine, data: StepData, signal_number: int) -> tuple[float, float, int]:
    """Gradients of a step. Returns mean loss and z-loss over all ranks, and the largest signal that any rank has received."""
    sums = torch.zeros(2, dtype=torch.float64, device=engine.device)
    with memory_of("the forward and backward pass"):
        for number, batch in enumerate(data.batches, start=1):
            sums += torch.stack(engine.accumulate(batch.to(engine.device), data.supervised, number == len(data.batches)))
        sums = sums.cpu()  # the one place where a step waits for the device
    if engine.world_size > 1:
        torch.distributed.all_reduce(sums)
    cross_entropy, z_loss = (sums / data.supervised).tolist()
    return cross_entropy, z_loss, agreed_maximum(engine, signal_number)


def _measured(
    engine: Engine,
    settings: LoopSettings,
    position: Position,
    measure: Callable[[int, StopRequest], float | None],
    keep: Callable[[Position, str], None],
    stop: StopRequest,
) -> Position:
    """Measure the held-out loss, and keep the model where it is the lowest so far."""
    loss = measure(position.step, stop)
    if loss is None:
        return position
    position = replace(position, measured=position.step)
    if not loss < (math.inf if position.best is None else position.best):  # nor is a loss better that is no number
        return replace(position, since_best=position.since_best + 1)
    position = replace(position, best=loss, since_best=0)
    if settings.early_stopping is not None:
        checkpoint.save(engine, settings.best, position)
    if settings.checkpoint.keep_best:
        keep(position, "best")
    return position


def _go_back(engine: Engine, settings: LoopSettings, guard: StepGuard, position: Position) -> Position:
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
    guard.losses, guard.norms, guard.lost = list(saved.position.losses), list(saved.position.norms), []
    events.warn(f"{told}: back to step {saved.position.step:,}, and on without steps {first:,} and {first + 1:,}")
    left = saved.position
    forgotten = position.best != left.best  # measured after that checkpoint, of weights that are gone back on
    if engine.rank == 0:
        checkpoint.remove_after(settings.checkpoints, left.step)
        if forgotten:
            shutil.rmtree(settings.best, ignore_errors=True)
    if engine.world_size > 1:
        torch.distributed.barrier()
    return replace(left, best=None, since_best=0) if forgotten else left
