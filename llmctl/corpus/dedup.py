"""[corpus.dedup]: drop the copies among a corpus's training documents, and keep what was dropped where it can be looked at."""

import os
from collections import Counter
from dataclasses import asdict
from itertools import count
from pathlib import Path

from llmctl import events
from llmctl.corpus.documents import documents_file, read_documents, writing, writing_rows
from llmctl.corpus.duplicates import find_copies
from llmctl.corpus.engine import pool
from llmctl.recipe.corpus_schema import DedupTable, Engine


def rejects_file(corpus: Path, source: str) -> Path:
    return corpus / "rejects" / source / "copies.jsonl.zst"


def drop_copies(
    corpus: Path,
    sources: list[str],
    table: DedupTable,
    stats: dict[str, dict[str, int]],
    engine: Engine = "native",
    ray_address: str | None = None,
) -> None:
    """Rewrite the training documents of `sources` without the copies of one another. `rejects/SOURCE/copies.jsonl.zst` holds
    those with the rule, the document that stays and the similarity to it; `stats` gets the counts."""
    import pyarrow.parquet

    with pool(corpus, sources) as file:
        copies, total = find_copies(file, table, engine, ray_address)
        ids = pyarrow.parquet.read_table(file, columns=["id"])["id"]
    events.say(f"{len(copies):,} of {total:,} documents are copies of another")
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
                    why = {"rule": copy.rule, "kept": ids[copy.kept].as_py(), "similarity": round(copy.similarity, 3)}
                    reject(asdict(document) | why)
                    counts["dropped_near_copy" if copy.rule == "near copy" else "dropped_duplicate"] += 1
        os.replace(aside, file)
        stats[source] |= {name: number for name, number in counts.items() if number}
