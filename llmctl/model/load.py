"""Hugging Face folders in and out."""

import contextlib
import io
from pathlib import Path
from typing import Any

from llmctl.errors import UserError, require_package
from llmctl.recipe.gguf_header import left_out
from llmctl.recipe.strangers import HOLDS_ADAPTER, TO_SAFETENSORS, own_code, unsafe_files, weights_in_pickles
from llmctl.runs.files import staged_folder

SHARD_SIZE = "5GB"


def quieten() -> None:
    """Turn off `transformers`' own bars and hints: they tear the panel, and what matters llmctl says itself."""
    import os
    import warnings

    import torch
    from transformers.utils import logging

    # DeepSpeed, which `peft` asks for, says which it has found unless it is told.
    os.environ.setdefault("DS_ACCELERATOR", "cuda" if torch.cuda.is_available() else "cpu")

    logging.disable_progress_bar()
    logging.set_verbosity_error()
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")


def load_model(path_or_name: str, device: str = "cpu") -> Any:
    """A causal language model in fp32 from a folder, a hub name or a .gguf file (which is dequantised).

    Weights are read from safetensors alone, and no code of the checkpoint is run.

    Raises:
        UserError: nothing there, another kind of model, weights in pickles, an adapter, or code of its own.
    """
    import torch
    from transformers import AutoModelForCausalLM

    quieten()
    _refuse_adapter(path_or_name)
    if path_or_name.endswith(".gguf"):
        return _load_gguf(Path(path_or_name)).to(device)
    config = causal_config(path_or_name)
    if wrong := unsafe_files(Path(path_or_name)):
        raise UserError(f"{path_or_name}: {wrong}")
    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            path_or_name,
            config=config,
            dtype=torch.float32,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    except (OSError, ValueError, RuntimeError, ImportError) as error:
        told = str(error).splitlines()[0]
        why = f"it has none in safetensors: {TO_SAFETENSORS}" if "use_safetensors" in told else told
        raise UserError(f"{path_or_name}: its weights could not be loaded: {why}") from None
    model, details = loaded
    missing = [name for name in details["missing_keys"] if not (config.tie_word_embeddings and "lm_head" in name)]
    if missing or details["mismatched_keys"]:
        wrong = ", ".join(str(name) for name in [*missing, *details["mismatched_keys"]][:3])
        raise UserError(f"{path_or_name}: its weights do not fit its config.json: {wrong}")
    return model.to(device)


def new_model(path_or_name: str, seed: int) -> Any:
    """A model of the same configuration in fp32 with weights of its own, as `transformers` initialises them. No weights are read.

    Raises:
        UserError: nothing there, or another kind of model.
    """
    import torch
    from transformers import AutoModelForCausalLM

    quieten()
    torch.manual_seed(seed)
    return AutoModelForCausalLM.from_config(causal_config(path_or_name), dtype=torch.float32)


def causal_config(path_or_name: str) -> Any:
    """Raises:
    UserError: nothing there, or another kind of model.
    """
    from transformers import AutoModelForCausalLM

    config = load_config(path_or_name)
    if type(config) not in AutoModelForCausalLM._model_mapping:
        raise UserError(f"{path_or_name}: a {config.model_type} model is no causal language model, which llmctl trains")
    return config


def load_config(path_or_name: str) -> Any:
    """The configuration of a folder, a hub name or a .gguf file.

    Raises:
        UserError: there is none, or it asks for code of its own or for weights in a pickle.
    """
    from transformers import AutoConfig, PreTrainedConfig

    quieten()
    place, extra = path_or_name, {}
    if path_or_name.endswith(".gguf"):
        require_package("gguf", f"{path_or_name}: a GGUF file")
        if Path(path_or_name).is_file() and (wrong := left_out(Path(path_or_name))):
            raise UserError(f"{path_or_name}: {wrong}")
        place, extra = str(Path(path_or_name).parent), {"gguf_file": Path(path_or_name).name}
    try:
        settings, _ = PreTrainedConfig.get_config_dict(place, **extra)
        if wrong := own_code(settings, "config.json") or weights_in_pickles(settings):
            raise UserError(f"{path_or_name}: {wrong}")
        config = AutoConfig.from_pretrained(place, trust_remote_code=False, **extra)
    except (OSError, ValueError) as error:
        raise UserError(f"{path_or_name}: no model could be loaded: {str(error).splitlines()[0]}") from None
    # Both may name kernels of the hub, which would be downloaded and run; llmctl chooses for itself.
    config._attn_implementation = config._experts_implementation = None
    return config


