"""Score a corpus's training documents by its classifiers, drop the lowest, and repeat the best."""

import hashlib
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from llmctl import events
from llmctl.corpus.attrition import Attrition
from llmctl.corpus.classifiers import Classifier, train
from llmctl.corpus.documents import read_documents
from llmctl.corpus.engine import in_order, load_daft, streamed
from llmctl.corpus.pool import writing_pool
from llmctl.corpus.rewriting import rewriting
from llmctl.corpus.snapshot import Counts
from llmctl.corpus.upsampling import BUCKETS, Curve, solve
from llmctl.recipe.corpus_schema import CorpusTable


def scores_file(corpus: Path, source: str) -> Path:
    return corpus / "scores" / f"{source}.parquet"


def score_corpus(corpus: Path, sources: list[str], table: CorpusTable, counts: Counts, attrition: Attrition) -> dict[str, Any]:
    """Train the classifiers of the recipe, and write `scores/SOURCE.parquet`: label, score and vigintile (1 to 20) of every
    training document. What is dropped for its score is in `rejects/SOURCE/scores.jsonl.zst`. Returns the classifiers'
    measures."""
    classifiers, found = [], {}
    for name, its_table in table.classifiers.items():
        classifier, found[name] = train(name, its_table, corpus, sources, corpus / "classifiers")
        classifiers.append(classifier)
    for source in sources:
        mine = [c for c in classifiers if not c.table.sources or source in c.table.sources]
        if mine:
            _score_source(corpus, source, mine, table, counts, attrition)
    return found


def _score_source(
    corpus: Path, source: str, classifiers: list[Classifier], table: CorpusTable, counts: Counts, attrition: Attrition
) -> None:
    import pyarrow
    import pyarrow.parquet

    rows = list(_judged(corpus, source, classifiers, table))
    columns: dict[str, list[Any]] = {name: [row[name] for row in rows] for name in ("id", "bytes")}
    ranks: dict[str, np.ndarray] = {}
    for classifier in classifiers:
        name = classifier.name
        scores = np.array([row[name]["score"] for row in rows])
        ranks[name] = percentiles(scores)
        columns |= {f"{name}_label": [row[name]["label"] for row in rows], f"{name}_score": scores.tolist()}
        columns[f"{name}_vigintile"] = (np.floor(ranks[name] * BUCKETS).astype(int) + 1).tolist()
    scores_file(corpus, source).parent.mkdir(exist_ok=True)
    pyarrow.parquet.write_table(pyarrow.table(columns), scores_file(corpus, source))
    for classifier in classifiers:
        if classifier.table.target is None:
            _tell_topics(source, classifier.name, columns[f"{classifier.name}_label"])
    _rewrite(corpus, source, classifiers, columns, ranks, table, counts, attrition)


def percentiles(scores: np.ndarray) -> np.ndarray:
    """Where each score stands among all, in [0, 1): equal ones in the order in which they come."""
    order = np.argsort(scores, kind="stable")
    places = np.empty(len(scores), dtype=np.int64)
    places[order] = np.arange(len(scores))
    return places / max(1, len(scores))


def text_percentiles(scores: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Share of the text that scores lower than the middle of each document, in [0, 1]."""
    order = np.argsort(scores, kind="stable")
    ends = np.cumsum(sizes[order])
    shares = np.empty(len(scores))
    shares[order] = (ends - sizes[order] / 2) / max(1, ends[-1])
    return shares


def _judged(corpus: Path, source: str, classifiers: list[Classifier], table: CorpusTable) -> Iterator[dict[str, Any]]:
    """`id` and `bytes` of every document, with label and score by classifier."""
    daft = load_daft(table.engine, table.ray_address)
    kind = daft.DataType.struct({"label": daft.DataType.string(), "score": daft.DataType.float64()})

    def judging(classifier: Classifier) -> Any:
        @daft.func.batch(return_dtype=kind, batch_size=500)
        def of_texts(texts: Any) -> Any:
            return [{"label": label, "score": score} for label, score in classifier.scores(texts.to_pylist())]

        return of_texts

    pool = corpus / ".pools" / f"{source}.scored"
    try:
        with writing_pool(pool) as write:
            for document in read_documents(corpus, source, "train"):
                write(document)
        judged = [judging(c)(daft.col("text")).alias(c.name) for c in classifiers]
        size = daft.col("text").length_bytes().alias("bytes")
        columns = [daft.col("n"), daft.col("id"), size, *judged]
        yield from in_order(streamed(daft, pool, lambda frame: frame.select(*columns)))
    finally:
        shutil.rmtree(pool, ignore_errors=True)


def _tell_topics(source: str, name: str, labels: list[str]) -> None:
    rows = tuple((label, f"{count:,}", f"{count / len(labels):.1%}") for label, count in Counter(labels).most_common())
    events.emit(events.Table(f"{source} by {name}", ("label", "documents", "share"), rows))


def _rewrite(
    corpus: Path,
    source: str,
    classifiers: list[Classifier],
    columns: dict[str, list[Any]],
    ranks: dict[str, np.ndarray],
    table: CorpusTable,
    counts: Counts,
    attrition: Attrition,
) -> None:
    """Write the documents again without what is dropped, and the best ones as often as the upsampling says."""
    upsample, count = table.sources[source].upsample, counts[source]
    times = None
    if upsample is not None:
        curve = solve(upsample.size / max(1, count["train_bytes"]), upsample.drop_lowest, upsample.most)
        times = curve(text_percentiles(np.array(columns[f"{upsample.classifier}_score"]), np.array(columns["bytes"])))
        _tell_curve(source, curve)
    with rewriting(corpus, source, "scores", count, attrition) as rewrite:
        for place, document in enumerate(rewrite.items):
            low = next((c.name for c in classifiers if ranks[c.name][place] < c.table.drop_lowest), None)
            often = 1 if times is None else taken(float(times[place]), document.id)
            if low is not None or not often:
                judge = low or (upsample.classifier if upsample is not None else "")
                rule = f"low {low}" if low is not None else "not taken by upsampling"
                rewrite.drop(document, rule, {"score": columns[f"{judge}_score"][place]})
                continue
            for copy in range(often):
                rewrite.keep(document if not copy else replace(document, id=f"{document.id}#{copy + 1}"))


def taken(times: float, name: str) -> int:
    """A whole number of times that is `times` on average, chosen by the hash of the document's name."""
    whole = int(times)
    place = int.from_bytes(hashlib.sha256(f"upsample/{name}".encode()).digest()[:8], "big") / 2**64
    return whole + (place < times - whole)


def _tell_curve(source: str, curve: Curve) -> None:
    means = curve.buckets
    shown = tuple((f"{5 * place}-{5 * place + 5} %", f"{mean:.2f}") for place, mean in enumerate(means) if mean > 0)
    title = f"{source}: upsampling (x - {curve.start:g})^{curve.power:.2f} e^({curve.rate:.2f} (x - {curve.start:g}))"
    events.emit(events.Table(title, ("percentile of the score", "times taken"), shown))
