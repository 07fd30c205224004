"""The number of rows in one forward pass, when the recipe leaves it out."""

import torch

from llmctl import events
from llmctl.preflight.fit import candidates, untried_micro_batch
from llmctl.tokens.batch import collate
from llmctl.train.data import TrainingRows
from llmctl.train.memory import OutOfMemory
from llmctl.train.objective import CausalObjective


def choose_micro_batch(objective: CausalObjective, rows: TrainingRows, world_size: int, device: torch.device) -> int:
    """Largest micro-batch that fits. On a GPU by trying forward and backward passes, agreed between the ranks; where ranks share
    each row, one row.

    Raises:
        OutOfMemory: not even one row fits.
    """
    together = 1 if objective.sequence is None else objective.sequence.size
    if untried := untried_micro_batch(rows.steps, world_size, together, device.type == "cuda"):
        return untried
    for size in candidates(rows.steps, world_size, together):
        fits = torch.tensor(int(_fits(objective, rows, size, device)))
        if world_size > 1:
            torch.distributed.all_reduce(fits, op=torch.distributed.ReduceOp.MIN)
        if fits:
            events.say(f"micro-batch {size} found by trial")
            return size
    raise OutOfMemory("memory does not suffice for a forward and backward pass of one row")


def _fits(objective: CausalObjective, rows: TrainingRows, size: int, device: torch.device) -> bool:
    batch = collate([rows.sources[0].row(i % len(rows.sources[0])) for i in range(size)]).to(device)
    # The optimizer's memory is not there yet: AdamW takes two fp32 tensors a parameter, at stage 0 all of them here.
    reserve = 2 * sum(p.numel() * 4 for p in objective.parameters() if p.requires_grad)
    try:
        held = torch.empty(reserve, dtype=torch.uint8, device=device)
        total, _ = objective(batch)
        total.backward()
        del held
    except torch.cuda.OutOfMemoryError:
        return False
    finally:
        objective.zero_grad(set_to_none=True)
        torch.cuda.empty_cache()
    return True
