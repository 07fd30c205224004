"""What a stage will do, from the recipe alone: steps, rows, rates."""

from dataclasses import dataclass
from typing import Literal

from llmctl.errors import UserError
from llmctl.recipe.schema import TrainTable
from llmctl.recipe.steps import Steps


@dataclass(frozen=True, slots=True)
class StagePlan:
    name: str
    kind: str
    steps: int | None
    """None while the budget is in epochs and the rows are not counted yet."""
    shape: Steps
    warmup_steps: int
    peak_lr: float
    final_lr: float

    def line(self, steps: int) -> str:
        """One line for the reader, once the number of steps is known."""
        tokens, rows = self.shape.rows_before(steps) * self.shape.seq_len, f"{self.shape.rows} x {self.shape.seq_len:,}"
        if self.shape.fewest_rows < self.shape.rows:
            rows = f"{self.shape.fewest_rows}, later {rows}"
        return (
            f"{self.name}: {tokens:,} tokens in {steps:,} steps of {rows}, "
            f"rate {self.peak_lr:g} to {self.final_lr:g} after {self.warmup_steps} warmup steps"
        )


def plan_stage(table: TrainTable, world_size: int = 1) -> StagePlan:
    """Plan a training stage, whose `lr` and `batch_tokens` are known, on `world_size` ranks.

    Raises:
        UserError: the rows of a step cannot be shared among the ranks.
    """
    assert table.lr is not None
    shape = table.steps
    check_shared(table, world_size)
    final = 1.0 if table.schedule == "constant" else table.final_lr_fraction
    return StagePlan(
        table.name,
        table.kind,
        shape.within_tokens(table.tokens) if table.tokens is not None else None,
        shape,
        warmup_steps(table),
        table.lr,
        table.lr * final,
    )


def warmup_steps(table: TrainTable) -> int:
    """Steps of the warmup, in whatever unit the recipe has it."""
    return table.warmup_steps if table.warmup_tokens is None else max(1, table.steps.within_tokens(table.warmup_tokens))


def check_shared(table: TrainTable, world_size: int) -> None:
    """Raises:
    UserError: the rows of a step cannot be shared among the ranks, or each row among as many as it should be.
    """
    check_groups(table, world_size)
    rows, together = table.steps.fewest_rows, table.sequence_parallel
    shares = world_size // together
    if rows % shares or (table.micro_batch and (rows // shares) % table.micro_batch):
        raise UserError(
            f"[{table.name}] a step of {rows} rows ({rows * table.seq_len:,} tokens) cannot be shared by {world_size} ranks"
            + (f", {together} to a row," if together > 1 else "")
            + (f" in micro-batches of {table.micro_batch}" if table.micro_batch else "")
            + "; choose batch_tokens as a multiple of seq_len x ranks"
            + (" / sequence_parallel" if together > 1 else "")
            + " x micro_batch"
        )


def check_groups(table: TrainTable, world_size: int) -> None:
    """Raises:
    UserError: the ranks cannot be put into groups that share each row.
    """
    if world_size % table.sequence_parallel:
        raise UserError(
            f"[{table.name}] sequence_parallel = {table.sequence_parallel}: the number of ranks must be a multiple of it, "
            f"and it is {world_size}; start more with --gpus or --processes"
        )


def exchange_of_rows(table: TrainTable, kv_heads: int) -> Literal["heads", "keys"]:
    """What ranks that share a row exchange in attention: heads where each gets as many of the key and value heads.

    Raises:
        UserError: the table asks for heads, and they cannot be dealt out so.
    """
    fits = kv_heads % table.sequence_parallel == 0
    if table.sequence_exchange == "heads" and not fits:
        raise UserError(
            f'[{table.name}] sequence_parallel = {table.sequence_parallel} with sequence_exchange = "heads": the model has '
            f'{kv_heads} key and value heads, which is no multiple of it; set sequence_exchange = "keys"'
        )
    return "heads" if fits and table.sequence_exchange != "keys" else "keys"
