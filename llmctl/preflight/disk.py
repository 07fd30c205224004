"""Bytes on disk that a recipe takes: what its stages leave, and what is there only while one of them runs."""

from collections.abc import Iterable
from pathlib import Path

from llmctl.recipe.schema import TrainTable

MODEL = 4
"""Of a weight in `model/`, which is fp32."""
TRAINER = 12
"""Of a trained weight in a trainer's state: fp32, with AdamW's two moments. Muon has one, and is counted as if it had two."""
COPIES = 2.0
"""Of the text of a source: its compressed snapshot, before and after it is parted, and its tokens."""
UNPACKED = 4
"""Text out of a compressed file, in the size of that file."""
COMPRESSED = (".gz", ".zst", ".parquet")


def checkpoint_bytes(table: TrainTable, parameters: int, trained: int) -> int:
    """The most that the trainer's checkpoints of a stage take: a new one is whole before the oldest is removed."""
    best = MODEL * parameters if table.checkpoint.keep_best or table.early_stopping is not None else 0
    return (table.checkpoint.keep + 1) * TRAINER * trained + best


def left_bytes(table: TrainTable, parameters: int, trained: int, steps: int | None) -> int:
    """What a stage leaves for good: its model, the trainer's state, and the models that it keeps on the way."""
    every = table.checkpoint.keep_every
    kept = (steps // every if steps and every else 0) + table.checkpoint.keep_best
    return (1 + kept) * MODEL * parameters + TRAINER * trained


def corpus_bytes(texts: Iterable[int]) -> int:
    """What the snapshot of sources and their tokens take, of sources with so many bytes of text."""
    return round(COPIES * sum(texts))


def text_bytes(files: Iterable[tuple[str, int]], most: int | None) -> int:
    """Bytes of text in files of these names and sizes, of which at most `most` are taken."""
    total = sum(size * UNPACKED if Path(name).suffix in COMPRESSED else size for name, size in files)
    return total if most is None else min(total, most)
