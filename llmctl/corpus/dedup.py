"""[corpus.dedup]: drop the copies among a corpus's training documents, and keep what was dropped where it can be looked at."""

import itertools
import os
from dataclasses import asdict
from pathlib import Path

from llmctl import events
from llmctl.corpus.attrition import Attrition
from llmctl.corpus.documents import documents_file, read_documents, rejects_file, writing, writing_rows
from llmctl.corpus.duplicates import find_copies
from llmctl.corpus.pool import writing_pool
from llmctl.corpus.snapshot import Counts
from llmctl.recipe.corpus_schema import CorpusTable, DedupTable


def drop_copies(
    corpus: Path, sources: list[str], table: CorpusTable, rules: DedupTable, counts: Counts, attrition: Attrition
) -> None:
    """Rewrite the training documents of `sources` without the copies of one another. `rejects/SOURCE/copies.jsonl.zst` holds
    those with the rule, the document that stays and the similarity to it."""
    import pyarrow.parquet

    file = corpus / ".pools" / "train.parquet"
    try:
        with writing_pool(file) as write:
            for source in sources:
                for document in read_documents(corpus, source, "train"):
                    write(document)
        copies, total = find_copies(file, rules, table.engine, table.ray_address)
        ids = pyarrow.parquet.read_table(file, columns=["id"])["id"]
    finally:
        file.unlink(missing_ok=True)
    events.say(f"{len(copies):,} of {total:,} documents are copies of another")
    places = itertools.count()
    for source in sources:
        file = documents_file(corpus, source, "train")
        aside = file.with_name(f"deduplicated-{file.name}")
        count = counts[source]
        count["train_documents"] = count["train_bytes"] = 0
        with writing(aside) as keep, writing_rows(rejects_file(corpus, source, "copies")) as reject:
            for document in read_documents(corpus, source, "train"):
                copy, size = copies.get(next(places)), len(document.text.encode())
                if copy is None:
                    keep(document)
                    count["train_documents"] += 1
                    count["train_bytes"] += size
                else:
                    why = {"rule": copy.rule, "kept": ids[copy.kept].as_py(), "similarity": round(copy.similarity, 3)}
                    reject(asdict(document) | why)
                    attrition.add(source, "copies", copy.rule, size)
        os.replace(aside, file)