def _refuse_adapter(path_or_name: str) -> None:
    """Transformers would put an adapter that it finds onto the model, and read it from a pickle if need be."""
    from transformers.utils import find_adapter_config_file

    place = str(Path(path_or_name).parent) if path_or_name.endswith(".gguf") else path_or_name
    try:
        found = find_adapter_config_file(place)
    except (OSError, ValueError):
        found = None  # nothing is there at all, and that is told when it is loaded
    if found is not None:
        raise UserError(f"{path_or_name}: {HOLDS_ADAPTER}")


def _load_gguf(file: Path) -> Any:
    import torch
    from transformers import AutoModelForCausalLM, GgufConfig

    if not file.is_file():
        raise UserError(f"{file}: no such file")
    require_package("gguf", f"{file}: a GGUF file")
    if wrong := left_out(file):
        raise UserError(f"{file}: {wrong}")
    whole = GgufConfig(gguf_file=file.name, dequantize=True)
    try:
        with contextlib.redirect_stderr(io.StringIO()):  # a bar that no setting of transformers turns off
            model: Any = AutoModelForCausalLM.from_pretrained(
                str(file.parent),
                gguf_file=file.name,
                quantization_config=whole,
                dtype=torch.float32,
                trust_remote_code=False,
            )
    except (OSError, ValueError, RuntimeError, ImportError) as error:
        raise UserError(f"{file}: its weights could not be loaded: {str(error).splitlines()[0]}") from None
    # The weights are plain now; a saved copy must not say that they are packed.
    model.hf_quantizer = None
    for name in ("quantization_config", "_pre_quantization_dtype"):
        if hasattr(model.config, name):
            delattr(model.config, name)
    model.is_quantized = False
    return model.float()


def save_model(model: Any, tokenizer: Any, folder: Path) -> None:
    """Write a folder that any Hugging Face tool opens: fp32 safetensors, tokenizer with its template, generation
    settings. Whole or not at all."""
    quieten()
    check_vocabulary(model, tokenizer)
    model.generation_config = set_token_ids(model.config, tokenizer)
    with staged_folder(folder) as aside:
        model.save_pretrained(aside, max_shard_size=SHARD_SIZE)
        tokenizer.save_pretrained(aside)


def set_token_ids(config: Any, tokenizer: Any) -> Any:
    """Write the tokenizer's special tokens into a model's configuration; returns the `GenerationConfig` that goes with it."""
    from transformers import GenerationConfig

    from llmctl.tokens.template import end_of_turn_ids

    stops = end_of_turn_ids(tokenizer) if tokenizer.chat_template else [tokenizer.eos_token_id]
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    config.eos_token_id, config.pad_token_id = tokenizer.eos_token_id, pad
    return GenerationConfig(eos_token_id=stops, pad_token_id=pad, do_sample=False)


def check_vocabulary(model: Any, tokenizer: Any) -> None:
    """Raises:
    UserError: the tokenizer has tokens that the model has no embedding for.
    """
    rows = model.get_input_embeddings().weight.shape[0]
    if len(tokenizer) > rows:
        raise UserError(
            f"the tokenizer has {len(tokenizer):,} tokens and the model embeds {rows:,}: they do not belong together. "
            "Use the model's own tokenizer, or a model of that vocabulary."
        )
