"""What a stage's training is expected to take, told when it begins, against what it took, told when it ends.

Both are written to `forecast.json` in the stage's folder, and go into its manifest. On a CPU the time is that of a probe, where
one costs little; on a GPU it is that of the rates in `preflight/speed.py`. Nothing here changes what is learnt.
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any

import torch

from llmctl import events
from llmctl.errors import UserError
from llmctl.model.loss import base_model
from llmctl.model.precision import multiplies_bfloat16
from llmctl.preflight.activations import numbers_of
from llmctl.preflight.decoder import decoder_of
from llmctl.preflight.fit import Task
from llmctl.preflight.gpus import gpu_like
from llmctl.preflight.memory import Machine, bucket_of
from llmctl.preflight.resident import resident_bytes
from llmctl.preflight.speed import expected_rates, in_bfloat16, passes_of, rates_of_cpu, step_time
from llmctl.runs.files import write_json
from llmctl.train.data import TrainingRows
from llmctl.train.devices import forget_peak_memory, give_back_memory, peak_memory, product_rate
from llmctl.train.distributed import agreed_maximum, wait_for_all
from llmctl.train.engine import Engine
from llmctl.train.job import TrainJob
from llmctl.train.meters import memory_bytes
from llmctl.train.probe_step import SMALL_PRODUCT, Subject, Trial, probe, trials_of

FORECAST_FILE = "forecast.json"
LOOKED_AT = 2000
"""Rows whose documents are looked at."""
SHORTEST = 10.0
"""Seconds of training below which nothing is timed ahead."""
SHARE, LEAST, MOST = 0.02, 2.0, 5.0
"""Of the training's time that timing ahead may take, and seconds of it at least and at most."""


_at_first: list[float] = []
"""Bytes that this process held before its first stage trained."""


class Forecast:
    """Of one job on this rank. Made when the model is there and nothing else is."""

    def __init__(self, job: TrainJob, model: Any) -> None:
        self.job, self.config = job, base_model(model).config
        self.decoder = None
        with suppress(UserError, AttributeError):  # of another kind, whose blocks are not found: nothing is told
            self.decoder = decoder_of(model)
        give_back_memory()
        self._resident = memory_bytes(torch.device("cpu")) - sum(p.nbytes for p in model.parameters() if p.device.type == "cpu")
        if not _at_first:
            _at_first.append(self._resident)
        self._predicted: dict[str, float] = {}
        self._tokens, self._speed = 0, 0.0

    @contextmanager
    def against(self, engine: Engine, rows: TrainingRows, micro_batch: int, made: int) -> Iterator[None]:
        """Predict, let the block train from step `made` on, and tell both where it comes to its end. Collective."""
        if made == self.job.steps:
            yield
            return
        self._predicted = self._predict(engine, rows, micro_batch)
        forget_peak_memory(engine.device)
        with events.listening(self._note):
            yield
        measured = {"memory_bytes": float(peak_memory(engine.device))}
        if self._speed:
            measured["tokens_per_second"] = self._speed
            if made == 0:  # of a stage that goes on after a stop this process has made a part alone
                measured["seconds"] = self._tokens / self._speed
        if engine.rank == 0:
            tell(self.job.stage, self._predicted, measured)
            write_json(self.job.path / FORECAST_FILE, {"predicted": self._predicted, "measured": measured})

    def _note(self, event: events.Event) -> None:
        if isinstance(event, events.Metrics) and "tokens_per_second" in event.values:
            self._tokens, self._speed = int(event.values["tokens"]), float(event.values["tokens_per_second"])

    def _predict(self, engine: Engine, rows: TrainingRows, micro_batch: int) -> dict[str, float]:
        if self.decoder is None:
            return {}
        on_gpu = engine.device.type == "cuda"
        gpu = gpu_like(torch.cuda.get_device_name()) if on_gpu else None
        machine = Machine(engine.world_size, 0, on_gpu, multiplies_bfloat16(engine.device.type), "", gpu)
        task = Task(self.decoder, self.job.settings, machine, bucket_of(self.job.deepspeed))
        memory = task.memory(micro_batch)
        found = {"memory_bytes": memory.step}
        if not on_gpu:
            size = numbers_of(task.table, machine.multiplies_bfloat16).product
            found["memory_bytes"] = self._resident + resident_bytes(
                memory, self.decoder, size, lengths_of(rows, self.job), self._resident - _at_first[0]
            )
        taken = found["memory_bytes"]
        step = step_on_gpu(task, micro_batch) if on_gpu else self._step_on_cpu(engine, rows, task, micro_batch, taken)
        if step is not None:
            found["tokens_per_second"] = rows.steps.rows * rows.steps.seq_len / step
            found["seconds"] = self.job.rows * rows.steps.seq_len / found["tokens_per_second"]
        return found

    def _step_on_cpu(self, engine: Engine, rows: TrainingRows, task: Task, micro_batch: int, taken: float) -> float | None:
        """Seconds. `taken`: bytes that the process will have in training. Collective up to the probe itself, which may fail on
        one rank alone: what comes before is decided alike on all, so that all are at work in it together."""
        rate = agreed_rate(engine, in_bfloat16(task))
        if not rate:
            return None
        rough = step_time(task, micro_batch, rates_of_cpu(rate, 1))
        whole = rough.seconds * self.job.rows / rows.steps.rows
        if whole < SHORTEST:
            return None
        budget = min(MOST, max(LEAST, SHARE * whole))
        trials = trials_of(task, micro_batch, rough.products / passes_of(task, micro_batch), budget)
        if not trials or not room_for(engine, task, trials, taken):
            return rough.seconds
        subject = Subject(self.job, rows, self.config, task, micro_batch)
        try:
            return probe(subject, trials, budget).step(subject)
        except Exception as error:  # of whatever kind: training needs none of this
            why = (str(error).splitlines() or [type(error).__name__])[0]
            events.warn(f"{self.job.stage}: a step could not be timed ahead, and no time is predicted: {why}")
            return None


