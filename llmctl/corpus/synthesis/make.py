"""Synthetic documents from real ones."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import islice
from typing import Literal

from llmctl.corpus.documents import Document
from llmctl.corpus.synthesis.counting import CountingTask
from llmctl.corpus.synthesis.generator import Generator
from llmctl.corpus.synthesis.passages import RewritingTask
from llmctl.corpus.synthesis.tally import Tally

Kind = Literal["cwe", "rex"]
Task = CountingTask | RewritingTask
TOGETHER = 8  # documents whose requests go to the generator at once: some 60 requests
FEWEST_TASKS = 2  # of a document: below, it is a long document and hardly a task


def synthesize(
    kind: Kind,
    documents: Iterable[Document],
    generator: Generator,
    seed: int,
    tally: Tally | None = None,
    most: int | None = None,
    together: int = TOGETHER,
) -> Iterator[Document]:
    """A document with tasks woven in for each that gives two tasks and more, in their order; at most `most`.

    Without what was woven in, the text is the original's. The id is the original's with the kind behind it. What is asked depends
    on the seed and the document alone, so with the template writer a document's outcome does as well, whatever stands beside it.
    `tally` counts what was made and dropped.

    Raises:
        UserError: an endpoint no longer answers.
    """
    tally = tally if tally is not None else Tally()
    source = iter(documents)
    while most is None or tally.documents_out < most:
        # Near the end no more is asked for than can still be taken.
        number = together if most is None else min(together, most - tally.documents_out)
        batch = list(islice(source, number))
        if not batch:
            return
        yield from _written(kind, batch, generator, seed, tally)


def _written(kind: Kind, batch: list[Document], generator: Generator, seed: int, tally: Tally) -> list[Document]:
    make = CountingTask if kind == "cwe" else RewritingTask
    tasks: list[tuple[Document, Task]] = []
    for document in batch:
        tally.documents_in += 1
        task = make(document, seed)
        if task.unfit:
            tally.left_out[task.unfit] += 1
        else:
            tasks.append((document, task))
    requests = [task.requests() for _, task in tasks]
    replies = iter(generator.write([request for each in requests for request in each]))
    made = []
    for (document, task), asked in zip(tasks, requests, strict=True):
        tally.asked += len(asked)
        text, kept = task.text(list(islice(replies, len(asked))), tally)
        if kept < FEWEST_TASKS:
            tally.left_out[f"fewer than {FEWEST_TASKS} good tasks"] += 1
            tally.dropped.update({"good, but alone in its document": kept} if kept else {})
            continue
        tally.kept += kept
        tally.documents_out += 1
        made.append(replace(document, text=text, id=f"{document.id}-{kind}"))
    return made
