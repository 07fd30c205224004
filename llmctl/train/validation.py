"""What is measured while a stage runs: held-out loss, few-shot suites, continuations of prompts."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from llmctl import events
from llmctl.evals.compare import Score, aggregated, score_of
from llmctl.evals.fewshot import evaluate
from llmctl.evals.result import Asking
from llmctl.interrupts import StopRequest
from llmctl.model.generate import generate
from llmctl.suites.task import Aggregate, Task, read_tasks
from llmctl.tokens.batch import collate
from llmctl.tokens.order import deal
from llmctl.tokens.rows import IGNORED, ConcatRows, PackedRows, Row
from llmctl.tokens.template import end_of_turn_ids
from llmctl.tokens.tokenizer import load_tokenizer
from llmctl.train.data import rows_of
from llmctl.train.distributed import agreed_maximum
from llmctl.train.engine import Engine
from llmctl.train.job import TrainJob
from llmctl.train.memory import memory_of
from llmctl.train.objective import evaluating


@dataclass
class Validation:
    """Measures the weights of an engine as they are. Every rank takes part, and all have the same numbers."""

    engine: Engine
    job: TrainJob
    micro_batch: int

    def __call__(self, step: int, stop: StopRequest) -> float | None:
        """The held-out loss, in nats a supervised token, weighted as the mix; None where nothing is held out, or a signal
        asked for a stop before the end."""
        with memory_of("measuring while training"):
            losses = self._losses(stop)
            scores = self._scores(stop)
            self._show_samples(stop)
        if losses is None or scores is None:
            return None
        shares = {part.source: part.share for part in self.job.heldout}
        loss = sum(losses[name] * shares[name] for name in losses) / sum(shares[name] for name in losses) if losses else None
        values: dict[str, float | int | str] = {"step": step}
        if loss is not None:
            values["heldout_loss"] = loss
        values |= {f"heldout_loss/{name}": value for name, value in losses.items()}
        values |= {f"few_shot/{name}": score.value for name, score in scores.items()}
        events.metrics(values)
        told = [f"held-out loss {loss:.3f}"] if loss is not None else []
        told += [f"{name} {value:.3f}" for name, value in losses.items()] if len(losses) > 1 else []
        told += [f"{name} {score.value:.3f} bits" if not score.higher_is_better else f"{name} {100 * score.value:.1f} %"
                 for name, score in scores.items()]  # fmt: skip
        events.say(f"after step {step:,}: {', '.join(told) or 'nothing is held out'}")
        return loss

    @cached_property
    def _rows(self) -> dict[str, tuple[ConcatRows | PackedRows, list[int]]]:
        """Rows of each source, and which of them are measured: spread evenly over what there is."""
        table = self.job.settings
        dealt = deal(table.eval.rows, [part.share for part in self.job.heldout])
        found = {}
        for part, wanted in zip(self.job.heldout, dealt, strict=True):
            rows = rows_of(part, table)
            count = min(len(rows), max(1, wanted))
            if count:
                found[part.source] = (rows, [number * len(rows) // count for number in range(count)])
        return found

    def _losses(self, stop: StopRequest) -> dict[str, float] | None:
        """Loss of each source. All ranks make the same number of passes over as many tokens, as ZeRO 3 wants; a row too many
        counts nothing."""
        losses, rank, ranks = {}, self.engine.data_rank, self.engine.data_ranks
        for source, (rows, chosen) in self._rows.items():
            sums = torch.zeros((), dtype=torch.float64, device=self.engine.device)
            together = min(self.micro_batch, -(-len(chosen) // ranks))
            for first in range(0, len(chosen), together * ranks):
                if agreed_maximum(self.engine, stop.number):
                    return None
                mine = chosen[first + rank * together :][:together]
                filling = [_uncounted(rows.row(chosen[0]))] * (together - len(mine))
                batch = collate([*(rows.row(number) for number in mine), *filling])
                sums += self.engine.measure(batch.to(self.engine.device))
            total = sums.cpu()
            if self.engine.world_size > 1:
                torch.distributed.all_reduce(total)
            losses[source] = float(total) / max(1, sum(int(rows.supervised(number)) for number in chosen))
        return losses

    @cached_property
    def _tasks(self) -> tuple[list[Task], list[Aggregate]]:
        return read_tasks(Path(self.job.tasks)) if self.job.tasks is not None else ([], [])

    def _scores(self, stop: StopRequest) -> dict[str, Score] | None:
        """Of each task, and what is made of several; every rank asks every question."""
        scores: dict[str, Score] = {}
        tasks, aggregates = self._tasks
        for task in tasks:
            if agreed_maximum(self.engine, stop.number):
                return None
            asking = Asking(self.job.seed, self.job.settings.eval.shots if task.pool else None)
            with self._model() as model:
                scores[task.name] = score_of(evaluate(model, self._tokenizer, task, asking))
        for aggregate in aggregates:
            scores[aggregate.name] = aggregated(aggregate, scores)
        return scores

    def _show_samples(self, stop: StopRequest) -> None:
        table = self.job.settings.eval
        if not table.samples or agreed_maximum(self.engine, stop.number):
            return
        tokenizer = self._tokenizer
        stops = end_of_turn_ids(tokenizer) if tokenizer.chat_template else [tokenizer.eos_token_id]
        with self._model() as model:
            written = generate(model, tokenizer, table.samples, table.sample_tokens, stops)
        rows = tuple((repr(prompt), repr(answer.text)) for prompt, answer in zip(table.samples, written, strict=True))
        events.emit(events.Table("continued by the model as it is", ("prompt", "continuation"), rows))

    @cached_property
    def _tokenizer(self) -> Any:
        return load_tokenizer(self.job.tokenizer)

    @contextmanager
    def _model(self) -> Iterator[Any]:
        """The model without the loss around it, in the precision that it is trained in."""
        objective = self.engine.objective
        with evaluating(objective), torch.autocast(objective.device_type, torch.bfloat16, enabled=objective.autocast):
            yield objective.model


def _uncounted(row: Row) -> Row:
    return replace(row, labels=np.full_like(row.labels, IGNORED))
