"""Adapters in PEFT's format: whether one fits a base, told from headers alone, and the two loaded together."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from llmctl.errors import UserError
from llmctl.model.embeddings import resize_embeddings
from llmctl.model.load import causal_config
from llmctl.recipe.strangers import ADAPTER, TO_SAFETENSORS
from llmctl.runs.files import read_json

WEIGHTS, PICKLE = "adapter_model.safetensors", "adapter_model.bin"
TOKENIZER = "tokenizer_config.json"
PREFIX = "base_model.model."
MATRICES = (".lora_A.weight", ".lora_B.weight")

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class AdapterFile:
    """What is known of an adapter before its weights are read."""

    folder: Path
    settings: dict[str, Any]
    """Of adapter_config.json."""
    shapes: dict[str, Shape]
    """Of the tensors, by name in the base."""

    @property
    def has_tokenizer(self) -> bool:
        return (self.folder / TOKENIZER).is_file()

    @property
    def tokens(self) -> int:
        """That its tokenizer has; 0 without one."""
        from llmctl.tokens.tokenizer import load_tokenizer

        return len(load_tokenizer(str(self.folder))) if self.has_tokenizer else 0

    @property
    def whole(self) -> list[str]:
        """Weights that it holds in full, such as embeddings, and puts in the place of the base's."""
        return [name for name in self.shapes if "lora_" not in name]


