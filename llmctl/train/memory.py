"""Memory that does not suffice, told in the recipe's own words."""

import json
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from llmctl.errors import StageFailed
from llmctl.model.precision import multiplies_bfloat16
from llmctl.preflight.fit import possible
from llmctl.preflight.memory import Machine, state_bytes
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
    device = "cuda" if torch.cuda.is_available() else "cpu"
    machine = Machine(ranks, 0, device == "cuda", multiplies_bfloat16(device), device)
    held = f"micro_batch = {micro_batch} rows of {table.seq_len:,} tokens" if micro_batch else "one row"
    return (
        f"{error}\nWeights, gradients and optimizer take {state / 2**30:.2f} GiB of each of {ranks} ranks; the rest is "
        f"for {held}. What helps, in this order: {'; '.join(remedies(table, micro_batch, machine))}"
    )


def remedies(table: TrainTable, micro_batch: int | None, machine: Machine) -> list[str]:
    """Keys of the stage that would lower what a rank holds, cheapest first: those that `llmctl plan` knows, and of several values
    of a key the mildest."""
    found: dict[tuple[str, ...], str] = {}
    for keys, cost in possible(table, machine, micro_batch or 1):
        new = {key: value for key, value in keys.items() if getattr(table, key) != value}
        told = " and ".join(f"{key} = {json.dumps(value)}" for key, value in new.items())
        found.setdefault(tuple(new), f"{told} ({cost})")
    more = "more ranks with a zero_stage" if machine.ranks == 1 else "more ranks"
    return [*found.values(), more, "a shorter seq_len, or a smaller model"]
