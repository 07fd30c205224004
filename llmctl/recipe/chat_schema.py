"""The tables of the stages that train on conversations."""

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from llmctl.recipe.fields import Place, Share
from llmctl.recipe.train_schema import ScheduleKind, TrainTable

TemplateName = Literal["olmo", "chatml", "llama3", "gemma", "mistral", "tulu", "simple"]
"""Chat templates that llmctl writes itself."""


class ChatTable(TrainTable):
    """What sft and lora share."""

    schedule: ScheduleKind = "linear"
    packing: Literal["concat", "best_fit"] = "best_fit"
    document_boundaries: bool = True
    weight_decay: float = Field(default=0.0, ge=0)
    z_loss: float = Field(default=0.0, ge=0)
    loss_on: Literal["assistant", "last_turn"] = "assistant"
    """Train on every assistant turn and its closing token, or on the last one alone."""
    template: Place | None = None
    """Chat template: olmo, chatml, llama3, gemma, mistral, tulu, simple, or a Jinja file. Left out: the tokenizer's own, or
    the one that the parent was tuned with."""
    add_tokens: list[str] = []
    """Special tokens that the tokenizer is given, such as a template's markers; the model gets an embedding for each."""
    too_long: Literal["turns", "truncate", "drop"] = "turns"
    """What becomes of a conversation that is longer than a row. turns: the whole turns that fit, up to the last answer of them.
    truncate: its tokens up to the end of the row; an answer that is cut is not closed. drop: it is left out."""
    most_untrained: Share = 0.05
    """Share of a source's conversations that may be left without a trained token before the stage refuses to begin."""


class SftTable(ChatTable):
    """[sft]: conversations, prompts masked."""


AllLinear = Annotated[Literal["all_linear"], BeforeValidator(lambda value: "all_linear" if value == "all-linear" else value)]


INITS = ("default", "gaussian", "orthogonal", "pissa", "olora")
"""Of those that `peft` has, others need batches of the stage's data before it begins (eva, corda, lora_ga), keep half
of the adapter frozen, which no checkpoint holds (mica), or fit weights that stay quantised (loftq)."""


def known_init(text: str) -> str:
    if text not in INITS and not re.fullmatch(r"pissa_niter_\d+", text):
        raise ValueError(f"expected one of {', '.join(INITS)}, or pissa_niter_ and a number of steps, as in pissa_niter_4")
    return text


AdapterInit = Annotated[str, AfterValidator(known_init)]


class LoraTable(ChatTable):
    """[lora]: a low-rank adapter on frozen weights."""

    rank: int = Field(default=16, ge=1)
    """Rank of the adapter's matrices."""
    alpha: float = Field(default=32.0, gt=0)
    """The update is scaled by alpha / rank."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Dropout before the adapter."""
    targets: list[str] | AllLinear = "all_linear"
    """Names of the linear layers to adapt. all_linear: those of the blocks, not the output head."""
    rslora: bool = False
    """Scale by alpha / sqrt(rank) instead, which keeps large ranks learning (arXiv 2312.03732)."""
    dora: bool = False
    """Learn the magnitude of every column apart from its direction (DoRA, arXiv 2402.09353)."""
    init: AdapterInit = "default"
    """How the matrices begin. default, gaussian: A at random, B at zero. orthogonal: neither is zero, and their product is. pissa
    (arXiv 2404.02948) and olora (arXiv 2406.01775) begin with the base's largest directions; the adapter that is left is one of
    twice the rank on the base as it was. pissa_niter_4: pissa with those directions by 4 steps of a faster, randomised method."""
    quantize: Literal["none", "nf4"] = "none"
    """nf4: the frozen weights in 4 bits (QLoRA, arXiv 2305.14314); needs a GPU and the `qlora` extra."""
