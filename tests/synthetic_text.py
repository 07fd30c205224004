"""A text of any length in which words recur and paragraphs share phrases."""

import random

from llmctl.corpus.documents import Document

SUBJECTS = ("The harbour master", "An old lighthouse", "The tidal current", "A fishing vessel", "The signal station")
VERBS = ("watches over", "is charted beside", "was rebuilt near", "depends on", "gives way to")
OBJECTS = ("the northern channel", "every fishing vessel", "the stone breakwater", "the harbour master", "a tidal current")


def long_text(paragraphs: int, seed: int = 1) -> str:
    draw = random.Random(seed)

    def sentence() -> str:
        return f"{draw.choice(SUBJECTS)} {draw.choice(VERBS)} {draw.choice(OBJECTS)} in the year {draw.randint(1700, 1999)}."

    return "\n\n".join(" ".join(sentence() for _ in range(8)) for _ in range(paragraphs)) + "\n"


def document(paragraphs: int = 16, seed: int = 1) -> Document:
    return Document(long_text(paragraphs, seed), f"doc{seed}", "harbour", "harbour.txt")
