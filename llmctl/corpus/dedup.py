"""[corpus.dedup]: drop the copies among a corpus's training documents, and keep what was dropped where it can be looked at."""

import os
from collections import Counter
from dataclasses import asdict
from itertools import count
from pathlib import Path

from llmctl import events
from llmctl.corpus.documents import documents_file, read_documents, writing, writing_rows
from llmctl.corpus.duplicates import Settings, find_copies
from llmctl.corpus.engine import Engine, pool


def rejects_file(corpus: Path, source: str) -> Path:
    return corpus / "rejects" / source / "copies.jsonl.zst"


def drop_copies(
    corpus: Path,
    sources: list[str],
    settings: Settings,
    stats: dict[str, dict[str, int]],
    engine: Engine = "native",
    ray_address: str | None = None,
) -> None:
    """Rewrite the training documents of `sources` without the copies of one another. `rejects/SOURCE/copies.jsonl.zst` holds
    those with the rule, the document that stays and the similarity to it; `stats` gets the counts."""
    with pool(corpus, sources) as file:
        copies, total = find_copies(file, settings, engine, ray_address)
    events.say(f"{len(copies):,} of {total:,} documents are copies of another")
    kept = names_of(corpus, sources, {copy.kept for copy in copies.values()})
    places = count()
    for source in sources:
        counts = Counter({"dropped_duplicate": stats[source].get("dropped_duplicate", 0)})
        file = documents_file(corpus, source, "train")
        aside = file.with_name(f"deduplicated-{file.name}")
        with writing(aside) as keep, writing_rows(rejects_file(corpus, source)) as reject:
            for document in read_documents(corpus, source, "train"):
                copy = copies.get(next(places))
                if copy is None:
                    keep(document)
                    counts["train_documents"] += 1
                    counts["train_bytes"] += len(document.text.encode())
                else:
                    reject(
                        asdict(document) | {"rule": copy.rule, "kept": kept[copy.kept], "similarity": round(copy.similarity, 3)}
                    )
                    counts["dropped_near_copy" if copy.rule == "near copy" else "dropped_duplicate"] += 1
        os.replace(aside, file)
        stats[source] |= {name: number for name, number in counts.items() if number}


def names_of(corpus: Path, sources: list[str], wanted: set[int]) -> dict[int, str]:
    """Ids of the documents at these places of the pool."""
    places = count()
    documents = (document for source in sources for document in read_documents(corpus, source, "train"))
    return {place: document.id for place, document in zip(places, documents, strict=False) if place in wanted}
