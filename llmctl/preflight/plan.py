"""What a stage will do, from the recipe alone: steps, rows, rates, context."""

from dataclasses import dataclass

from llmctl.errors import UserError
from llmctl.recipe.schema import LongContextTable, Recipe, TrainTable


@dataclass(frozen=True, slots=True)
class StagePlan:
    name: str
    kind: str
    steps: int | None
    """None while the budget is in epochs and the rows are not counted yet."""
    batch_rows: int
    seq_len: int
    rows_per_rank: int
    warmup_steps: int
    peak_lr: float
    final_lr: float
    context: str

    @property
    def tokens(self) -> int | None:
        return None if self.steps is None else self.steps * self.batch_rows * self.seq_len

    def line(self, steps: int) -> str:
        """One line for the reader, once the number of steps is known."""
        tokens = steps * self.batch_rows * self.seq_len
        return (
            f"{self.name}: {tokens:,} tokens in {steps:,} steps of {self.batch_rows} x {self.seq_len:,}, "
            f"rate {self.peak_lr:g} to {self.final_lr:g} after {self.warmup_steps} warmup steps{self.context}"
        )


def plan_stage(recipe: Recipe, name: str, world_size: int = 1) -> StagePlan:
    """Plan a training stage on `world_size` ranks.

    Raises:
        UserError: the rows of a step cannot be shared among the ranks.
    """
    table = recipe.stages[name]
    assert isinstance(table, TrainTable)
    rows = table.batch_tokens // table.seq_len
    if rows % world_size or (table.micro_batch and (rows // world_size) % table.micro_batch):
        raise UserError(
            f"[{name}] a step of {rows} rows ({table.batch_tokens:,} tokens) cannot be shared by {world_size} ranks"
            + (f" in micro-batches of {table.micro_batch}" if table.micro_batch else "")
            + "; choose batch_tokens as a multiple of seq_len x ranks x micro_batch"
        )
    context = ""
    if isinstance(table, LongContextTable):
        rope = table.rope
        context = f", context {table.seq_len:,} by {rope.method} x {rope.factor:g} on {rope.layers} layers"
    final = 1.0 if table.schedule == "constant" else table.final_lr_fraction
    return StagePlan(
        name,
        table.kind,
        table.tokens // table.batch_tokens if table.tokens is not None else None,
        rows,
        table.seq_len,
        rows // world_size,
        table.warmup_steps,
        table.lr,
        table.lr * final,
        context,
    )
