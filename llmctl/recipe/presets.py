"""Published shapes of Olmo 3, as they stand in OLMo-core's `TransformerConfig.olmo3_*`.

The names hold for a vocabulary of 100,352; they count the output head and leave the input embedding out.
"""

from typing import Any

from llmctl.recipe.schema import ModelTable

WINDOW = 4096
VOCABULARY = 100_352
COLUMNS = ("hidden_size", "layers", "heads", "kv_heads", "head_size", "ffn_size")
SHAPES: dict[str, tuple[int, ...]] = {
    "olmo3_14m": (128, 4, 8, 8, 16, 512),
    "olmo3_30m": (256, 4, 8, 8, 32, 768),
    "olmo3_60m": (384, 8, 8, 8, 48, 1536),
    "olmo3_100m": (512, 12, 8, 8, 64, 2048),
    "olmo3_190m": (768, 12, 12, 12, 64, 3072),
    "olmo3_370m": (1024, 16, 16, 16, 64, 4096),
    "olmo3_600m": (1280, 16, 16, 16, 80, 5120),
    "olmo3_760m": (1536, 16, 16, 16, 96, 6144),
    "olmo3_1b": (2048, 16, 16, 16, 128, 8192),
    "olmo3_3b": (3328, 16, 16, 16, 208, 13312),
    "olmo3_7b": (4096, 32, 32, 32, 128, 11008),
    "olmo3_13b": (5120, 40, 40, 40, 128, 13824),
    "olmo3_32b": (5120, 64, 40, 8, 128, 27648),
}


def resolve_model(table: ModelTable) -> dict[str, Any]:
    """Every number of the shape: the preset's, the table's own keys over them, and what follows from both.

    A missing `hidden_size`, `layers`, `heads`, `ffn_size` or `window` stays None; the recipe's check names it.
    """
    shape: dict[str, Any] = dict.fromkeys(COLUMNS)
    if table.preset is not None and table.preset in SHAPES:
        shape = dict(zip(COLUMNS, SHAPES[table.preset], strict=True)) | {"window": WINDOW}
    written = table.model_dump(exclude={"preset"}, exclude_none=True)
    resized = {"hidden_size", "heads"} & written.keys() and "head_size" not in written
    shape = {"window": None, "vocab_size": None} | shape | written
    if resized:
        shape["head_size"] = None
    if "heads" in written and "kv_heads" not in written:
        shape["kv_heads"] = None
    shape["kv_heads"] = shape["kv_heads"] or shape["heads"]
    if shape["head_size"] is None and shape["hidden_size"] and shape["heads"]:
        shape["head_size"] = shape["hidden_size"] // shape["heads"]
    return shape
