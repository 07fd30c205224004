"""`corpus.html`: what a corpus is made of and what was left out, as one page that opens from disk, without network."""

import math
from collections import Counter, defaultdict
from collections.abc import Iterator
from html import escape
from itertools import islice
from pathlib import Path
from typing import Any

from llmctl.corpus.documents import read_documents, read_rows_of
from llmctl.corpus.shown import shown_text
from llmctl.page import PALETTE, bar, table, whole_page
from llmctl.recipe.schema import Recipe, TrainTable
from llmctl.runs.files import write_text

SAMPLES = 3  # rejects that are shown of each rule and source
SHOWN = 500  # characters of a document
CLUSTERS = 10
COUNTED = 50_000  # documents of a source whose lengths are counted
WIDTH, HEIGHT = 420, 120  # of a histogram, in pixels


def write_page(corpus: Path, recipe: Recipe, counts: dict[str, dict[str, int]], attrition: list[dict[str, Any]]) -> None:
    """Write `corpus.html` into a corpus's folder."""
    parts = [
        f"<h1>Corpus of {escape(recipe.name)}</h1>",
        "<h2>What is there</h2>",
        source_table(counts),
        "<h2>What was left out</h2>",
        attrition_table(attrition),
        *_section("The mix of every stage", _mixes(recipe)),
        *_section("Lengths", _lengths(corpus, recipe)),
        *_section("Scores", _scores(corpus)),
        *_section("Largest clusters of copies", _clusters(corpus)),
        *_section("Samples of what was dropped", _samples(corpus)),
    ]
    write_text(corpus / "corpus.html", whole_page(f"{recipe.name}: corpus", parts))


def _section(title: str, parts: Iterator[str]) -> list[str]:
    found = list(parts)
    return [f"<h2>{title}</h2>", *found] if found else []


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.2f} MB"


def source_table(counts: dict[str, dict[str, int]]) -> str:
    keys = ("train_documents", "train_bytes", "heldout_documents", "heldout_bytes")
    rows = []
    for name, count in counts.items():
        documents, size, held, held_size = (count.get(key, 0) for key in keys)
        rows.append([name, f"{documents:,}", _megabytes(size), f"{held:,}", _megabytes(held_size)])
    return table(["source", "documents", "text", "held out", "its text"], rows)


def attrition_table(attrition: list[dict[str, Any]]) -> str:
    if not attrition:
        return "<p>Nothing.</p>"
    rows = [[r["source"], r["step"], r["rule"], f"{r['documents']:,}", _megabytes(r["bytes"]), _tokens(r)] for r in attrition]
    return table(["source", "step", "rule", "documents", "text", "tokens, about"], rows)


def _tokens(row: dict[str, Any]) -> str:
    return "" if row["tokens"] is None else f"{row['tokens']:,}"


def _mixes(recipe: Recipe) -> Iterator[str]:
    colours = {name: PALETTE[place % len(PALETTE)] for place, name in enumerate(recipe.corpus.sources)}
    for stage in recipe.stages.values():
        if not isinstance(stage, TrainTable):
            continue
        parts = sorted(stage.mix.items(), key=lambda item: -item[1])
        yield f"<p>{escape(stage.name)}</p>{bar(parts, colours)}"


def _lengths(corpus: Path, recipe: Recipe) -> Iterator[str]:
    for source in recipe.text_sources:
        lengths = (len(document.text) for document in islice(read_documents(corpus, source, "train"), COUNTED))
        bins = Counter(int(math.log2(length)) if length else 0 for length in lengths)
        if bins:
            low, high = min(bins), max(bins)
            names = [f"{2**power:,}" for power in range(low, high + 1)]
            yield _histogram(f"{source}: documents by characters", names, [bins[p] for p in range(low, high + 1)])


def _scores(corpus: Path) -> Iterator[str]:
    import numpy as np
    import pyarrow.parquet

    for file in sorted((corpus / "scores").glob("*.parquet")):
        table = pyarrow.parquet.read_table(file)
        for column in table.column_names:
            if column.endswith("_score"):
                counts, edges = np.histogram(table[column].to_numpy(), bins=20, range=(0, 1))
                title = f"{file.stem}: documents by score of {column.removesuffix('_score')}"
                yield _histogram(title, [f"{edge:.2f}" for edge in edges[:-1]], counts.tolist())


def _histogram(title: str, names: list[str], values: list[int]) -> str:
    step, most = WIDTH / len(values), max(values)
    every = math.ceil(len(values) / 7)
    bars = []
    for place, (name, value) in enumerate(zip(names, values, strict=True)):
        height = HEIGHT * value / most
        bars.append(
            f"<rect x='{place * step:.1f}' y='{HEIGHT - height:.1f}' width='{step - 1:.1f}' height='{height:.1f}' "
            f"fill='{PALETTE[0]}'><title>{escape(name)}: {value:,}</title></rect>"
        )
        if place % every == 0:
            bars.append(f"<text x='{place * step:.1f}' y='{HEIGHT + 12}'>{escape(name)}</text>")
    drawn = f"<svg width='{WIDTH}' height='{HEIGHT + 16}' viewBox='0 0 {WIDTH} {HEIGHT + 16}' style='max-width:100%;overflow:visible'>{''.join(bars)}</svg>"
    return f"<figure>{drawn}<figcaption>{escape(title)}</figcaption></figure>"


def read_rejects(corpus: Path) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """(source, step, row) of everything that was dropped."""
    for file in sorted((corpus / "rejects").glob("*/*.jsonl.zst")):
        step = file.name.removesuffix(".jsonl.zst")
        for row in read_rows_of(file):
            yield file.parent.name, step, row


def _clusters(corpus: Path) -> Iterator[str]:
    members: defaultdict[str, list[str]] = defaultdict(list)
    for _, step, row in read_rejects(corpus):
        if step == "copies":
            members[row["kept"]].append(f"{row['id']} ({row['similarity']:.2f})")
    for kept, copies in sorted(members.items(), key=lambda item: -len(item[1]))[:CLUSTERS]:
        listed = "<br>".join(escape(name) for name in copies[:50])
        yield f"<details><summary>{escape(kept)} and {len(copies):,} more</summary>{listed}</details>"


def _samples(corpus: Path) -> Iterator[str]:
    shown: Counter[tuple[str, str]] = Counter()
    by_rule: defaultdict[str, list[str]] = defaultdict(list)
    for source, step, row in read_rejects(corpus):
        if shown[source, row["rule"]] == SAMPLES:
            continue
        shown[source, row["rule"]] += 1
        text = shown_text(row)
        why = ", ".join(
            f"{key} {row[key]}" for key in ("value", "similarity", "kept", "like", "score", "question", "share") if key in row
        )
        title = f"{escape(row['id'])}: {escape(why)}"
        by_rule[f"{step}: {row['rule']}"].append(f"<p>{title}</p><pre>{escape(text[:SHOWN])}</pre>")
    for rule, found in by_rule.items():
        yield f"<details><summary>{escape(rule)}</summary>{''.join(found)}</details>"
