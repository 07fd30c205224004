"""lora: a low-rank adapter on frozen weights, trained like sft on a skill of its own.

Leaves `adapter/` in PEFT's format (relative to the parent) and `model/`, the merged weights.
Reported beside sft's numbers: the share of weights trained, and the largest difference between the logits of the
adapter on its base and of the merged model.
"""

from typing import Any

from llmctl import events
from llmctl.errors import StageFailed
from llmctl.recipe.chat_schema import LoraTable
from llmctl.stages import sft
from llmctl.stages.measure import tokenizer_of
from llmctl.stages.talks import added_tokens
from llmctl.stages.training import Specialty, Stage

LOGIT_TOLERANCE = 1e-3  # fp32 rounding over the depth of the model; a wrong merge is off by orders of magnitude


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
    import torch
    from peft import PeftModel

    from llmctl.model.load import load_model
    from llmctl.model.lora import largest_logit_difference
    from llmctl.stages.heldout import sample_conversations
    from llmctl.tokens.template import render

    tokenizer = tokenizer_of(stage)
    adapted = PeftModel.from_pretrained(load_model(str(stage.parent_model)), str(stage.folder / "adapter"))
    merged = load_model(str(stage.model))
    trained = sum(p.numel() for n, p in adapted.named_parameters() if "lora_" in n)
    total = sum(p.numel() for p in merged.parameters())
    (conversation, *_) = sample_conversations(stage.corpus, list(stage.table.mix), 1, stage.recipe.seed)
    text = render(tokenizer, conversation.messages)
    tokens = torch.tensor([tokenizer(text, add_special_tokens=False)["input_ids"]])
    difference = largest_logit_difference(adapted, merged, tokens)
    events.say(
        f"{stage.name}: {trained:,} of {total:,} weights trained ({100 * trained / total:.2f} %); "
        f"largest logit difference between adapter and merged model {difference:.1e}"
    )
    if difference > LOGIT_TOLERANCE:
        raise StageFailed(
            f"{stage.name}: the merged model is not the adapter: logits differ by {difference:.2e} "
            f"(at most {LOGIT_TOLERANCE:.0e} expected); use {stage.folder / 'adapter'} instead of the merged weights"
        )
    return {"trained_share": trained / total, "largest_logit_difference": difference}


SPECIALTY = Specialty(sft.data, additions, report)
