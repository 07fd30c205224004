"""Models from outside the recipe: what their `config.json` says against what the recipe says. No weights are read."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from llmctl.errors import UserError, require_package
from llmctl.recipe.gguf_header import left_out
from llmctl.recipe.presets import resolve_model
from llmctl.recipe.schema import Recipe
from llmctl.recipe.strangers import own_code, unsafe_files, weights_in_pickles

CAUSAL = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")
SHAPE = {
    "hidden_size": "hidden_size",
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
    "kv_heads": "num_key_value_heads",
    "ffn_size": "intermediate_size",
}


def check_model_folder(recipe: Recipe, name: str) -> Iterator[str]:
    """What is wrong with the model folder or GGUF file `name` as a stage's parent; every sentence begins with the name."""
    path = Path(name).expanduser()
    if path.is_file():
        if path.suffix != ".gguf":
            yield f"{name!r} is a file; expected a model folder, a .gguf file or a hub name"
            return
        try:
            require_package("gguf", f"{name!r}: a GGUF file")
            if wrong := left_out(path):
                yield f"{name!r}: {wrong}"
        except UserError as error:
            yield str(error)
        return
    config_file = path / "config.json"
    if not config_file.is_file():
        inside = path / "model"
        hint = f"; did you mean {str(inside)!r}?" if (inside / "config.json").is_file() else ""
        yield f"{name!r} has no config.json: no model folder in Hugging Face's format{hint}"
        return
    try:
        config: dict[str, Any] = json.loads(config_file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        yield f"{name!r}: its config.json cannot be read: {error}"
        return
    for wrong in (own_code(config, "config.json"), weights_in_pickles(config), unsafe_files(path)):
        if wrong is not None:
            yield f"{name!r}: {wrong}"
            return
    architectures = config.get("architectures") or []
    if architectures and not any(str(kind).endswith(CAUSAL) for kind in architectures):
        yield f"{name!r} holds a {', '.join(architectures)}, which is no causal language model; llmctl trains no other kind"
        return
    yield from check_shape(recipe, name, config)
    rows, trained = config.get("vocab_size"), recipe.tokenizer
    if trained is not None and trained.path is None and rows is not None and rows < trained.vocab_size:
        yield (
            f"{name!r} embeds {rows:,} tokens, and [tokenizer] trains {trained.vocab_size:,}: a model goes with its own "
            "tokenizer; leave [tokenizer] out"
        )


def check_shape(recipe: Recipe, name: str, config: dict[str, Any]) -> Iterator[str]:
    if recipe.model is None:
        return
    shape = resolve_model(recipe.model)
    different = [
        f"{key} = {shape[key]:,} (there: {config[theirs]:,})"
        for key, theirs in SHAPE.items()
        if shape.get(key) and isinstance(config.get(theirs), int) and config[theirs] != shape[key]
    ]
    if different:
        yield (
            f"{name!r} is a {config.get('model_type', 'model')} of another shape than [model]: {', '.join(different)}; "
            "leave [model] out, the checkpoint brings its own"
        )
