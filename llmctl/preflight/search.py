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
    tried = {frozenset(own.keys.items()): own}
    for last_resort in last_resorts(task):
        for rest in settings(task.changed(last_resort)):
            keys = changed_keys(task, last_resort | rest)
            if (known := frozenset(keys.items())) not in tried:
                tried[known] = setting(task, keys, rates)
        if fitting := [one for one in tried.values() if one.fits]:
            best = min(fitting, key=lambda one: (round(one.seconds, 9), len(one.keys), one.needs))
            if before is not None and best.seconds > WORTH * before:
                best = own
            break
    else:
        best = min(tried.values(), key=lambda one: one.needs)
    return Setting(new_keys(task, best.keys), best.needs, best.seconds, best.fits, before, len(tried))


def setting(task: Task, keys: Keys, rates: Rates) -> Setting:
    changed, rows = task.changed(keys), keys["micro_batch"]
    needs = changed.memory(rows).needs
    return Setting(keys, needs, step_time(changed, rows, rates).seconds, needs <= task.machine.usable, None)


def changed_keys(task: Task, keys: Keys) -> Keys:
    """Those that are not so already, and the micro-batch."""
    return {key: value for key, value in keys.items() if key == "micro_batch" or getattr(task.table, key) != value}


def new_keys(task: Task, keys: Keys) -> Keys:
    """Those that are not so already; the micro-batch where it would not be chosen unasked."""
    rest = {key: value for key, value in keys.items() if key != "micro_batch"}
    unasked = task.changed(rest).micro_batch
    return rest if keys["micro_batch"] == unasked else {"micro_batch": keys["micro_batch"]} | rest


def settings(task: Task) -> Iterator[Keys]:
    """Micro-batch, ZeRO stage, activation checkpointing."""
    table, machine = task.table, task.machine
    rows = [size for size in candidates(table.steps, machine.ranks, table.sequence_parallel) if size <= LARGEST]
    again = dict.fromkeys((table.activation_checkpointing, False, 2, True))
    if table.offload_activations:  # of which there are none but those that it keeps
        again.pop(False, None)
    for size, stage, every in product(rows, zero_stages(task), again):
        yield {"micro_batch": size, "zero_stage": stage, "activation_checkpointing": every}


def zero_stages(task: Task) -> list[int]:
    """The table's, and where the optimizer allows it those that shard over ranks, hold bf16 weights on a GPU, or take the
    optimizer to the host."""
    table, machine = task.table, task.machine
    stages = {table.zero_stage}
    if table.optimizer == "adamw" and machine.ranks > 1:
        stages |= set(range(3 if is_packed(table) else 4))
    elif table.optimizer == "adamw" and machine.on_gpu and (machine.multiplies_bfloat16 or table.offload_optimizer):
        stages |= {0, 1}
    return sorted(stages - {0} if table.offload_optimizer else stages)


def last_resorts(task: Task) -> Iterator[Keys]:
    """Keys beside those of `settings`, in the order of what they cost."""
    yield {}
    yield {"tiled_mlp": True}
    if task.machine.on_gpu:
        activations = {"tiled_mlp": True, "offload_activations": True}
        yield activations
        if task.table.optimizer == "adamw":
            yield {"offload_optimizer": True}
            yield activations | {"offload_optimizer": True}
