"""Checkpoints of strangers: what of them would run code or open a pickle. All of it is refused."""

from pathlib import Path
from typing import Any

ADAPTER = "adapter_config.json"
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
HOLDS_ADAPTER = (
    f"it holds an adapter ({ADAPTER}), and llmctl starts from whole models; merge it into its base first (llmctl merge "
    "BASE ADAPTER), or, where it is merged already, leave the adapter's files out"
)
TO_SAFETENSORS = (
    "opening a pickle can run any code, and llmctl reads weights from safetensors alone; where you trust the file, "
    'convert it: AutoModelForCausalLM.from_pretrained("FOLDER").save_pretrained("NEW")'
)


def own_code(settings: dict[str, Any], file: str) -> str | None:
    """What is wrong with settings that name code of the checkpoint (`auto_map`); `file` is where they stand."""
    if not settings.get("auto_map"):
        return None
    return (
        f"its {file} asks for Python code that comes with the checkpoint (auto_map), and llmctl runs no code of a checkpoint. "
        "Where transformers has a class of its own for it, take auto_map out of a copy of the file; else convert the "
        "checkpoint to a kind that transformers knows"
    )


def weights_in_pickles(settings: dict[str, Any]) -> str | None:
    """What is wrong with a config.json that names a pickle as the file of the weights."""
    file = str(settings.get("transformers_weights") or "")
    if not file or file.endswith((".safetensors", ".safetensors.index.json")):
        return None
    return f"its config.json names {file} as its weights: {TO_SAFETENSORS}"


def unsafe_files(folder: Path) -> str | None:
    """What is wrong with the files of a model folder: an adapter beside the model, or pickles and no safetensors."""
    if (folder / ADAPTER).is_file():
        return HOLDS_ADAPTER
    pickles = sorted(path.name for pattern in PICKLES for path in folder.glob(pattern))
    if pickles and not any(folder.glob("*.safetensors")):
        return f"its weights are in a pickle ({pickles[0]}): {TO_SAFETENSORS}"
    return None
