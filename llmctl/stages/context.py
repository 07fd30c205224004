"""The context that a long-context stage makes of its parent's."""

from typing import Any

from llmctl.errors import UserError
from llmctl.recipe.schema import LongContextTable
from llmctl.stages.training import Stage


def table_of(stage: Stage) -> LongContextTable:
    assert isinstance(stage.table, LongContextTable)
    return stage.table


def parent_length(stage: Stage) -> int:
    """Context length of the parent, in tokens."""
    from llmctl.model.load import load_config

    return int(load_config(str(stage.parent_model)).max_position_embeddings)


def scaling(stage: Stage) -> Any:
    return scaling_from(table_of(stage), parent_length(stage))


def scaling_from(table: LongContextTable, parent_length: int) -> Any:
    """The `RopeScaling` of a stage on a parent of that context length.

    Raises:
        UserError: the factor does not reach the stage's length.
    """
    from llmctl.model.rope import RopeScaling

    rope = table.rope
    scaling = RopeScaling(
        rope.method,
        rope.factor,
        rope.original_length or parent_length,
        rope.beta_fast,
        rope.beta_slow,
        rope.layers,
        rope.theta,
        rope.attention_factor,
        rope.low_frequency_factor,
        rope.high_frequency_factor,
    )
    if scaling.reach < table.seq_len:
        raise UserError(f"[{table.name}] {rope.too_short(scaling.original_length, table.seq_len)}")
    return scaling


def told_context(stage: Stage) -> str:
    """One line for the reader: what context comes out, by what, on which layers.

    Raises:
        UserError: the positions cannot be scaled so.
    """
    from llmctl.model.load import load_config
    from llmctl.model.rope import scale_config

    table, config = table_of(stage), load_config(str(stage.parent_model))
    before, found = int(config.max_position_embeddings), scaling(stage)
    scale_config(config, found, table.seq_len)
    line = f"{stage.name}: context {before:,} -> {config.max_position_embeddings:,} tokens by {table.rope.told}"
    if found.method != "none":
        line += f", from positions trained for {found.original_length:,}"
        line += f", attention factor {found.attention_factor:.4f}" if found.method == "yarn" else ""
    if "sliding_attention" in (getattr(config, "layer_types", None) or ()):
        line += f"; sliding layers see {config.sliding_window:,} tokens"
    return line
