"""[corpus.decontaminate]: drop training documents that hold a question of the evaluation."""

import re
from pathlib import Path
from typing import Any

import numpy as np

from llmctl import events
from llmctl.corpus.attrition import Attrition
from llmctl.corpus.rewriting import rewriting
from llmctl.corpus.segments import BATCH_CHARACTERS, Batch, batches, mixed
from llmctl.corpus.snapshot import Counts
from llmctl.recipe.corpus_schema import DecontaminateTable
from llmctl.suites.task import Task

SHOWN = 200  # characters of a question that are written beside what it drops


class Questions:
    """The word n-grams of all questions with their answers, examples of prompts included."""

    def __init__(self, tasks: list[Task], table: DecontaminateTable) -> None:
        self.table = table
        self.names = [f"{t.name} {place}" for t in tasks for place, _ in enumerate((*t.questions, *t.pool))]
        self.texts = [question.solved for task in tasks for question in (*task.questions, *task.pool)]
        keys, owners = ngrams(self.texts, table.ngram)
        # Once for each question that has it.
        pairs = np.unique(np.stack([keys, owners.astype(np.uint64)]), axis=1)
        self.keys, self.owners = pairs[0], pairs[1].astype(np.int64)
        self.sizes = np.bincount(self.owners, minlength=len(self.texts))

    def held_by(self, texts: list[str]) -> list[tuple[int, float] | None]:
        """Of each text the question that it holds most of, with the share of the question's n-grams; None: of none enough."""
        keys, documents = ngrams(texts, self.table.ngram)
        known = np.isin(keys, self.keys)
        keys, documents = keys[known], documents[known]
        found: dict[tuple[int, int], set[int]] = {}
        ranges = (np.searchsorted(self.keys, keys, side=side).tolist() for side in ("left", "right"))
        for document, key, low, high in zip(documents.tolist(), keys.tolist(), *ranges, strict=True):
            for question in self.owners[low:high].tolist():
                found.setdefault((document, question), set()).add(key)
        held: list[tuple[int, float] | None] = [None] * len(texts)
        for (document, question), mine in sorted(found.items()):
            share, best = len(mine) / float(self.sizes[question]), held[document]
            if share >= self.table.share and (best is None or share > best[1]):
                held[document] = (question, share)
        return held

    def described(self, held: tuple[int, float]) -> dict[str, Any]:
        """Which question it is, for the row of what it drops."""
        question, share = held
        return {"question": self.names[question], "share": round(share, 3), "asked": self.texts[question][:SHOWN]}


def ngrams(texts: list[str], n: int) -> tuple[np.ndarray, np.ndarray]:
    """Hashes of the n-grams of words (letters, digits and underscores, in lower case), and the text of each."""
    batch = Batch([re.sub(r"\W+", " ", text.lower()) for text in texts])
    hashes, documents = batch.hashes(batch.words), batch.words.documents
    count = max(0, len(hashes) - n + 1)
    keys = np.zeros(count, dtype=np.uint64)
    for offset in range(n):
        keys = mixed(keys ^ hashes[offset : offset + count])
    inside = documents[:count] == documents[n - 1 :][:count]
    return keys[inside], documents[:count][inside]


def decontaminate(
    corpus: Path, sources: dict[str, bool], tasks: list[Task], table: DecontaminateTable, counts: Counts, attrition: Attrition
) -> None:
    """Drop what holds at least `share` of a question's n-grams from `sources` (whether they are of conversations, by name).
    `rejects/SOURCE/decontamination.jsonl.zst` says which question it was."""
    questions = Questions(tasks, table)
    for source, chat in sources.items():
        with rewriting(corpus, source, "decontamination", counts[source], attrition, chat) as rewrite:
            for batch in batches(rewrite.items, lambda item: len(item.text), BATCH_CHARACTERS):
                for item, held in zip(batch, questions.held_by([item.text for item in batch]), strict=True):
                    if held is None:
                        rewrite.keep(item)
                    else:
                        suite = questions.names[held[0]].rpartition(" ")[0]
                        rewrite.drop(item, f"holds a question of {suite}", questions.described(held))
                events.progress(f"decontaminating {source}", rewrite.count["train_documents"], None, "documents")
