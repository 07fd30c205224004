"""LoRA adapters, by `peft`: how one is made, trained beside a base, saved, and merged into it."""

import math
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from llmctl.errors import UserError
from llmctl.model.embeddings import embedding_weights
from llmctl.runs.files import staged_folder

Tensors = dict[str, Tensor]


@dataclass(frozen=True, slots=True)
class AdapterSettings:
    """What an adapter is, in plain values."""

    rank: int
    alpha: float
    """The update is scaled by alpha / rank, with `rslora` by alpha / sqrt(rank)."""
    dropout: float = 0.0
    targets: list[str] | Literal["all_linear"] = "all_linear"
    """Names of linear layers, or ends of their dotted names; "all_linear" leaves out the output head."""
    rslora: bool = False
    dora: bool = False
    init: str = "default"
    quantize: str = "none"
    """How the frozen weights are held while the adapter is trained; of no consequence for the adapter itself."""
    added_tokens: int = 0
    """Tokens that the base had no embedding for. With any, its embedding and an untied head are trained in full."""

    @property
    def changes_base(self) -> bool:
        """Whether the adapter begins with a part of the base's weights, which are without it from then on."""
        return self.init.startswith("pissa") or self.init == "olora"


def add_adapter(model: Any, settings: AdapterSettings, seed: int) -> Any:
    """`model` frozen, with trainable low-rank matrices beside its linear layers. It begins as no change of what the model
    computes, up to rounding. The same seed gives the same matrices.

    Raises:
        UserError: no layer is called like one of the targets, or a layer is too narrow for the rank.
    """
    from peft import LoraConfig, get_peft_model

    layers = target_layers(model, settings.targets)
    without_weights = any(parameter.is_meta for parameter in model.parameters())
    if settings.changes_base:
        _check_rank(layers, settings)
    torch.manual_seed(seed)
    init: Any = True if settings.init == "default" or without_weights else settings.init
    alpha: Any = settings.alpha  # declared as a whole number, and used as any
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=alpha,
        lora_dropout=settings.dropout,
        target_modules="all-linear" if settings.targets == "all_linear" else settings.targets,
        use_rslora=settings.rslora,
        use_dora=settings.dora,
        init_lora_weights=init,
        bias="none",
        task_type="CAUSAL_LM",
    )
    adapted = get_peft_model(model, config)
    if settings.added_tokens:
        for weight in embedding_weights(model):
            weight.requires_grad_(True)
    return adapted


def target_layers(model: Any, targets: list[str] | Literal["all_linear"]) -> dict[str, nn.Module]:
    """The linear layers that an adapter with these targets stands beside, by their dotted names.

    Raises:
        UserError: no layer is called like one of them.
    """
    from transformers.pytorch_utils import Conv1D

    head = model.get_output_embeddings()
    linear: dict[str, nn.Module] = {n: m for n, m in model.named_modules() if isinstance(m, nn.Linear | Conv1D) and m is not head}
    if targets == "all_linear":
        return linear
    for target in targets:
        if not any(is_called(name, target) for name in linear):
            known = ", ".join(sorted({name.rpartition(".")[2] for name in linear}))
            raise UserError(f"lora.targets: no linear layer of the blocks is called {target!r}; there are {known}")
    return {name: layer for name, layer in linear.items() if any(is_called(name, target) for target in targets)}


def is_called(name: str, target: str) -> bool:
    """Whether `target` is a dotted name or the end of it."""
    return name == target or name.endswith(f".{target}")


def _check_rank(layers: dict[str, nn.Module], settings: AdapterSettings) -> None:
    for name, layer in layers.items():
        narrow = min(_weight_of(layer).shape)
        if settings.rank > narrow:
            raise UserError(
                f"lora.rank = {settings.rank}: {name} is {narrow} wide, and init = {settings.init!r} takes as many of its "
                "directions as the rank; use a smaller rank, or another init"
            )


def _weight_of(layer: nn.Module) -> Tensor:
    weight = layer.weight
    assert isinstance(weight, Tensor)
    return weight


def trained_tensors(adapted: nn.Module) -> Tensors:
    """What is trained of a model with an adapter, by name; no copies."""
    return {name: p.detach() for name, p in adapted.named_parameters() if p.requires_grad}


@torch.no_grad()
def on_original(base: Any, settings: AdapterSettings, start: Tensors, trained: Tensors) -> Any:
    """An adapter that began with a part of the base's weights, as one of twice the rank that fits `base` as it was:
    B A - B0 A0 = [B, -B0] [A; A0] (as `peft` converts PiSSA and OLoRA, which loses DoRA's magnitudes on the way).

    start: what was trained (`trained_tensors`), as it began
    trained: the same, as it is now
    """
    wider = settings.alpha * (math.sqrt(2) if settings.rslora else 2)  # so that the update is scaled as before
    adapted = add_adapter(base, replace(settings, rank=2 * settings.rank, alpha=wider, init="default"), seed=0)
    for name, parameter in trained_tensors(adapted).items():
        if ".lora_A." in name:
            parameter.copy_(torch.cat([trained[name], start[name]]))
        elif ".lora_B." in name:
            parameter.copy_(torch.cat([trained[name], -start[name]], dim=1))
        else:
            parameter.copy_(trained[name])
    return adapted


def save_adapter(adapted: Any, folder: Path, tokenizer: Any | None = None) -> None:
    """The adapter in PEFT's own format: adapter_config.json and adapter_model.safetensors, with the embeddings if they are
    trained; beside it `tokenizer`, whose chat template and tokens it was trained with."""
    embeddings = any(weight.requires_grad for weight in embedding_weights(adapted))
    with staged_folder(folder) as aside:
        adapted.save_pretrained(aside, save_embedding_layers=embeddings)
        card = aside / "README.md"  # a template full of blanks
        if card.exists():
            card.unlink()
        for extra in [path for path in aside.iterdir() if path.is_dir()]:
            shutil.rmtree(extra)
        if tokenizer is not None:
            tokenizer.save_pretrained(aside)


def merge(adapted: Any) -> Any:
    """The base model with what is active of adapters added into its weights, one after the other."""
    return adapted.merge_and_unload(adapter_names=adapted.active_adapters)