def read_adapter(folder: Path) -> AdapterFile:
    """Raises:
    UserError: there is no LoRA adapter, its weights are in a pickle, or it asks for a module of its own.
    """
    from safetensors import SafetensorError, safe_open

    if not (folder / ADAPTER).is_file():
        raise UserError(f"{folder}: no adapter in PEFT's format, which has an {ADAPTER}")
    if not (folder / WEIGHTS).is_file():
        pickled = f"its weights are in a pickle ({PICKLE}): {TO_SAFETENSORS}"
        raise UserError(f"{folder}: {pickled if (folder / PICKLE).is_file() else f'no {WEIGHTS}'}")
    try:
        settings = read_json(folder / ADAPTER)
        kind = settings.get("peft_type")
    except (ValueError, AttributeError) as error:
        raise UserError(f"{folder / ADAPTER}: cannot be read: {error}") from None
    if kind != "LORA":
        raise UserError(f"{folder}: an adapter of the kind {kind}; llmctl knows LoRA alone")
    if settings.get("megatron_config"):  # peft would import the module that megatron_core names
        raise UserError(f"{folder}: its {ADAPTER} asks for a module to be imported (megatron_core), which llmctl does not do")
    try:
        with safe_open(str(folder / WEIGHTS), framework="pt") as file:
            shapes = {n.removeprefix(PREFIX): tuple(file.get_slice(n).get_shape()) for n in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise UserError(f"{folder / WEIGHTS}: cannot be read: {error}") from None
    return AdapterFile(folder, settings, shapes)


def check_adapter(folder: Path, base: str) -> AdapterFile:
    """Hold an adapter against the configuration of `base` (folder, GGUF file or hub name). No weights are read.

    Raises:
        UserError: there is no adapter, or it belongs to another model: the message names both and what differs.
    """
    from transformers import AutoModelForCausalLM

    adapter = read_adapter(folder)
    with torch.device("meta"):
        model: Any = AutoModelForCausalLM.from_config(causal_config(base))
    problem = (
        _wrong_recorded_base(adapter, model.config.get_text_config().vocab_size)
        or _wrong_tokenizer(adapter, model)
        or next((found for name in adapter.shapes if (found := _wrong_tensor(adapter, name, model))), None)
    )
    if problem:
        raise UserError(f"the adapter {folder} does not fit {base}: {problem}")
    return adapter


def _wrong_recorded_base(adapter: AdapterFile, vocabulary: int) -> str | None:
    """By the base that the adapter was trained on, where it is a folder that is still there."""
    recorded = Path(str(adapter.settings.get("base_model_name_or_path") or "")).expanduser()
    if adapter.whole or not (recorded / "config.json").is_file():
        return None
    theirs = causal_config(str(recorded)).get_text_config().vocab_size
    if theirs == vocabulary:
        return None
    return f"it was trained on {recorded}, of a vocabulary of {theirs:,}, and this base has one of {vocabulary:,}"


def _wrong_tokenizer(adapter: AdapterFile, model: Any) -> str | None:
    if any(_is_embedding(name, model) for name in adapter.whole):
        return None
    rows, tokens = model.get_input_embeddings().weight.shape[0], adapter.tokens
    return f"its tokenizer has {tokens:,} tokens, and the base embeds {rows:,}" if tokens > rows else None


def _is_embedding(name: str, model: Any) -> bool:
    layer = dict(model.named_modules()).get(name.rpartition(".")[0])
    return layer is not None and layer in (model.get_input_embeddings(), model.get_output_embeddings())


def _wrong_tensor(adapter: AdapterFile, name: str, model: Any) -> str | None:
    shape = adapter.shapes[name]
    ending = next((ending for ending in (*MATRICES, ".lora_magnitude_vector") if name.endswith(ending)), None)
    if "lora_" in name and (ending is None or adapter.settings.get("target_parameters")):
        return None  # beside no linear layer; peft tells when it loads them
    place = name.rpartition(".")[0] if ending is None else name.removesuffix(ending)
    layer = dict(model.named_modules()).get(place)
    if layer is None:
        return f"no layer {place.rpartition('.')[2]!r} ({place})"
    if ending is None:
        return _wrong_whole(adapter, name, layer, model)
    into, out = _widths(layer)
    rank = _rank(adapter)
    expected = {".lora_A.weight": (rank, into), ".lora_B.weight": (out, rank)}.get(ending, (out,))
    if len(shape) == len(expected) and all(want in (None, has) for want, has in zip(expected, shape, strict=True)):
        return None
    what = f"rank {rank}, " if rank is not None else ""
    return f"{name} is {_told(shape)}, and {what}a layer from {into:,} to {out:,} wide takes {_told(expected)}"


def _wrong_whole(adapter: AdapterFile, name: str, layer: nn.Module, model: Any) -> str | None:
    weight = getattr(layer, name.rpartition(".")[2], None)
    has, shape = None if weight is None else tuple(weight.shape), adapter.shapes[name]
    if has == shape:
        return None
    if has is None or has[1:] != shape[1:] or not _is_embedding(name, model):
        return f"{name} is {_told(shape)}, and of the base {'not there' if has is None else _told(has)}"
    if shape[0] >= adapter.tokens > has[0]:
        return None  # it brings rows for tokens that its own tokenizer has
    return f"its vocabulary is {shape[0]:,} ({name}), and the base's {has[0]:,}"


def _widths(layer: nn.Module) -> tuple[int, int]:
    """Of a linear layer, input and output."""
    if isinstance(layer, nn.Linear):
        return layer.in_features, layer.out_features
    weight: Any = layer.weight  # of `transformers`' Conv1D, [in, out]
    into, out = weight.shape
    return into, out


def _rank(adapter: AdapterFile) -> int | None:
    """None: it differs from layer to layer."""
    return None if adapter.settings.get("rank_pattern") else adapter.settings.get("r")


def _told(shape: tuple[int | None, ...]) -> str:
    return "[" + ", ".join("any" if size is None else f"{size:,}" for size in shape) + "]"


def with_adapters(model: Any, adapters: list[AdapterFile], weights: list[float]) -> Any:
    """`model` with adapters beside it that were checked against it, all of them active, each times its weight. It gets the
    rows of embeddings that an adapter brings.

    Raises:
        UserError: they cannot be added up, or `peft` cannot load one.
    """
    from peft import PeftModel
    from peft.tuners.lora import LoraLayer

    check_sum(adapters, weights)
    brought = [adapter.shapes[name][0] for adapter in adapters for name in adapter.whole if _is_embedding(name, model)]
    resize_embeddings(model, max(brought, default=0), multiple=1)
    names = [f"adapter_{number}" for number in range(len(adapters))]
    try:
        adapted: Any = PeftModel.from_pretrained(model, str(adapters[0].folder), adapter_name=names[0])
        for adapter, name in zip(adapters[1:], names[1:], strict=True):
            adapted.load_adapter(str(adapter.folder), adapter_name=name)
        adapted.base_model.set_adapter(names)
    except (ValueError, RuntimeError, KeyError, TypeError, ImportError) as error:
        folders = ", ".join(str(adapter.folder) for adapter in adapters)
        raise UserError(f"{folders}: cannot be loaded: {str(error).splitlines()[0]}") from None
    for layer in adapted.modules():
        if isinstance(layer, LoraLayer):
            for name, weight in zip(names, weights, strict=True):
                if name in layer.scaling:
                    layer.scaling[name] *= weight
    return adapted.eval()


def check_sum(adapters: list[AdapterFile], weights: list[float]) -> None:
    """Raises:
    UserError: a weight is no number, or an adapter has more to it than an update that can be weighed and added.
    """
    if not all(map(math.isfinite, weights)):
        raise UserError(f"weights {', '.join(f'{weight:g}' for weight in weights)}: expected numbers")
    for adapter, weight in zip(adapters, weights, strict=True):
        init = str(adapter.settings.get("init_lora_weights"))
        for there, what in (
            (adapter.settings.get("use_dora"), "a DoRA adapter scales whole columns of weights"),
            (
                adapter.whole,
                f"an adapter with whole weights ({', '.join(adapter.whole[:2])}) puts them in the base's place",
            ),
            (init.startswith(("pissa", "olora")), f"an adapter with init {init} takes a part out of the base's weights"),
        ):
            if there and (len(adapters) > 1 or weight != 1):
                raise UserError(f"{adapter.folder}: {what}; it is merged alone, and with the weight 1")
