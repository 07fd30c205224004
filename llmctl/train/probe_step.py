"""How long a step takes on this machine's CPU: its parts are timed on a model of the same shape, and on data of the same kind.

Timed are the forward and backward pass of single micro-batches and the optimizer's update. A model that would take too long is
replaced by two of fewer blocks, one and two periods of its kinds of attention, and what a period adds is carried on to all of
them. Weights are new ones; torch's random numbers are as before. DeepSpeed is not there: alone on a machine it costs nothing.
"""

import copy
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch

from llmctl import events
from llmctl.model.lora import AdapterSettings, add_adapter
from llmctl.model.lora_linear import quicken
from llmctl.preflight.activations import Load
from llmctl.preflight.decoder import Decoder
from llmctl.preflight.fit import Task
from llmctl.preflight.memory import Machine
from llmctl.preflight.resident import GAPS
from llmctl.preflight.speed import CPU_LINK, communicated_bytes, flops_per_token, in_bfloat16, passes_of, update_shares
from llmctl.tokens.batch import Batch, from_documents
from llmctl.train.data import TrainingRows
from llmctl.train.fused import kernels_of
from llmctl.train.job import TrainJob
from llmctl.train.objective import CausalObjective
from llmctl.train.optimizer import build_optimizer
from llmctl.train.prepare import compiles, prepare_for_training

SMALL_PRODUCT = 1024
"""Side of the matrices whose product says how long the probe itself would take."""
WEIGHTS_A_SECOND = 3e7
"""That are made, copied and updated while a model is set up for the probe; assumed, on the low side."""
PASSES = 8
WARM_UP = 128
"""Tokens of a pass that is not timed: the first one sets up what all need."""


@dataclass(frozen=True, slots=True)
class Subject:
    """What is to be timed."""

    job: TrainJob
    rows: TrainingRows
    config: Any
    """Of the model, as `transformers` has it."""
    task: Task
    micro_batch: int

    def batches(self, micro_batch: int) -> Iterator[Batch]:
        """Micro-batches of the last steps, which have grown; the same ones again where they do not suffice."""
        while True:
            for step in range(self.job.steps - 1, -1, -1):
                yield from self.rows.micro_batches(step, micro_batch, 0, 1)


@dataclass(frozen=True, slots=True)
class Trial:
    """A model of the first `blocks` blocks, in micro-batches of `rows`."""

    blocks: int
    rows: int

    def memory_bytes(self, task: Task) -> float:
        """What the process comes to hold while it is timed, on a rank that shares nothing out."""
        table = task.table.model_copy(update={"zero_stage": 0, "offload_optimizer": False})
        machine = Machine(1, 0, False, task.machine.multiplies_bfloat16, "")
        return GAPS * Task(shorter(task.decoder, self.blocks), table, machine).memory(self.rows).needs

    def seconds(self, task: Task, guess: float, micro_batch: int) -> float:
        """About, where a micro-batch of the whole model takes `guess` seconds."""
        decoder, length = shorter(task.decoder, self.blocks), task.table.seq_len
        share = flops_per_token(decoder, length) / flops_per_token(task.decoder, length)
        return guess * share * self.rows / micro_batch + decoder.parameters / WEIGHTS_A_SECOND


@dataclass(frozen=True, slots=True)
class Probed:
    """Seconds on one rank."""

    micro_batch: float
    """A forward and backward pass."""
    update: float
    """Of all weights."""

    def step(self, subject: Subject) -> float:
        """Of a step, with what ranks of one machine tell each other."""
        task, rows = subject.task, subject.micro_batch
        passes = passes_of(task, rows)
        sent = communicated_bytes(task, Load(rows, task.table.seq_len, task.table.sequence_parallel), passes)
        return passes * self.micro_batch + self.update / update_shares(task) + sent / CPU_LINK


def trials_of(task: Task, micro_batch: int, guess: float, budget: float) -> tuple[Trial, ...]:
    """What can be timed within about `budget` seconds, where a micro-batch takes `guess`: the whole model, or two shorter ones.
    Nothing: it would take too long, or not stand for the stage, as compiled blocks and rows that several ranks share."""
    if compiles(task.table) or task.table.sequence_parallel > 1:
        return ()
    blocks, period = len(task.decoder.windows), period_of(task.decoder.windows)
    chosen: list[tuple[Trial, ...]] = [(Trial(blocks, rows),) for rows in dict.fromkeys((micro_batch, 1))]
    if 2 * period < blocks:
        chosen.append((Trial(2 * period, 1), Trial(period, 1)))
    within = (trials for trials in chosen if sum(one.seconds(task, guess, micro_batch) for one in trials) <= budget)
    return next(within, ())


