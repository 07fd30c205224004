"""LoRA adapters, by `peft`."""

import shutil
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from llmctl.errors import UserError
from llmctl.runs.files import staged_folder


def add_adapter(
    model: Any, rank: int, alpha: float, dropout: float, targets: list[str] | Literal["all_linear"], seed: int
) -> Any:
    """`model` frozen, with trainable low-rank matrices beside its linear layers; "all_linear" leaves out the output head.

    Raises:
        UserError: no layer is called like one of `targets`.
    """
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(seed)  # A starts random, B at zero, so that the adapter starts as no change at all
    config = LoraConfig(
        r=rank,
        lora_alpha=alpha,  # type: ignore[arg-type]
        lora_dropout=dropout,
        target_modules="all-linear" if targets == "all_linear" else targets,
        bias="none",
        task_type="CAUSAL_LM",
    )
    try:
        return get_peft_model(model, config)
    except ValueError as error:
        raise UserError(f"lora.targets = {targets}: {str(error).splitlines()[0]}") from None


def save_adapter(adapted: Any, folder: Path) -> None:
    """The adapter in PEFT's own format: adapter_config.json and adapter_model.safetensors."""
    with staged_folder(folder) as aside:
        adapted.save_pretrained(aside)
        card = aside / "README.md"  # a template full of blanks
        if card.exists():
            card.unlink()
        for extra in [path for path in aside.iterdir() if path.is_dir()]:
            shutil.rmtree(extra)


def merge(adapted: Any) -> Any:
    """The base model with the adapter added into its weights."""
    return adapted.merge_and_unload()


@torch.no_grad()
def largest_logit_difference(one: Any, other: Any, tokens: Tensor) -> float:
    """Largest absolute difference between two models' logits on `tokens` [B, T]."""
    return float((one.eval()(input_ids=tokens).logits - other.eval()(input_ids=tokens).logits).abs().max())
