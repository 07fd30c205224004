"""Documents as token shards: scattered over parts by the hash of their names, parts tokenised side by side.

Documents are laid down in the order of the hash of their name: rows cut from the shards one after the other then hold
documents from all over the source, and the order does not depend on the number of parts or workers.
"""

import hashlib
import json
import multiprocessing
import os
import shutil
import signal
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from llmctl import events
from llmctl.errors import StageFailed
from llmctl.interrupts import deferred
from llmctl.recipe.train_schema import InfillingTable
from llmctl.runs.files import read_json, sync, write_json
from llmctl.tokens.encoder import Encoder
from llmctl.tokens.infilling import Piece, marks, pieces
from llmctl.tokens.shards import PartWriter, kind_of_ids, part_name, write_meta
from llmctl.tokens.tokenizer import load_tokenizer

PART_BYTES = 128_000_000  # of text; a worker holds a part and its ids in memory, about four times as much
MOST_PARTS = 512  # files that are open at a time while documents are scattered
BATCH_CHARACTERS = 4_000_000  # encoded together

Written = tuple[str, str, str]
"""Name, text and path of a document."""


@dataclass(frozen=True, slots=True)
class TextShards:
    """The making of a source's shards in `out`. What a run that was stopped has finished is kept beside it."""

    tokenizer: str
    """Folder."""
    out: Path
    part_bytes: int = PART_BYTES
    workers: int | None = None
    """Processes. None: one for each core, as far as there are parts."""
    infilling: InfillingTable | None = None
    """Documents whose middle is moved to the end."""

    @property
    def _aside(self) -> Path:
        return self.out.with_name(f".{self.out.name}.parts")

    def write(self, documents: Callable[[], Iterable[Written]], size: int) -> None:
        """Tokenise documents of `size` bytes together, the end-of-text token after each.

        Raises:
            StageFailed: a worker was killed.
        """
        if (self._aside / "meta.json").exists():  # stopped while it got its name
            return self._give_name()
        parts = min(MOST_PARTS, max(1, -(-size // self.part_bytes)))
        plan = {"tokenizer": self.tokenizer, "parts": parts, "bytes": size}
        if not self._scattered(plan):
            self._scatter(documents(), parts, size)
            write_json(self._aside / "plan.json", plan)
        work = partial(write_part, self.tokenizer, self._aside, infilling=self.infilling)
        missing = [part for part in range(parts) if not _done_file(self._aside, part).exists()]
        workers = min(len(missing), self.workers or os.cpu_count() or 1)
        if workers > 1:
            self._side_by_side(work, missing, parts, workers)
        else:
            for part in missing:
                work(part)
                events.progress(f"tokenising {self.out.name}", part + 1, parts, "parts")
        return self._finish(parts)

    def _scattered(self, plan: dict[str, Any]) -> bool:
        file = self._aside / "plan.json"
        return file.exists() and read_json(file) == plan

    def _scatter(self, documents: Iterable[Written], parts: int, size: int) -> None:
        shutil.rmtree(self._aside, ignore_errors=True)
        self._aside.mkdir(parents=True)
        done = 0
        with ExitStack() as stack:
            files = [stack.enter_context(_scatter_file(self._aside, part).open("w", encoding="utf-8")) for part in range(parts)]
            for number, (name, text, path) in enumerate(documents):
                place = hashlib.sha256(name.encode()).hexdigest()
                files[int(place[:8], 16) * parts >> 32].write(json.dumps([place, name, path, text]) + "\n")
                done += len(text)
                if number % 500 == 0:
                    events.progress(f"sorting {self.out.name}", done, size, "bytes")

    def _side_by_side(self, work: Callable[[int], None], missing: list[int], parts: int, workers: int) -> None:
        try:
            context = multiprocessing.get_context("spawn")
            stop = context.Event()
            with ProcessPoolExecutor(workers, context, begin_worker, (stop,)) as pool:
                try:
                    for number, _ in enumerate(pool.map(work, missing), parts - len(missing) + 1):
                        events.progress(f"tokenising {self.out.name}", number, parts, "parts")
                except BaseException:
                    with deferred():
                        stop.set()
                        pool.shutdown(cancel_futures=True)
                    raise
        except BrokenProcessPool:
            raise StageFailed(
                f"tokenising {self.out.name}: a worker was killed, for want of memory perhaps; the parts that are done are "
                "kept, and the same command goes on from them"
            ) from None

    def _finish(self, parts: int) -> None:
        done = [read_json(_done_file(self._aside, part)) for part in range(parts)]
        lengths = [length for part in done for length in part.pop("lengths")]
        write_meta(self._aside, kind_of_ids(load_tokenizer(self.tokenizer)), done, lengths)
        self._give_name()

    def _give_name(self) -> None:
        for file in [*self._aside.glob("part-*.json"), self._aside / "plan.json"]:
            file.unlink(missing_ok=True)
        sync(self._aside)
        os.rename(self._aside, self.out)
        sync(self.out.parent)


def _scatter_file(folder: Path, part: int) -> Path:
    return folder / f"scattered-{part:05d}.jsonl"


def _done_file(folder: Path, part: int) -> Path:
    return folder / f"{part_name(part)}.json"


_stop: Any = None
"""Of a worker: the event that tells it to leave its part."""


def begin_worker(stop: Any) -> None:
    """Ctrl-C in a terminal and a scheduler's warning reach every process of the group: the parent alone acts on them."""
    global _stop
    _stop = stop
    for number in (signal.SIGINT, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)


def write_part(tokenizer_folder: str, folder: Path, part: int, infilling: InfillingTable | None = None) -> None:
    """Tokenise what was scattered to a part. In a process of its own: it takes names, not objects."""
    tokenizer = load_tokenizer(tokenizer_folder)
    encode = Encoder(tokenizer)
    with _scatter_file(folder, part).open(encoding="utf-8") as file:
        documents = sorted(json.loads(line) for line in file)
    writer = PartWriter(folder, part, kind_of_ids(tokenizer))
    ids = marks(tokenizer) if infilling is not None else None
    first = 0
    while first < len(documents):
        if _stop is not None and _stop.is_set():
            raise StageFailed(f"part {part} was left unfinished")
        last, size = first, 0
        while last < len(documents) and size < BATCH_CHARACTERS:
            size += len(documents[last][3])
            last += 1
        batch = documents[first:last]
        written = [
            pieces(name, text, infilling, ids) if infilling is not None and ids is not None else [text]
            for _, name, _, text in batch
        ]
        for (_, name, path, text), tokens in zip(batch, _joined(encode, written, tokenizer.eos_token_id), strict=True):
            writer.add(tokens, name, path, len(text.encode()))
        first = last
    done = writer.close() | {"lengths": writer.lengths}
    write_json(_done_file(folder, part), done)
    _scatter_file(folder, part).unlink()


def _joined(encode: Encoder, documents: list[list[Piece]], end: int) -> Iterator[np.ndarray]:
    """Ids of each document, its pieces encoded and the end-of-text token after them."""
    ids, lengths = encode([piece for document in documents for piece in document if isinstance(piece, str)])
    texts = iter(np.split(ids, np.cumsum(lengths)[:-1]))
    for document in documents:
        parts = [next(texts) if isinstance(piece, str) else np.array([piece], np.uint32) for piece in document]
        yield np.concatenate([*parts, np.array([end], np.uint32)])