def probe(subject: Subject, trials: tuple[Trial, ...], budget: float) -> Probed:
    """Time the parts of a step by trials that `trials_of` gave."""
    found = [timed(subject, trial, budget / len(trials)) for trial in trials]
    scale = subject.micro_batch / trials[0].rows
    passes = min(len(seconds) for seconds, _ in found)  # the same batches of both
    micro_batches = [statistics.median(seconds[:passes]) for seconds, _ in found]
    updates = [update for _, update in found]
    if len(trials) == 1:
        return Probed(micro_batches[0] * scale, updates[0])
    blocks, period = len(subject.task.decoder.windows), trials[1].blocks
    return Probed(carried_on(micro_batches, blocks / period) * scale, carried_on(updates, blocks / period))


def carried_on(seconds: list[float], periods: float) -> float:
    """Of so many periods, from those of two and of one."""
    two, one = seconds
    return one + (periods - 1) * max(0.0, two - one)


def shorter(decoder: Decoder, blocks: int) -> Decoder:
    """The decoder with its first blocks alone."""
    share = blocks / len(decoder.windows)
    matrices, muon = round(share * decoder.block_matrices), round(share * decoder.muon_matrices)
    return replace(
        decoder,
        windows=decoder.windows[:blocks],
        parameters=decoder.parameters - decoder.block_matrices + matrices,
        trained=decoder.trained - decoder.muon_matrices + muon,
        block_matrices=matrices,
        muon_matrices=muon,
        largest_alike=round(share * decoder.largest_alike),
    )


def period_of(windows: tuple[int | None, ...]) -> int:
    """Blocks after which the kinds of attention come again."""
    blocks = len(windows)
    return next(n for n in range(1, blocks + 1) if all(windows[i] == windows[i % n] for i in range(blocks)))


def timed(subject: Subject, trial: Trial, budget: float) -> tuple[list[float], float]:
    """Seconds of micro-batches, one and more as far as the budget goes, and of an update."""
    with torch.random.fork_rng(devices=[]), events.silence():
        objective = objective_of(subject, trial.blocks)
        batches = subject.batches(trial.rows)
        timed_pass(objective, beginning(next(batches), WARM_UP))
        until, seconds = time.perf_counter() + budget, []
        # Each time another batch: what a product of a new shape costs the first time is part of training's speed, too.
        while not seconds or (len(seconds) < PASSES and time.perf_counter() + seconds[-1] < until):
            seconds.append(timed_pass(objective, next(batches)))
        return seconds, timed_update(subject, objective)


def timed_pass(objective: CausalObjective, batch: Batch) -> float:
    """Seconds of a micro-batch, forward and backward."""
    started = time.perf_counter()
    total, _ = objective(batch)
    (total / batch.tokens.numel()).backward()
    return time.perf_counter() - started


def beginning(batch: Batch, tokens: int) -> Batch:
    """Its first tokens, as one document."""
    ids, labels = (part[0, :tokens].numpy() for part in (batch.tokens, batch.labels))
    return from_documents(ids, labels, [len(ids)])


def timed_update(subject: Subject, objective: CausalObjective) -> float:
    """Seconds of an update with the gradients that are there. The first one makes the optimizer's state."""
    optimizer = build_optimizer(objective.float(), subject.job.settings)  # ranks update fp32 masters at every stage of ZeRO
    seconds = []
    for _ in range(2):
        started = time.perf_counter()
        optimizer.step()
        seconds.append(time.perf_counter() - started)
    return seconds[-1]


def objective_of(subject: Subject, blocks: int) -> CausalObjective:
    """As a rank has it before DeepSpeed, with new weights."""
    from transformers import AutoModelForCausalLM

    table, lora, bfloat16 = subject.job.settings, subject.job.lora, in_bfloat16(subject.task)
    model = AutoModelForCausalLM.from_config(shortened(subject.config, blocks), dtype=torch.float32)
    kernels = kernels_of(table, "cpu")
    if lora is not None:
        settings = AdapterSettings(**lora)
        model = add_adapter(model, settings, subject.job.seed)
        quicken(model, settings, table.zero_stage, bfloat16, False, "lora_linear" in kernels)
    if bfloat16 and table.zero_stage:
        model = model.bfloat16()
    prepared = prepare_for_training(model, table, kernels)
    return CausalObjective(prepared, table.z_loss, bfloat16 and table.zero_stage == 0, "cpu")


def shortened(config: Any, blocks: int) -> Any:
    """The configuration with its first blocks alone."""
    config = copy.deepcopy(config)
    config.num_hidden_layers = blocks
    if getattr(config, "layer_types", None):
        config.layer_types = config.layer_types[:blocks]
    return config
