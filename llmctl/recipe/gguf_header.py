"""What a GGUF file says of itself, and what of it `transformers` (5.23) leaves out without a word when it opens one."""

from pathlib import Path
from typing import Any

from llmctl.errors import UserError, require_package

SCALED_BY_TRANSFORMERS = ("gpt-oss",)
SPLITS_DIGITS = ("smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b", "mellum2")
"""Names of a way to split text (`tokenizer.ggml.pre`): every digit alone, then as GPT-2 does (llama.cpp, `llama-vocab.cpp`)."""
SPLITS_AS_GPT2 = ("gpt-2", "phi-2", "mpt", "olmo", "jais", "trillion", "granite-docling")


def read_header(file: Path) -> tuple[dict[str, Any], set[str]]:
    """Keys with a single value, and the names of the tensors.

    Raises:
        UserError: it is no GGUF file, or nothing there reads one.
    """
    require_package("gguf", f"{file}: a GGUF file")
    from gguf import GGUFReader

    try:
        reader: Any = GGUFReader(file)
    except (OSError, ValueError, IndexError, KeyError) as error:
        raise UserError(
            f"{file}: cannot be read as a GGUF file: {str(error).splitlines()[0] if str(error) else error!r}"
        ) from None
    keys = {name: field.contents() for name, field in reader.fields.items() if len(field.data) == 1}
    return keys, {tensor.name for tensor in reader.tensors}


def left_out(file: Path) -> str | None:
    """Why the model that `transformers` makes of a GGUF file would be another one than the file holds; None: it would not."""
    keys, tensors = read_header(file)
    architecture = keys.get("general.architecture")
    if f"{architecture}.attention.sliding_window" in keys and architecture == "olmo2":
        return "an Olmo 3 with a sliding window, which transformers does not read from GGUF; start from its model folder"
    scaling = keys.get(f"{architecture}.rope.scaling.type", "none")
    if "rope_freqs.weight" in tensors:
        scaling = "llama3 (rope_freqs)"
    if scaling != "none" and architecture not in SCALED_BY_TRANSFORMERS:
        return (
            f"its positions are scaled ({scaling}), and transformers leaves that out of what it reads from GGUF, which gives "
            "another model; start from its model folder"
        )
    return None
