"""The context that a long-context stage makes of its parent's."""

from typing import Any

from llmctl.recipe.schema import LongContextTable
from llmctl.stages.training import Stage


def table_of(stage: Stage) -> LongContextTable:
    assert isinstance(stage.table, LongContextTable)
    return stage.table


def scaling(stage: Stage) -> Any:
    return scaling_from(table_of(stage), parent_length(stage))


def scaling_from(table: LongContextTable, parent_length: int) -> Any:
    """The `RopeScaling` of a stage on a parent of that context length."""
    from llmctl.model.rope import RopeScaling

    rope = table.rope
    return RopeScaling(
        rope.method,
        rope.factor,
        rope.original_length or parent_length,
        rope.beta_fast,
        rope.beta_slow,
        rope.layers,
    )


def parent_length(stage: Stage) -> int:
    """Context length of the parent, in tokens."""
    from llmctl.model.load import load_config

    return int(load_config(str(stage.parent_model)).max_position_embeddings)