def step_on_gpu(task: Task, micro_batch: int) -> float | None:
    rates = expected_rates(task)
    return None if rates is None else step_time(task, micro_batch, rates).seconds


def agreed_rate(engine: Engine, bfloat16: bool) -> int:
    """FLOP/s of a small product on the cores of a rank, the fastest one's; 0: it cannot be made. Collective."""
    wait_for_all()  # they measure at the same time
    rate = 0
    with suppress(RuntimeError):  # no memory for it, say; the others wait for this rank
        rate = int(product_rate(torch.bfloat16 if bfloat16 else torch.float32, SMALL_PRODUCT))
    return agreed_maximum(engine, rate)


def room_for(engine: Engine, task: Task, trials: tuple[Trial, ...], taken: float) -> bool:
    """Whether every rank has memory for the trials, were all that training will take there already. Collective."""
    import psutil

    needed = max(trial.memory_bytes(task) for trial in trials) + max(0.0, taken - memory_bytes(engine.device))
    return not agreed_maximum(engine, int(needed > psutil.virtual_memory().available / engine.world_size))


def lengths_of(rows: TrainingRows, job: TrainJob) -> Iterator[int]:
    """Tokens of the documents in the stage's rows, in the first ones where there are many."""
    for position in range(min(job.rows, LOOKED_AT)):
        source, row = rows.order.at(position)
        yield from rows.sources[source].row(row).lengths


def tell(stage: str, predicted: dict[str, float], measured: dict[str, float]) -> None:
    """One line, where something was predicted."""
    if not predicted:
        return
    before = ", ".join(form(predicted[key]) for key, form in FORMS.items() if key in predicted)
    after = ", ".join(
        form(measured[key]) + (f" ({measured[key] / predicted[key] - 1:+.0%})" if key in predicted else "")
        for key, form in FORMS.items()
        if key in measured
    )
    events.say(f"{stage}: predicted {before}; measured {after}")


FORMS: dict[str, Any] = {
    "tokens_per_second": lambda value: f"{value:,.0f} tokens/s",
    "seconds": lambda value: f"{value:.1f} s" if value < 60 else str(timedelta(seconds=round(value))),
    "memory_bytes": lambda value: f"{value / 2**30:.2f} GiB",
}
