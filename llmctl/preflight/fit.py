"""What fits: the longest row, the micro-batch, and which keys of a stage would make it fit."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from llmctl.preflight.activations import is_packed
from llmctl.preflight.decoder import Decoder
from llmctl.preflight.memory import BUCKET, Machine, Memory, memory_of_step
from llmctl.preflight.plan import exchange_of_rows
from llmctl.recipe.schema import TrainTable
from llmctl.recipe.steps import Steps

STEP = 1024  # longest rows are multiples of it, shorter ones powers of two
LONGEST = 2**25
SHORTEST = 8
CPU_TOKENS = 4096
"""Of a micro-batch: two CPU cores are busy with so many; more only costs memory (measured: 2,048 to 8,192 within 3 %)."""

Keys = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Task:
    """A stage's table on a machine, with the model that it trains."""

    decoder: Decoder
    table: TrainTable
    machine: Machine
    bucket: int = BUCKET

    def memory(self, micro_batch: int) -> Memory:
        return memory_of_step(self.decoder, self.table, micro_batch, self.machine, self.bucket)

    def fits(self, micro_batch: int) -> bool:
        return self.memory(micro_batch).needs <= self.machine.usable

    def changed(self, keys: Keys) -> "Task":
        return Task(self.decoder, self.table.model_copy(update=keys), self.machine, self.bucket)

    @property
    def micro_batch(self) -> int:
        """The recipe's, or what a rank would choose: without a trial, or the largest that fits."""
        if self.table.micro_batch is not None:
            return self.table.micro_batch
        steps, ranks, together = self.table.steps, self.machine.ranks, self.table.sequence_parallel
        untried = untried_micro_batch(steps, ranks, together, self.machine.on_gpu)
        return untried or next((size for size in candidates(steps, ranks, together) if self.fits(size)), 1)


def candidates(steps: Steps, ranks: int, together: int) -> list[int]:
    """Micro-batches that divide a rank's rows of a step (the smallest one, where the batch grows), largest first; `together`
    ranks share each row."""
    rows = steps.fewest_rows // max(1, ranks // together)
    return [size for size in range(rows, 0, -1) if rows % size == 0]


def untried_micro_batch(steps: Steps, ranks: int, together: int, on_gpu: bool) -> int | None:
    """The micro-batch that is taken without a trial: on a CPU one of `CPU_TOKENS` on a rank; on a GPU one row where ranks share
    it, and else None."""
    if not on_gpu:
        length = steps.seq_len // together
        return next((size for size in candidates(steps, ranks, together) if size * length <= CPU_TOKENS), 1)
    # Of a pass that fails on one rank the others would never hear: they would wait for it in attention. And rows are shared
    # because they are long.
    return 1 if together > 1 else None


def longest_row(task: Task) -> int:
    """The most tokens of a row that fit with a micro-batch of 1: a multiple of 1,024, or a power of two below it; 0: none."""

    def fits(length: int) -> bool:
        return task.changed({"seq_len": length}).fits(1)

    lengths = [2**power for power in range(SHORTEST.bit_length() - 1, LONGEST.bit_length())]
    best = max(filter(fits, lengths), default=0)
    if best < STEP or best == LONGEST:
        return best
    low, high = best, 2 * best
    while high - low > STEP:
        middle = (low + high) // 2 // STEP * STEP
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


@dataclass(frozen=True, slots=True)
class Change:
    """Keys of the stage, and what they give."""

    keys: Keys
    cost: str
    needs: float
    """Bytes of a rank."""
    fits: bool
    longest_row: int


def changes(task: Task) -> list[Change]:
    """Each change that lowers what a rank holds, by itself, cheapest first."""
    micro_batch, before = task.micro_batch, task.memory(task.micro_batch).needs
    found = [given(task, keys, cost, micro_batch) for keys, cost in keys_for(task, micro_batch)]
    return [change for change in found if change.needs < before]


