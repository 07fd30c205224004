"""lora: a low-rank adapter on frozen weights, trained like sft on a skill of its own.

Leaves `adapter/` in PEFT's format (relative to the parent) and `model/`, the merged weights.
Reported beside sft's numbers: the share of weights trained, and the largest difference between the logits of the
adapter on its base and of the merged model.
"""

import math
from pathlib import Path
from typing import Any

from llmctl import events
from llmctl.errors import StageFailed
from llmctl.recipe.chat_schema import LoraTable
from llmctl.stages import sft
from llmctl.stages.measure import tokenizer_of
from llmctl.stages.talks import added_tokens
from llmctl.stages.training import Specialty, Stage


def additions(stage: Stage) -> dict[str, Any]:
    assert isinstance(stage.table, LoraTable)
    return sft.additions(stage) | {"lora": adapter_of(stage.table, added_tokens(stage))}


def adapter_of(table: LoraTable, added_tokens: int = 0) -> dict[str, Any]:
    """The fields of an `AdapterSettings`. `added_tokens`: that the base has no embedding for."""
    keys = ("rank", "alpha", "dropout", "targets", "rslora", "dora", "init", "quantize")
    return {key: getattr(table, key) for key in keys} | {"added_tokens": added_tokens}


def report(stage: Stage) -> dict[str, float]:
    return sft.report(stage) | _compare_merged(stage)


def _compare_merged(stage: Stage) -> dict[str, float]:
    """Load adapter and merged model as a user would, and hold them against each other.

    Raises:
        StageFailed: their logits differ by more than rounding.
    """
    from llmctl.model.adapter_files import read_adapter
    from llmctl.model.average import Weights
    from llmctl.model.merge import compare, prompts_for

    assert isinstance(stage.table, LoraTable)
    tokenizer, adapter = tokenizer_of(stage), stage.folder / "adapter"
    prompts = prompts_for(tokenizer) + [beginning(stage.folder / "data" / "train" / source) for source in stage.table.mix]
    found = compare(str(stage.parent_model), adapter, stage.model, prompts)
    weights = Weights(stage.model)
    trained = trained_weights(read_adapter(adapter), stage.table.rank, weights.names)
    total = sum(math.prod(weights.shape(name) or []) for name in weights.names)
    events.say(f"{stage.name}: {trained:,} of {total:,} weights trained ({100 * trained / total:.2f} %); {found.told()}")
    if not found.alike:
        raise StageFailed(
            f"{stage.name}: the merged model is not the adapter: logits differ by {found.off:.2e} "
            f"(at most {found.allowed:.0e} expected); use {adapter} instead of the merged weights"
        )
    return {"trained_share": trained / total, "largest_logit_difference": found.off}


def beginning(shards: Path) -> Any:
    """Token ids [1, T] of the first conversation, at most 512, as they were trained on."""
    import torch

    from llmctl.tokens.shards import TokenShards

    opened = TokenShards(shards)
    return torch.from_numpy(opened.stream[0 : min(int(opened.offsets[1]), 512)].astype("int64"))[None]


def trained_weights(adapter: Any, rank: int, whole: list[str]) -> int:
    """What was trained of an adapter (`AdapterFile`): its matrices at the rank that they had, and what it holds of the `whole`
    tensors of the model, each once."""
    share = rank / adapter.settings["r"]
    matrices = sum(
        math.prod(shape) for name, shape in adapter.shapes.items() if name.endswith((".lora_A.weight", ".lora_B.weight"))
    )
    other = sum(math.prod(shape) for name, shape in adapter.shapes.items() if "lora_magnitude" in name or name in whole)
    return round(share * matrices) + other


SPECIALTY = Specialty(sft.data, additions, report)
