"""Token shards: a source's documents as one flat file of ids, with where each document begins.

tokens.bin    ids, uint16 below 65,536 tokens of vocabulary, else uint32
offsets.npy   int64 [documents + 1]
mask.bin      uint8, conversations alone: 0 masked, 1 closing token, 2 content of an answer
meta.json     written with the rest, before the folder gets its name
"""

import hashlib
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np

from llmctl import events
from llmctl.errors import UserError
from llmctl.runs.files import read_json, staged_folder, write_json
from llmctl.tokens.template import Messages, encode_conversation
from llmctl.tokens.tokenizer import encode

BATCH = 256  # documents tokenised together


def _type_for(tokenizer: Any) -> np.dtype:
    return np.dtype(np.uint16 if len(tokenizer) <= 2**16 else np.uint32)


def _chunks(items: Iterable[Any], size: int) -> Iterator[list[Any]]:
    chunk = []
    for item in items:
        chunk.append(item)
        if len(chunk) == size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def write_text_shards(documents: Iterable[tuple[str, str]], tokenizer: Any, out: Path, name: str = "text") -> None:
    """Tokenise (id, text) pairs, the end-of-text token after each.

    Documents are laid down in the order of the hash of their id: rows cut from the file one after the other then hold
    documents from all over the source.
    """
    ordered = sorted(documents, key=lambda document: hashlib.sha256(document[0].encode()).digest())
    kind, lengths, size = _type_for(tokenizer), [], 0
    with staged_folder(out) as aside:
        with (aside / "tokens.bin").open("wb") as file:
            for chunk in _chunks(ordered, BATCH):
                for ids in encode(tokenizer, [text for _, text in chunk]):
                    ids.append(tokenizer.eos_token_id)
                    np.asarray(ids, dtype=kind).tofile(file)
                    lengths.append(len(ids))
                size += sum(len(text.encode()) for _, text in chunk)
                events.progress(f"tokenising {name}", len(lengths), len(ordered), "documents")
        _finish(aside, kind, lengths, size)


def write_chat_shards(
    conversations: Iterable[Messages],
    tokenizer: Any,
    out: Path,
    loss_on: Literal["assistant", "last_turn"],
    max_tokens: int,
    name: str = "conversations",
) -> None:
    """Tokenise conversations with their masks. One that is longer than `max_tokens`, or has no trained token, is left
    out and counted.

    Raises:
        UserError: none is left.
    """
    kind, lengths, size, too_long, untrained = _type_for(tokenizer), [], 0, 0, 0
    with staged_folder(out) as aside:
        with (aside / "tokens.bin").open("wb") as tokens, (aside / "mask.bin").open("wb") as masks:
            for messages in conversations:
                ids, mask = encode_conversation(tokenizer, messages, loss_on)
                if len(ids) > max_tokens:
                    too_long += 1
                elif not mask.any():
                    untrained += 1
                else:
                    np.asarray(ids, dtype=kind).tofile(tokens)
                    mask.tofile(masks)
                    lengths.append(len(ids))
                    size += sum(len(message["content"].encode()) for message in messages)
                if (len(lengths) + too_long + untrained) % BATCH == 0:
                    events.progress(f"tokenising {name}", len(lengths), None, "conversations")
        if not lengths:
            raise UserError(
                f"{name}: no conversation is left to train on: {too_long:,} longer than seq_len = {max_tokens:,} tokens, "
                f"{untrained:,} without an answer"
            )
        if too_long or untrained:
            events.say(
                f"{name}: left out {too_long:,} conversations longer than {max_tokens:,} tokens and {untrained:,} without a "
                f"trained token; {len(lengths):,} stay"
            )
        _finish(aside, kind, lengths, size)


def _finish(folder: Path, kind: np.dtype, lengths: list[int], size: int) -> None:
    np.save(folder / "offsets.npy", np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64))
    write_json(folder / "meta.json", {"dtype": kind.name, "documents": len(lengths), "tokens": sum(lengths), "bytes": size})


class TokenShards:
    """A folder of token shards, read through the page cache."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        meta = read_json(folder / "meta.json")
        self.documents: int = meta["documents"]
        self.bytes: int = meta["bytes"]
        """UTF-8 bytes of the text."""
        self._dtype = np.dtype(meta["dtype"])
        self.offsets: np.ndarray = np.load(folder / "offsets.npy")

    @property
    def tokens(self) -> int:
        return int(self.offsets[-1])

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each document, int64 [documents]."""
        return np.diff(self.offsets)

    @cached_property
    def stream(self) -> np.ndarray:
        """All ids, one document after the other."""
        return np.memmap(self.folder / "tokens.bin", dtype=self._dtype, mode="r") if self.tokens else np.empty(0, self._dtype)

    @cached_property
    def mask(self) -> np.ndarray | None:
        """Of conversations: uint8 beside `stream`; None for text, where every token is trained on."""
        file = self.folder / "mask.bin"
        return np.memmap(file, dtype=np.uint8, mode="r") if file.exists() else None