def given(task: Task, keys: Keys, cost: str, micro_batch: int) -> Change:
    changed = task.changed(keys)
    rows = keys.get("micro_batch", micro_batch)
    return Change(keys, cost, changed.memory(rows).needs, changed.fits(rows), longest_row(changed))


def keys_for(task: Task, micro_batch: int) -> Iterator[tuple[Keys, str]]:
    return possible(task.table, task.machine, micro_batch, task.decoder.kv_heads)


def possible(table: TrainTable, machine: Machine, micro_batch: int, kv_heads: int | None = None) -> Iterator[tuple[Keys, str]]:
    """Keys that could be set, with what they cost, cheapest first. `kv_heads`: of the model, where that is known."""
    if micro_batch > 1:
        yield {"micro_batch": 1}, "the same result, a little slower"
    yield from recomputing(table, machine)
    if table.optimizer == "adamw":
        if machine.ranks > 1:
            for stage in range(table.zero_stage + 1, 3 if is_packed(table) else 4):  # 3 does not shard packed weights
                yield {"zero_stage": stage}, f"shards {('optimizer states', 'gradients', 'weights')[stage - 1]} over the ranks"
        elif machine.on_gpu and table.zero_stage == 0 and machine.multiplies_bfloat16:
            yield {"zero_stage": 1}, "bf16 weights beside the masters"
    yield from shared_rows(table, machine.ranks, micro_batch, kv_heads)
    if table.optimizer == "adamw" and machine.on_gpu and not table.offload_optimizer:
        yield {"zero_stage": max(1, table.zero_stage), "offload_optimizer": True}, "optimizer in the host's memory"


def recomputing(table: TrainTable, machine: Machine) -> Iterator[tuple[Keys, str]]:
    if not table.tiled_mlp:
        yield {"tiled_mlp": True}, "feed-forward layers computed again"
    if table.activation_checkpointing is not True and table.activation_checkpointing != 1:
        yield {"activation_checkpointing": True}, "a third more time"
    if machine.on_gpu and not table.offload_activations:
        yield {"activation_checkpointing": True, "offload_activations": True}, "block inputs in the host's memory"


def shared_rows(table: TrainTable, ranks: int, micro_batch: int, kv_heads: int | None) -> Iterator[tuple[Keys, str]]:
    """Ranks that share a row: as many as divide the ranks and the row's tokens, and its heads where these must be exchanged."""
    for parts in (2, 4, 8):
        if parts <= table.sequence_parallel or ranks % parts or table.seq_len % parts:
            continue
        if table.steps.fewest_rows % (ranks // parts * micro_batch):
            continue
        keys = {"sequence_parallel": parts}
        if kv_heads is None:
            if table.sequence_exchange != "heads":
                yield keys, f"{parts} ranks share each row"
        elif table.sequence_exchange != "heads" or kv_heads % parts == 0:
            exchange = exchange_of_rows(table.model_copy(update=keys), kv_heads)
            yield keys, f"{parts} ranks exchange each row's {exchange} in attention"


def remedy(task: Task) -> Change:
    """The changes that together make the stage fit, cheapest first and none that is not needed; all of them, where they do not
    suffice."""
    micro_batch = task.micro_batch
    chosen: list[Keys] = []
    for keys, _ in keys_for(task, micro_batch):
        chosen.append(keys)
        if together(task, chosen, micro_batch).fits:
            break
    else:
        return together(task, chosen, micro_batch)
    for keys in list(chosen):
        fewer = [other for other in chosen if other is not keys]
        if together(task, fewer, micro_batch).fits:
            chosen = fewer
    return together(task, chosen, micro_batch)


def together(task: Task, several: list[Keys], micro_batch: int) -> Change:
    """Several changes as one."""
    keys: Keys = {}
    for one in several:
        stage = max(keys.get("zero_stage", 0), one.get("zero_stage", 0))
        keys |= one | ({"zero_stage": stage} if stage else {})
    return given(task, keys, "", micro_batch)
