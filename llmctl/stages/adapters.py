"""Adapters that are scored as they are, on the model that they belong to."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmctl import events
from llmctl.errors import UserError
from llmctl.recipe.check import looks_like_hub_name
from llmctl.recipe.strangers import ADAPTER
from llmctl.runs.artifact import Artifact
from llmctl.runs.files import expanded, read_json
from llmctl.runs.store import RunStore


@dataclass(frozen=True, slots=True)
class Adapted:
    """An adapter with its base."""

    folder: Path
    base: str
    """Folder or hub name."""
    why: str
    """How the base is known."""


def is_adapter(model: str | Path) -> bool:
    """Whether a folder holds an adapter in PEFT's format, and no whole model beside it."""
    folder = expanded(model)
    weights = [file for kind in ("*.safetensors", "*.bin") for file in folder.glob(kind)]
    return (folder / ADAPTER).is_file() and all(file.stem in ("adapter_model", "training_args") for file in weights)


def find_adapter(store: RunStore, text: str) -> Path | None:
    """The adapter that `text` means: a folder, or RUN/STAGE/adapter or STAGE/adapter of a run; None where it means none."""
    if is_adapter(text):
        return expanded(text)
    stage, _, last = text.rpartition("/")
    if last != "adapter":
        return None
    found = (artifact.folder / "adapter" for artifact in store.checkpoints_named(stage))
    return next((folder for folder in found if is_adapter(folder)), None)


def adapted(model: str | Path, base: str | None = None) -> Adapted | None:
    """The adapter that lies in a folder, with its base: the one that is named, or else the model that the stage began with which
    left the adapter, or else what adapter_config.json says. None: it is no adapter.

    Raises:
        UserError: no base is known, or one is named and there is no adapter.
    """
    if not is_adapter(model):
        if base is not None:
            raise UserError(f"{model}: no adapter in PEFT's format, so that it has no base; leave --base {base} out")
        return None
    folder = expanded(model)
    if base is not None:
        return Adapted(folder, base, "as named")
    owner = RunStore(folder).owner(folder)
    if owner is not None and (found := _begun_with(owner)) is not None:
        return Adapted(folder, found, f"which {owner.run}/{owner.stage} began with")
    return Adapted(folder, _recorded(folder), f"by its {ADAPTER}")


def _begun_with(stage: Artifact) -> str | None:
    """The model that a stage began with, where it is still there."""
    store = RunStore(stage.folder.resolve().parent.parent)
    if (parent := store.model_parent(stage)) is not None:
        return str(parent.folder / "model")
    name = stage.manifest["recipe"].get("stage", {}).get("from")
    return name if name not in (None, *store.parents(stage)) and _there(name) else None


def _recorded(folder: Path) -> str:
    try:
        name = read_json(folder / ADAPTER).get("base_model_name_or_path")
    except (ValueError, AttributeError) as error:
        raise UserError(f"{folder / ADAPTER}: cannot be read: {error}") from None
    if not name:
        raise UserError(f"{folder}: its {ADAPTER} does not say which model it belongs to; name it with --base MODEL")
    if not _there(str(name)):
        raise UserError(f"{folder}: it belongs to {name}, which is not there; name its base with --base MODEL")
    return str(name)


def _there(name: str) -> bool:
    return expanded(name).exists() or looks_like_hub_name(name)


def load_adapted(found: Adapted, device: str) -> Any:
    """The base in fp32, its adapter merged into it in memory. Where layers multiply in bfloat16, an adapter beside them rounds
    otherwise than the model that `llmctl merge` writes (by up to 0.06 nats a token), and choices near each other would change
    places. Which base it is, is said aloud.

    Raises:
        UserError: the adapter does not fit the base.
    """
    from llmctl.model.adapter_files import check_adapter, with_adapters
    from llmctl.model.load import load_model
    from llmctl.model.lora import merge

    events.say(f"{found.folder}: an adapter; its base is {found.base} ({found.why})")
    file = check_adapter(found.folder, found.base)
    return merge(with_adapters(load_model(found.base, device), [file], [1.0])).to(device)


def tokenizer_for_model(model: str | Path, base: str | None = None) -> Any:
    """The tokenizer of a folder, a hub name or a .gguf file; an adapter's own where it has one, or else its base's."""
    from llmctl.tokens.tokenizer import load_tokenizer

    found = adapted(model, base)
    if found is None:
        return load_tokenizer(str(model))
    from llmctl.model.adapter_files import read_adapter
    from llmctl.model.merge import tokenizer_for

    return tokenizer_for(found.base, [read_adapter(found.folder)])
