"""Read the sources of text, and drop what the filters do not let pass: on the engine, a batch of documents at a time."""

import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from llmctl import events
from llmctl.corpus.attrition import Attrition
from llmctl.corpus.documents import Document, rejects_file, writing_rows
from llmctl.corpus.engine import in_order, load_daft, streamed
from llmctl.corpus.fasttext_models import load_model, share_of
from llmctl.corpus.personal import masked
from llmctl.corpus.pool import COLUMNS, writing_pool
from llmctl.corpus.sources import Source, read_source
from llmctl.corpus.urls import read_domains
from llmctl.recipe.corpus_schema import CorpusTable
from llmctl.recipe.filter_schema import FilterTable


@contextmanager
def gathered(source: Source, table: CorpusTable, out: Path, attrition: Attrition, count: Counter[str]) -> Iterator[Path]:
    """A source as a pool of documents that have passed its filter, for as long as the block lasts. `count` gets what was
    masked in them.

    Raises:
        UserError: the source cannot be read.
    """
    read, passed = (out / ".pools" / f"{source.name}.{name}" for name in ("read", "passed"))
    rules = source.table.filter or table.filter
    try:
        size, most = 0, source.table.max_bytes
        with writing_pool(read) as write:
            for number, document in enumerate(read_source(source, attrition)):
                if table.mask:
                    document = replace(document, text=masked(document.text, table.mask, count))
                write(document)
                size += len(document.text)
                if number % 200 == 0:
                    events.progress(f"reading {source.name}", size, most, "bytes")
        if rules is not None:
            filter_pool(source.name, read, passed, rules, table, out, attrition)
            shutil.rmtree(read)
        yield passed if rules is not None else read
    finally:
        for pool in (read, passed):
            shutil.rmtree(pool, ignore_errors=True)


def filter_pool(
    name: str, pool: Path, passed: Path, rules: FilterTable, table: CorpusTable, out: Path, attrition: Attrition
) -> None:
    """Write the documents of `pool` that pass to `passed`, edited where lines are cut, and the others to
    `rejects/SOURCE/filter.jsonl.zst` with the rule and what it measured."""
    if rules.language_model is not None:
        load_model(rules.language_model)  # a mistake is told here, and not by a worker
    for file in rules.blocked_domains:
        read_domains(file)
    daft = load_daft(table.engine, table.ray_address)
    verdict_of = verdicts(daft, rules)(daft.col("text"), daft.col("url"))
    judged = streamed(daft, pool, lambda frame: frame.with_column("verdict", verdict_of))
    with writing_pool(passed) as keep, writing_rows(rejects_file(out, name, "filter")) as reject:
        for number, row in enumerate(in_order(judged)):
            document = Document(**{column: row[column] for column in COLUMNS})
            verdict, size = row["verdict"], document.size
            if verdict["rule"] is not None:
                attrition.add(name, "filter", verdict["rule"], size, text=document.text)
                reject(asdict(document) | {"rule": verdict["rule"], "value": round(verdict["value"], 4)})
            elif verdict["text"] is not None:
                attrition.add(name, "filter", "lines and phrases cut", size - len(verdict["text"].encode()), documents=0)
                keep(replace(document, text=verdict["text"]))
            else:
                keep(document)
            if number % 200 == 0:
                events.progress(f"filtering {name}", number, None, "documents")


def verdicts(daft: Any, rules: FilterTable) -> Any:
    """`judge` as a function of the columns of texts and of their addresses."""
    kind = daft.DataType.struct(
        {"rule": daft.DataType.string(), "value": daft.DataType.float64(), "text": daft.DataType.string()}
    )

    @daft.func.batch(return_dtype=kind, batch_size=500)
    def of_texts(texts: Any, urls: Any) -> Any:
        from llmctl.corpus.filters import judge

        def language(texts: list[str]) -> list[float]:
            return share_of(load_model(str(rules.language_model)), texts, rules.languages)

        known = language if rules.language_model is not None else None
        found = judge(texts.to_pylist(), rules, known, urls.to_pylist())
        return [{"rule": verdict.rule, "value": verdict.value, "text": verdict.text} for verdict in found]

    return of_texts
