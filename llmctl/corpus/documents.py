"""Documents and conversations, and how a corpus keeps them: compressed JSON lines per source and split."""

import io
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import zstandard

Split = Literal["train", "heldout"]
LEVEL = 3  # of zstandard: writing stays faster than reading the sources


@dataclass(frozen=True, slots=True)
class Document:
    text: str
    id: str
    source: str
    path: str
    """Where it comes from, for people: a file relative to its source, `file:line`, or a row."""
    date: str = ""
    """As its source has it; later dates sort after earlier ones."""
    url: str = ""
    """The address that its source gives it."""

    @property
    def size(self) -> int:
        """UTF-8 bytes."""
        return len(self.text.encode())


@dataclass(frozen=True, slots=True)
class Conversation:
    messages: list[dict[str, Any]]
    """`role` (system, user, assistant, tool) and `content` of every turn; of an assistant's also `reasoning_content` and
    `tool_calls`, [{"type": "function", "function": {"name", "arguments"}}], of a tool's `name` and `tool_call_id`."""
    id: str
    source: str
    path: str
    kind: str = ""
    """What is asked, where the source knows it ("signature", "module", ...)."""
    tools: list[dict[str, Any]] = field(default_factory=list)
    """JSON schemas of the functions that the assistant may call."""

    @property
    def text(self) -> str:
        """What is said, thought and asked of tools, a turn after the other."""
        return "\n".join(part for message in self.messages for part in _said(message))

    @property
    def size(self) -> int:
        """UTF-8 bytes of that."""
        return sum(len(part.encode()) for message in self.messages for part in _said(message))


def _said(message: dict[str, Any]) -> list[str]:
    thought = [message["reasoning_content"]] if message.get("reasoning_content") else []
    calls = [json.dumps(call["function"], ensure_ascii=False) for call in message.get("tool_calls") or ()]
    return [*thought, message.get("content") or "", *calls]


def documents_file(corpus: Path, source: str, split: Split) -> Path:
    return corpus / "documents" / source / f"{split}.jsonl.zst"


def conversations_file(corpus: Path, source: str, split: Split) -> Path:
    return corpus / "conversations" / source / f"{split}.jsonl.zst"


def rejects_file(corpus: Path, source: str, step: str) -> Path:
    """Documents of a source that a step has dropped, each with the rule that did it."""
    return corpus / "rejects" / source / f"{step}.jsonl.zst"


@contextmanager
def writing_rows(file: Path) -> Iterator[Callable[[dict[str, Any]], None]]:
    """A function that appends a row to `file`, which gets its name when all is written and synced."""
    file.parent.mkdir(parents=True, exist_ok=True)
    aside = file.with_name(f".{file.name}.tmp")
    with aside.open("wb") as raw:
        # One thread, so that the same documents give the same bytes, and so the same key, everywhere.
        with zstandard.ZstdCompressor(LEVEL).stream_writer(raw, closefd=False) as packed:

            def write(row: dict[str, Any]) -> None:
                packed.write((json.dumps(row, ensure_ascii=False) + "\n").encode())

            yield write
        raw.flush()
        os.fsync(raw.fileno())
    os.replace(aside, file)


@contextmanager
def writing(file: Path) -> Iterator[Callable[[Document | Conversation], None]]:
    """The same for documents and conversations."""
    with writing_rows(file) as write:
        yield lambda item: write(asdict(item))


def read_rows_of(file: Path) -> Iterator[dict[str, Any]]:
    """What `writing_rows` has written."""
    with file.open("rb") as raw, zstandard.ZstdDecompressor().stream_reader(raw) as unpacked:
        for line in io.TextIOWrapper(unpacked, encoding="utf-8"):
            yield json.loads(line)


def read_documents(corpus: Path, source: str, split: Split) -> Iterator[Document]:
    file = documents_file(corpus, source, split)
    return (Document(**row) for row in read_rows_of(file)) if file.exists() else iter(())


def read_conversations(corpus: Path, source: str, split: Split) -> Iterator[Conversation]:
    file = conversations_file(corpus, source, split)
    return (Conversation(**row) for row in read_rows_of(file)) if file.exists() else iter(())
