"""The fastest setting of a stage that fits a machine: micro-batch, ZeRO stage and what is computed again, and only where none of
these fits, tiles and the host's memory."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import product

from llmctl.preflight.activations import is_packed
from llmctl.preflight.fit import Keys, Task, candidates
from llmctl.preflight.speed import Rates, step_time

LARGEST = 64
"""Rows of a micro-batch that are tried at most: larger ones are no faster."""
WORTH = 0.99
"""A change has to take the step's time below this share of what it was."""


@dataclass(frozen=True, slots=True)
class Setting:
    """Keys of the stage to set; none, where it fits as it is and nothing is faster."""

    keys: Keys
    needs: float
    """Bytes of a rank."""
    seconds: float
    """Of a step, as expected."""
    fits: bool
    before: float | None
    """Seconds of a step as the stage was; None: it did not fit."""
    tried: int = field(default=0)
    """Settings that were looked at."""


def fastest(task: Task, rates: Rates) -> Setting:
    """The fastest setting that fits, with as few changes as that takes; where none does, the one that needs least."""
    own = setting(task, {"micro_batch": task.micro_batch}, rates)
    before = own.seconds if own.fits else None
    tried: list[Setting] = [own]
    for last_resort in last_resorts(task):
        found = [setting(task, keys | last_resort, rates) for keys in settings(task)]
        tried += found
        if fitting := [one for one in found if one.fits]:
            best = min(fitting, key=lambda one: (round(one.seconds, 9), len(one.keys), one.needs))
            if before is not None and best.seconds > WORTH * before:
                best = own
            break
    else:
        best = min(tried, key=lambda one: one.needs)
    return Setting(new_keys(task, best.keys), best.needs, best.seconds, best.fits, before, len(tried))


def setting(task: Task, keys: Keys, rates: Rates) -> Setting:
    changed, rows = task.changed(keys), keys["micro_batch"]
    needs = changed.memory(rows).needs
    return Setting(keys, needs, step_time(changed, rows, rates).seconds, needs <= task.machine.usable, None)


def new_keys(task: Task, keys: Keys) -> Keys:
    """Those that are not so already; the micro-batch where it would not be chosen unasked."""
    rest = {key: value for key, value in keys.items() if key != "micro_batch" and getattr(task.table, key) != value}
    unasked = task.changed(rest).micro_batch
    return rest if keys["micro_batch"] == unasked else {"micro_batch": keys["micro_batch"]} | rest


def settings(task: Task) -> Iterator[Keys]:
    """Micro-batch, ZeRO stage, activation checkpointing."""
    table, machine = task.table, task.machine
    rows = [size for size in candidates(table.steps, machine.ranks, table.sequence_parallel) if size <= LARGEST]
    again = dict.fromkeys((table.activation_checkpointing, False, 2, True))
    for size, stage, every in product(rows, zero_stages(task), again):
        yield {"micro_batch": size, "zero_stage": stage, "activation_checkpointing": every}


def zero_stages(task: Task) -> list[int]:
    """The table's, and where the optimizer allows it those that shard over ranks, or hold bf16 weights on a GPU."""
    table, machine = task.table, task.machine
    stages = {table.zero_stage}
    if table.optimizer == "adamw" and machine.ranks > 1:
        stages |= set(range(3 if is_packed(table) else 4))
    elif table.optimizer == "adamw" and machine.on_gpu and machine.multiplies_bfloat16:
        stages |= {0, 1}
    return sorted(stages - {0} if table.offload_optimizer else stages)


def last_resorts(task: Task) -> Iterator[Keys]:
    yield {}
    yield {"tiled_mlp": True}
    if task.machine.on_gpu:
        yield {"tiled_mlp": True, "activation_checkpointing": True, "offload_activations": True}
        if task.table.optimizer == "adamw":
            stage = max(1, task.table.zero_stage)
            yield {"zero_stage": stage, "offload_optimizer": True}
            yield {"tiled_mlp": True, "activation_checkpointing": True, "offload_activations": True,
                   "zero_stage": stage, "offload_optimizer": True}  # fmt: skip
