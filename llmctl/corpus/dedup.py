"""[corpus.dedup]: drop the copies among a corpus's training documents, and keep what was dropped where it can be looked at."""

import itertools
import shutil
from pathlib import Path

from llmctl import events
from llmctl.corpus.attrition import Attrition
from llmctl.corpus.documents import read_documents
from llmctl.corpus.duplicates import find_copies
from llmctl.corpus.pool import names_of, writing_pool
from llmctl.corpus.rewriting import rewriting
from llmctl.corpus.snapshot import Counts
from llmctl.recipe.corpus_schema import CorpusTable, DedupTable


def drop_copies(
    corpus: Path, sources: list[str], table: CorpusTable, rules: DedupTable, counts: Counts, attrition: Attrition
) -> None:
    """Rewrite the training documents of `sources` without the copies of one another. `rejects/SOURCE/copies.jsonl.zst` holds
    those with the rule, the document that stays and the similarity to it."""
    pool = corpus / ".pools" / "train"
    try:
        with writing_pool(pool) as write:
            for source in sources:
                for document in read_documents(corpus, source, "train"):
                    write(document)
        copies, total = find_copies(pool, rules, table.engine, table.ray_address)
        ids = names_of(pool, {copy.kept for copy in copies.values()})
    finally:
        shutil.rmtree(pool, ignore_errors=True)
    events.say(f"{len(copies):,} of {total:,} documents are copies of another")
    places = itertools.count()
    for source in sources:
        with rewriting(corpus, source, "copies", counts[source], attrition) as rewrite:
            for document in rewrite.items:
                copy = copies.get(next(places))
                if copy is None:
                    rewrite.keep(document)
                else:
                    why = {"kept": ids[copy.kept], "similarity": round(copy.similarity, 3)}
                    rewrite.drop(document, copy.rule, why)
