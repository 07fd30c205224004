"""Make a Hugging Face model ready for packed training."""

import os
import shutil
import sys
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from torch.autograd.graph import save_on_cpu
from torch.utils.checkpoint import checkpoint

from llmctl import events
from llmctl.model.loss import base_model
from llmctl.model.tiled import tile_feed_forward
from llmctl.recipe.schema import TrainTable
from llmctl.train.fused import use_kernels
from llmctl_kernels.names import KernelName


def prepare_for_training(model: nn.Module, table: TrainTable, kernels: Sequence[KernelName] = ()) -> nn.Module:
    """Packed attention, loss head without full logits, the `kernels` named; activation checkpointing, tiles and compilation as
    the table asks."""
    use_kernels(model, table, kernels)
    model.train()
    if table.activation_checkpointing:
        checkpoint_activations(model, int(table.activation_checkpointing), table.offload_activations)
    if table.tiled_mlp:
        tile_feed_forward(layers_of(model), base_model(model).config.get_text_config().hidden_size)
    if compiles(table):
        compile_layers(model)
    return model


def compiles(table: TrainTable) -> bool:
    return table.compile is True or (table.compile == "auto" and torch.cuda.is_available())


def layers_of(model: Any) -> nn.ModuleList:
    """The decoder's blocks."""
    base = base_model(model)
    return getattr(base, base.base_model_prefix).layers


def checkpoint_activations(model: Any, every: int = 1, offload: bool = False) -> None:
    """Of one block in `every`, keep the input alone, on the host if it is to be offloaded, and compute the rest again in the
    backward pass."""
    base_model(model).gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    layers: list[Any] = list(layers_of(model))
    for number, layer in enumerate(layers):
        layer.gradient_checkpointing = number % every == 0
        if offload:
            layer._gradient_checkpointing_func = checkpoint_on_host


def checkpoint_on_host(function: Callable[..., Any], *arguments: Any) -> Any:
    """A checkpoint that keeps its arguments in the host's memory. The `offload` of `transformers` (5.23) does the same, and fails
    where there is no GPU."""
    with save_on_cpu(pin_memory=torch.cuda.is_available()):
        return checkpoint(function, *arguments, use_reentrant=False)


def missing_compiler(device_type: str) -> str | None:
    """What `torch.compile` would call and does not find, if so: on a GPU Triton takes `$CC`, gcc or clang; on a CPU
    Inductor takes `$CXX` or g++ (clang++ on macOS)."""
    if device_type == "cuda":
        language, names = "C", [os.environ["CC"]] if "CC" in os.environ else ["gcc", "clang"]
    else:
        language, names = "C++", [os.environ.get("CXX") or ("clang++" if sys.platform == "darwin" else "g++")]
    if any(shutil.which(name) for name in names):
        return None
    return f"no {language} compiler found ({' or '.join(names)})"


def compile_layers(model: Any) -> None:
    """Compile block by block: blocks are alike, and one compilation serves them all. Eager, said once, where nothing
    can be compiled."""
    if missing := missing_compiler("cuda" if torch.cuda.is_available() else "cpu"):
        events.warn(f"{missing}: nothing is compiled, eager mode serves instead")
        return
    # Layers share their code, and each kind of attention, training, evaluation and length compiles it anew; past the
    # default of 8 it would go on in eager mode without a word.
    torch._dynamo.config.recompile_limit = 64
    for layer in layers_of(model):
        layer.compile()
