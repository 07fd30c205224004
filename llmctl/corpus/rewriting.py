"""Write a source's training documents, or conversations, again without what a step drops."""

import os
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from llmctl.corpus.attrition import Attrition
from llmctl.corpus.documents import (
    Conversation,
    Document,
    conversations_file,
    documents_file,
    read_conversations,
    read_documents,
    rejects_file,
    writing,
    writing_rows,
)

Item = Document | Conversation


@dataclass(frozen=True, slots=True)
class Rewriting:
    source: str
    step: str
    items: Iterator[Any]
    """Documents, or conversations, as they were before."""
    count: Counter[str]
    attrition: Attrition
    _write: Callable[[Item], None]
    _reject: Callable[[dict[str, Any]], None]

    def keep(self, item: Item) -> None:
        self._write(item)
        self.count["train_documents"] += 1
        self.count["train_bytes"] += item.size

    def drop(self, item: Item, rule: str, why: dict[str, Any]) -> None:
        """Keep it with the reason in `rejects/SOURCE/STEP.jsonl.zst` instead."""
        self._reject(asdict(item) | {"rule": rule} | why)
        if isinstance(item, Conversation):
            self.count[f"kind_{item.kind or 'chat'}"] -= 1
        self.attrition.add(self.source, self.step, rule, item.size, text=item.text)


@contextmanager
def rewriting(
    corpus: Path, source: str, step: str, count: Counter[str], attrition: Attrition, chat: bool = False
) -> Iterator[Rewriting]:
    """What is kept within the block is the source's training set from its end on; `count` counts it."""
    file = (conversations_file if chat else documents_file)(corpus, source, "train")
    items = (read_conversations if chat else read_documents)(corpus, source, "train")
    aside = file.with_name(f"rewritten-{file.name}")
    count["train_documents"] = count["train_bytes"] = 0
    with writing(aside) as write, writing_rows(rejects_file(corpus, source, step)) as reject:
        yield Rewriting(source, step, items, count, attrition, write, reject)
    os.replace(aside, file)
