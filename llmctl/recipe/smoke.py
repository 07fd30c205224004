"""`--smoke`: the same graph shrunk to minutes. Every stage, save, resume and evaluation runs; only the amounts are small."""

from typing import Any

from llmctl.recipe.schema import STAGE_TABLES
from llmctl.recipe.train_schema import TrainTable

STEPS = 8
LONGEST = 1024
SMOKE_RANK = 8  # of adapters; the shrunk model is 64 wide
SOURCE_BYTES = 4_000_000  # enough for held-out questions of every kind
IN_TOKENS = (
    "epochs", "micro_batch", "schedule_tokens", "stretch_from", "warmup_tokens",
    "batch_warmup_tokens", "batch_warmup_from", "length_warmup_tokens", "length_warmup_from",
    "sequence_exchange", "sequence_parallel", "processes",
)  # fmt: skip
"""Keys that fit the amounts, or the heads, of the whole stage alone; two rows cannot be shared by many ranks."""
MODEL = {"hidden_size": 64, "layers": 4, "heads": 4, "kv_heads": 4, "ffn_size": 128}


def shrink(values: dict[str, Any]) -> None:
    """Shrink the plain values of a recipe in place. Called before they are validated."""
    values["name"] = f"{values.get('name', 'recipe')}-smoke"
    if isinstance(tokenizer := values.get("tokenizer"), dict) and "path" not in tokenizer:
        tokenizer |= {"vocab_size": min(1024, _whole(tokenizer.get("vocab_size"), 1024)), "train_bytes": 1_000_000}
    if isinstance(model := values.get("model"), dict):
        window = min(128, _whole(model.get("window"), 128))
        model.update(MODEL | {"window": window})
        model.pop("preset", None)
        model.pop("head_size", None)
    for source in _tables(_tables_of(values, "corpus").get("sources")):
        source["max_bytes"] = SOURCE_BYTES
    stages = [values[name] for name in ("pretrain", "midtrain", "longctx", "sft", "lora") if isinstance(values.get(name), dict)]
    for stage in [*stages, *_tables(values.get("stage"))]:
        _shrink_stage(stage)
    for stage in [values.get("sft"), values.get("lora"), *_tables(values.get("stage"))]:
        if isinstance(stage, dict) and stage.get("kind", "sft") in ("sft", "lora"):
            _shrink_chat(stage)
    for stage in [values.get("longctx"), *_tables(values.get("stage"))]:
        if isinstance(stage, dict) and stage.get("kind", "longctx") == "longctx":
            guard = stage.get("guard", {})
            stage["guard"] = guard | {"policy": "warn", "questions": 6} if isinstance(guard, dict) else guard
    evaluation = values.setdefault("eval", {})
    if isinstance(evaluation, dict):
        evaluation |= {"questions": 12, "generations": 8, "long_documents": 2, "bits_per_byte_bytes": 30_000}
        if isinstance(long := evaluation.setdefault("long", {}), dict):
            long |= {"questions": 1, "depths": min(2, _whole(long.get("depths"), 2)), "needles": 1, "lengths": []}


def _shrink_stage(stage: dict[str, Any]) -> None:
    if not issubclass(STAGE_TABLES.get(stage.get("kind", ""), TrainTable), TrainTable):
        return
    length = min(LONGEST, _whole(stage.get("seq_len"), LONGEST))
    rows = 2
    stage["seq_len"] = length
    stage["batch_tokens"] = rows * length
    stage["tokens"] = STEPS * rows * length
    for key in IN_TOKENS:
        stage.pop(key, None)
    stage["warmup_steps"] = min(2, _whole(stage.get("warmup_steps"), 0))
    stage["max_repetition"] = 1e6
    stage.pop("buckets", None)
    if isinstance(synthetic := stage.get("synthetic"), dict):  # a model would write for hours
        shares = {key: value for key, value in synthetic.items() if key.endswith("_share")}
        stage["synthetic"] = shares | {"min_document_tokens": length // 2}
    if isinstance(rope := stage.get("rope"), dict):
        # The shrunk lengths stand in another ratio; the parent's length is what the factor starts from.
        rope["factor"] = min(float(rope.get("factor", 8.0)), 8.0)
        rope.pop("original_length", None)
    if isinstance(checkpoint := stage.get("checkpoint", {}), dict):
        stage["checkpoint"] = {key: value for key, value in checkpoint.items() if key == "keep_best"} | {"every_steps": 4}
    if isinstance(measured := stage.get("eval"), dict) and "every_steps" in measured:
        stage["eval"] = measured | {"every_steps": 4, "rows": 4, "questions": 6}


def _shrink_chat(stage: dict[str, Any]) -> None:
    stage |= {"most_untrained": 1.0, "too_long": "truncate"}  # rows are short now, and conversations as long as ever
    stage.pop("quantize", None)  # which takes a GPU
    if "rank" in stage:
        stage["rank"] = min(SMOKE_RANK, _whole(stage["rank"], SMOKE_RANK))


def _whole(value: Any, otherwise: int) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else otherwise


def _tables(tables: Any) -> list[dict[str, Any]]:
    return [table for table in tables.values() if isinstance(table, dict)] if isinstance(tables, dict) else []


def _tables_of(values: dict[str, Any], name: str) -> dict[str, Any]:
    table = values.get(name)
    return table if isinstance(table, dict) else {}
