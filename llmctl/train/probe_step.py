"""How long a step takes on this machine's CPU: its parts are timed on a model of the same shape, and on data of the same kind.

Timed are the forward and backward pass of single micro-batches and the optimizer's update. A model that would take too long is
replaced by two of fewer blocks, one and two periods of its kinds of attention, and what a period adds is carried on to all of
them. Weights are new ones; torch's random numbers are as before. DeepSpeed is not there: alone on a machine it costs nothing.
"""

import copy
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from llmctl import events
from llmctl.model.lora import AdapterSettings, add_adapter
from llmctl.model.lora_linear import quicken
from llmctl.model.precision import multiplies_bfloat16
from llmctl.preflight.decoder import Decoder
from llmctl.preflight.speed import CPU_EFFICIENCY, flops_per_token
from llmctl.tokens.batch import Batch, from_documents
from llmctl.train.data import TrainingRows
from llmctl.train.devices import product_rate
from llmctl.train.fused import kernels_of
from llmctl.train.job import TrainJob
from llmctl.train.objective import CausalObjective
from llmctl.train.optimizer import build_optimizer
from llmctl.train.prepare import compiles, prepare_for_training

SMALL_PRODUCT = 1024
"""Side of the matrices whose product says how long the probe itself would take."""
WEIGHTS_A_SECOND = 3e7
"""That are made, copied and updated while a model is set up for the probe; assumed, on the low side."""
PASSES = 3
WARM_UP = 128
"""Tokens of a pass that is not timed: the first one sets up what all need."""
LINK = 1e9
"""Bytes/s between ranks of one machine through gloo; assumed."""


@dataclass(frozen=True, slots=True)
class Subject:
    """What is to be timed."""

    job: TrainJob
    rows: TrainingRows
    config: Any
    """Of the model, as `transformers` has it."""
    decoder: Decoder
    micro_batch: int
    ranks: int

    @property
    def passes(self) -> int:
        """Micro-batches of a rank in a step."""
        return max(1, self.rows.steps.rows // (self.micro_batch * self.ranks))

    @property
    def micro_tokens(self) -> int:
        return self.micro_batch * self.rows.steps.seq_len

    @property
    def bfloat16(self) -> bool:
        precision = self.job.settings.precision
        return precision == "bf16" or (precision == "auto" and multiplies_bfloat16("cpu"))

    def batches(self, micro_batch: int) -> Iterator[Batch]:
        """Micro-batches of the last steps, which have grown; the same ones again where they do not suffice."""
        while True:
            for step in range(self.job.steps - 1, -1, -1):
                yield from self.rows.micro_batches(step, micro_batch, 0, 1)


@dataclass(frozen=True, slots=True)
class Probed:
    """Seconds on one rank."""

    micro_batch: float
    """A forward and backward pass."""
    update: float

    def step(self, subject: Subject) -> float:
        """Of a step, with what ranks of one machine tell each other."""
        sent = 0 if subject.ranks == 1 else 8 * subject.decoder.trained * (subject.ranks - 1) / subject.ranks
        return subject.passes * self.micro_batch + self.update + sent / LINK


def guessed_micro_batch(subject: Subject) -> float:
    """Seconds of a micro-batch's passes by the rate of a small product, for a decision whether to time them."""
    rate = product_rate(torch.bfloat16 if subject.bfloat16 else torch.float32, SMALL_PRODUCT)
    return subject.micro_tokens * flops_per_token(subject.decoder, subject.rows.steps.seq_len) / (CPU_EFFICIENCY * rate)


def probe(subject: Subject, budget: float) -> Probed | None:
    """Time the parts of a step within about `budget` seconds. None: too long for that, or nothing that a probe stands for:
    compiled blocks, and rows that several ranks share."""
    table, decoder = subject.job.settings, subject.decoder
    if compiles(table) or table.sequence_parallel > 1:
        return None
    guess, blocks = guessed_micro_batch(subject), len(decoder.windows)
    for rows in dict.fromkeys((subject.micro_batch, 1)):
        if guess * rows / subject.micro_batch + decoder.parameters / WEIGHTS_A_SECOND <= budget:
            found = timed(subject, blocks, rows, budget)
            return Probed(found.micro_batch * subject.micro_batch / rows, found.update)
    period = period_of(decoder.windows)
    share = 3 * period / blocks  # of the model's blocks, in both models together
    weights = 2 * (decoder.parameters - decoder.block_matrices) + share * decoder.block_matrices
    if 2 * period >= blocks or guess * share / subject.micro_batch + weights / WEIGHTS_A_SECOND > budget:
        return None
    one, two = (timed(subject, count * period, 1, budget / 2) for count in (1, 2))
    periods = blocks / period - 1
    return Probed(
        (one.micro_batch + periods * (two.micro_batch - one.micro_batch)) * subject.micro_batch,
        one.update + periods * (two.update - one.update),
    )


def period_of(windows: tuple[int | None, ...]) -> int:
    """Blocks after which the kinds of attention come again."""
    blocks = len(windows)
    return next(n for n in range(1, blocks + 1) if all(windows[i] == windows[i % n] for i in range(blocks)))


def timed(subject: Subject, blocks: int, micro_batch: int, budget: float) -> Probed:
    """Time a model of so many blocks: one micro-batch, and more as far as the budget goes."""
    with torch.random.fork_rng(devices=[]), events.silence():
        objective = objective_of(subject, blocks)
        batches = subject.batches(micro_batch)
        timed_pass(objective, beginning(next(batches), WARM_UP))
        until, seconds = time.perf_counter() + budget, []
        # Each time another batch: what a product of a new shape costs the first time is part of training's speed, too.
        while not seconds or (len(seconds) < PASSES and time.perf_counter() + seconds[-1] < until):
            seconds.append(timed_pass(objective, next(batches)))
        return Probed(statistics.median(seconds), timed_update(subject, objective))


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

    table, lora = subject.job.settings, subject.job.lora
    model = AutoModelForCausalLM.from_config(shortened(subject.config, blocks), dtype=torch.float32)
    kernels = kernels_of(table, "cpu")
    if lora is not None:
        settings = AdapterSettings(**lora)
        model = add_adapter(model, settings, subject.job.seed)
        quicken(model, settings, table.zero_stage, subject.bfloat16, False, "lora_linear" in kernels)
    if subject.bfloat16 and table.zero_stage:
        model = model.bfloat16()
    prepared = prepare_for_training(model, table, kernels)
    return CausalObjective(prepared, table.z_loss, subject.bfloat16 and table.zero_stage == 0, "cpu")


def shortened(config: Any, blocks: int) -> Any:
    """The configuration with its first blocks alone."""
    config = copy.deepcopy(config)
    config.num_hidden_layers = blocks
    if getattr(config, "layer_types", None):
        config.layer_types = config.layer_types[:blocks]
    return config
