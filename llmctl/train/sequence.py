"""Which ranks share rows, and what they exchange."""

from functools import lru_cache
from typing import Any, Literal

import torch

from llmctl.errors import UserError
from llmctl.model.loss import base_model
from llmctl.model.sequence import SequenceGroup
from llmctl.preflight.plan import check_groups, exchange_of_rows
from llmctl.recipe.schema import TrainTable

ATTENTION = {"full_attention", "sliding_attention"}
MOVING_ROPE = {"dynamic", "longrope"}  # their frequencies depend on the largest position, and each rank has another


def sequence_group(table: TrainTable, model: Any) -> SequenceGroup | None:
    """The ranks that share rows with this one: `sequence_parallel` of them, one after the other. None where none do.
    Collective.

    Raises:
        UserError: the ranks cannot be put into such groups, or the model's rows cannot be shared out as the table says.
    """
    size, ranks = table.sequence_parallel, torch.distributed.get_world_size()
    if size == 1:
        return None
    check_groups(table, ranks)
    exchange = exchange_of(table, base_model(model).config.get_text_config())
    return SequenceGroup(_group_of(size), size, torch.distributed.get_rank() % size, exchange)


def exchange_of(table: TrainTable, config: Any) -> Literal["heads", "keys"]:
    """Raises:
    UserError: the model has too few heads for the exchange, or lets tokens see each other outside of attention.
    """
    what = f"[{table.name}] sequence_parallel = {table.sequence_parallel}"
    if strange := set(getattr(config, "layer_types", None) or ()) - ATTENTION:
        raise UserError(f"{what}: the model has layers of {min(strange)}, whose rows cannot be shared out; leave the key out")
    if moving := rope_types(config) & MOVING_ROPE:
        raise UserError(f"{what}: a RoPE of type {min(moving)} depends on the whole row; leave the key out")
    return exchange_of_rows(table, getattr(config, "num_key_value_heads", None) or config.num_attention_heads)


def rope_types(config: Any) -> set[str]:
    """Of the whole model, or of each kind of its layers."""
    rope = getattr(config, "rope_parameters", None) or {}
    return {str(kind.get("rope_type")) for kind in (rope, *rope.values()) if isinstance(kind, dict)}


@lru_cache
def _group_of(size: int) -> Any:
    """This rank's group of `size` consecutive ranks, made once: every rank makes every group."""
    from llmctl.train.deepspeed_engine import import_deepspeed

    # Its all-to-all goes through a layer of its own, which is otherwise there only once an engine is.
    deepspeed = import_deepspeed()
    deepspeed.init_distributed(dist_backend=deepspeed.accelerator.get_accelerator().communication_backend_name(), verbose=False)
    rank, groups = torch.distributed.get_rank(), range(0, torch.distributed.get_world_size(), size)
    made = [torch.distributed.new_group(list(range(first, first + size))) for first in groups]
    return made[rank // size]
