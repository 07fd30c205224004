"""Memory that does not suffice, told in the recipe's own words."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from llmctl.errors import StageFailed
from llmctl.preflight.memory import state_bytes
from llmctl.recipe.schema import TrainTable

CPU_FAILURE = "DefaultCPUAllocator"  # in the text of torch's RuntimeError; there is no class of its own for a CPU


class OutOfMemory(StageFailed):
    """What was being done when memory did not suffice; `told` makes it a message with the keys that help."""


@contextmanager
def memory_of(part: str) -> Iterator[None]:
    """Name the part of the work in which memory did not suffice.

    Raises:
        OutOfMemory: it did not.
    """
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not isinstance(error, torch.OutOfMemoryError) and CPU_FAILURE not in str(error):
            raise
        raise OutOfMemory(f"memory does not suffice for {part}: {_asked(error)}") from None


def _asked(error: BaseException) -> str:
    """What the allocator says in its first sentences: how much was asked for, and how much there was."""
    text = str(error).removeprefix("CUDA out of memory. ")
    if CPU_FAILURE in text:
        text = text[text.index(CPU_FAILURE) :].partition("Error code")[0]
    return " ".join(text.split())[:300].strip() or "no more could be had"


def told(error: OutOfMemory, table: TrainTable, micro_batch: int | None, parameters: int, trained: int, ranks: int) -> str:
    """The message for the reader: the part, what the state of `parameters` weights takes of a rank, and what helps."""
    state = state_bytes(table, parameters, trained, ranks)
    held = f"micro_batch = {micro_batch} rows of {table.seq_len:,} tokens" if micro_batch else "one row"
    return (
        f"{error}\nWeights, gradients and optimizer take {state / 2**30:.2f} GiB of each of {ranks} ranks; the rest is "
        f"for {held}. What helps, in this order: {'; '.join(remedies(table, micro_batch, ranks))}"
    )


def remedies(table: TrainTable, micro_batch: int | None, ranks: int) -> list[str]:
    """Keys of the stage that would lower what a rank holds, cheapest first."""
    found = []
    if micro_batch is not None and micro_batch > 1:
        found.append(f"micro_batch = {micro_batch // 2} (the same result, a little slower)")
    if table.activation_checkpointing is not True:
        found.append("activation_checkpointing = true (a third more time)")
    if table.optimizer == "adamw" and table.zero_stage < 3 and ranks > 1:
        found.append(f"zero_stage = {table.zero_stage + 1} (shards more over the ranks)")
    if table.optimizer == "adamw" and not table.offload_optimizer:
        stage = "" if table.zero_stage else "zero_stage = 1 and "
        found.append(f"{stage}offload_optimizer = true (optimizer states in the host's memory)")
    return [*found, "more ranks with a zero_stage" if ranks == 1 else "more ranks", "a shorter seq_len, or a smaller model"]
