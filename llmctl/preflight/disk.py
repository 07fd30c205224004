"""Bytes on disk that a recipe takes: what its stages leave, what is there only while one of them runs, and its text."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from llmctl.preflight.decoder import Decoder
from llmctl.recipe.chat_schema import LoraTable
from llmctl.recipe.schema import TrainTable

COPIES = 2.0
"""Of the text of a source: its compressed snapshot, before and after it is parted, and its tokens."""
UNPACKED = 4
"""Text out of a compressed file, in the size of that file."""
COMPRESSED = (".gz", ".zst", ".parquet")


@dataclass(frozen=True, slots=True)
class Disk:
    left: int
    """When the stage is done: `model/`, `trainer/`, what is kept for good, and an adapter."""
    peak: int
    """While it runs at most: beside those the checkpoints and the one that is being written."""


def disk_of(decoder: Decoder, table: TrainTable, steps: int | None) -> Disk:
    """Models are in fp32. A state has weights, moments and running means of what is trained, fp32. Token shards and the corpus
    are not counted. `steps` None: not known, and then neither is what `keep_every` keeps."""
    by_muon = decoder.muon_matrices if table.optimizer == "muon" else 0
    moments = 8 * decoder.trained - 4 * by_muon
    state = 4 * decoder.trained + moments + (4 * decoder.trained if table.ema_decay is not None else 0)
    model, checkpoints = 4 * decoder.parameters, table.checkpoint
    adapter = 4 * decoder.trained if isinstance(table, LoraTable) else 0
    kept = (steps or 0) // checkpoints.keep_every if checkpoints.keep_every is not None else 0
    left = model + adapter + state + (kept + checkpoints.keep_best) * (model + adapter)
    running = checkpoints.keep + 1 + (table.early_stopping is not None)
    return Disk(left, left + running * state)


def peak_of_run(disks: list[Disk]) -> int:
    """The most that stages take which are made one after the other."""
    return max((sum(before.left for before in disks[:number]) + disk.peak for number, disk in enumerate(disks)), default=0)


def corpus_bytes(texts: Iterable[int]) -> int:
    """What the snapshot of sources and their tokens take, of sources with so many bytes of text."""
    return round(COPIES * sum(texts))


def text_bytes(files: Iterable[tuple[str, int]], most: int | None) -> int:
    """Bytes of text in files of these names and sizes, of which at most `most` are taken."""
    total = sum(size * UNPACKED if Path(name).suffix in COMPRESSED else size for name, size in files)
    return total if most is None else min(total, most)
