"""The long documents of a long-context stage: sorted by length, filtered by how far gzip compresses them, drawn by bucket."""

import os
from collections.abc import Iterator
from typing import Any

import numpy as np

from llmctl import events
from llmctl.errors import UserError
from llmctl.recipe.schema import LongContextTable
from llmctl.runs.files import staged_file
from llmctl.stages.context import table_of
from llmctl.stages.training import Stage
from llmctl.tokens.buckets import Bucket, buckets_of, compressed_sizes, draw, powers_of_two, within
from llmctl.tokens.shards import TokenShards

Pools = dict[str, list[Bucket]]
"""The buckets of every source, all in one order."""

MOST_SPARE = 8  # times the tokens that the stage sees; more documents make its rows hardly more various, and cost memory


def long_parts(stage: Stage, share: float) -> list[Any]:
    """The `DataPart`s that make `share` of the stage's tokens from natural long documents, one for each source that has any.

    Raises:
        UserError: no document is long enough, or those of a bucket would be repeated more often than allowed.
    """
    from llmctl.train.job import DataPart

    table = table_of(stage)
    found = {source: in_buckets(table, TokenShards(stage.shards(source))) for source in table.long_mix or table.mix}
    kept = {source: [filtered(stage, source, bucket) for bucket in buckets] for source, buckets in found.items()}
    require_long(stage, found, kept)
    wanted = tokens_wanted(table, kept, share)
    check_repetition(stage, kept, wanted)
    times = spare(table, kept, wanted)
    drawn = {
        source: [
            draw(b, times * n, capacity(table), seed_of(stage, source, b.low))
            for b, n in zip(buckets, wanted[source], strict=True)
        ]
        for source, buckets in kept.items()
    }
    show(stage, found, kept, wanted, drawn)
    parts, total = [], sum(map(sum, wanted.values()))
    for source, documents in drawn.items():
        if sum(map(len, documents)):
            file = stage.folder / "data" / "long" / f"{source}.npy"
            save(file, np.concatenate(documents))
            truncate = table.too_long == "truncate"
            of_it = share * sum(wanted[source]) / total
            parts.append(DataPart(source, str(stage.shards(source)), of_it, "best_fit", str(file), truncate, "long"))
    return parts


def in_buckets(table: LongContextTable, shards: TokenShards) -> list[Bucket]:
    """The buckets of the stage, without the documents that are too long for it where these are dropped."""
    buckets = buckets_of(shards.lengths, table.bucket_edges)
    if table.too_long == "drop":
        buckets = [bucket.only(bucket.lengths <= table.seq_len) for bucket in buckets]
    return buckets


def require_long(stage: Stage, found: Pools, kept: Pools) -> None:
    """Raises:
    UserError: a bucket that the stage is to draw from has no document. Says how long those are that there are.
    """
    table = table_of(stage)
    empty = [n for n, buckets in enumerate(zip(*kept.values(), strict=True)) if not sum(b.tokens for b in buckets)]
    if (not table.buckets and len(empty) < len(table.bucket_edges)) or not empty:
        return
    bucket, there = next(iter(found.values()))[empty[0]], []
    for source in found:
        counts = [f"{b.name} {len(b.documents):,}" for b in powers_of_two(TokenShards(stage.shards(source)).lengths, 64)]
        there.append(f"{source} has {', '.join(counts) or 'none of 64 tokens and more'}")
    filtered_out = sum(len(buckets[empty[0]].documents) for buckets in found.values())
    why = f", {filtered_out} were left out for their compressibility" if filtered_out else ""
    why += f' (too_long = "drop" leaves out what has more than {table.seq_len:,})' if table.too_long == "drop" else ""
    raise UserError(
        f"[{stage.name}] no document of {bucket.name} tokens is there{why}. "
        f"Documents by their tokens: {'; '.join(there)}. Name sources of longer documents in long_mix, set buckets to lengths "
        "that there are, or long_share = 0"
    )


def filtered(stage: Stage, source: str, bucket: Bucket) -> Bucket:
    """Without the documents that gzip compresses most and least (Olmo 3: 20 % each)."""
    table = table_of(stage)
    most, least = table.drop_most_compressible, table.drop_least_compressible
    if not len(bucket.documents) or not most + least:
        return bucket
    file = stage.folder / "data" / "long" / f"{source}-{bucket.low}-gzip.npy"
    if not file.exists():
        save(file, compressibility(stage, source, bucket))
    return bucket.only(within(np.load(file), most, least))


def compressibility(stage: Stage, source: str, bucket: Bucket) -> np.ndarray:
    """[documents] float64: compressed bytes for a byte."""
    what, total = f"compressing {source} {bucket.name}", len(bucket.documents)
    texts = texts_of(stage, source, bucket.documents)
    return compressed_sizes(texts, os.cpu_count() or 1, lambda done: events.progress(what, done, total, "documents"))


def texts_of(stage: Stage, source: str, documents: np.ndarray, most: int | None = None) -> Iterator[str]:
    """The text of documents, of each the first `most` tokens, read back from their ids; their middles are where they were."""
    from llmctl.tokens.tokenizer import load_tokenizer

    tokenizer, shards = load_tokenizer(str(stage.tokenizer)), TokenShards(stage.plain_shards(source))
    for document in documents.tolist():
        first, end = int(shards.offsets[document]), int(shards.offsets[document + 1])
        end = end if most is None else min(end, first + most)
        yield tokenizer.decode(np.asarray(shards.stream[first:end]), skip_special_tokens=True)


def capacity(table: LongContextTable) -> int:
    """Tokens that a document counts at most."""
    return table.seq_len if table.too_long == "truncate" else 2**62


def tokens_wanted(table: LongContextTable, kept: Pools, share: float) -> dict[str, list[float]]:
    """Tokens that the stage is to see of each bucket of each source.

    The buckets share them as the recipe says, or as they have them; the sources of a bucket as they have them. Of a stage that is
    measured in passes, every document is seen once at least.
    """
    there = {source: [float(bucket.counted(capacity(table))) for bucket in buckets] for source, buckets in kept.items()}
    of_bucket = [sum(sizes) for sizes in zip(*there.values(), strict=True)]
    asked = [table.buckets[edge] for edge in table.bucket_edges] if table.buckets else of_bucket
    if table.tokens is not None:
        total = table.tokens * share
    else:
        total = max(size / part for size, part in zip(of_bucket, asked, strict=True) if part) * sum(asked)
    wanted = [total * part / sum(asked) for part in asked]
    return {
        source: [want * size / whole if whole else 0.0 for want, size, whole in zip(wanted, sizes, of_bucket, strict=True)]
        for source, sizes in there.items()
    }


def check_repetition(stage: Stage, kept: Pools, wanted: dict[str, list[float]]) -> None:
    """Raises:
    UserError: documents would be repeated more often than `max_repetition` allows.
    """
    table = table_of(stage)
    for source, buckets in kept.items():
        most = table.most_repetitions(source)
        for bucket, tokens in zip(buckets, wanted[source], strict=True):
            there = bucket.counted(capacity(table))
            if tokens > most * there:
                raise UserError(
                    f"[{stage.name}] {source} has {there:,} tokens in documents of {bucket.name}, and the stage wants "
                    f"{tokens:,.0f}, {tokens / max(1, there):.1f} times as many (max_repetition = {most:g}); give the bucket a "
                    "smaller part, the stage a smaller long_share or fewer tokens, or name more sources in long_mix"
                )


def spare(table: LongContextTable, kept: Pools, wanted: dict[str, list[float]]) -> float:
    """How many times the wanted tokens are drawn, so that the stage's rows are of many documents: as far as every bucket has
    them, up to `MOST_SPARE` times. The buckets' parts stay what they are."""
    there = (
        bucket.counted(capacity(table)) / tokens
        for source, buckets in kept.items()
        for bucket, tokens in zip(buckets, wanted[source], strict=True)
        if tokens
    )
    return max(1.0, min([MOST_SPARE, *there]))


def seed_of(stage: Stage, *what: Any) -> int:
    """Of its own for all that is drawn: a later stage on the same source has other documents than the ones before."""
    return int.from_bytes("/".join(map(str, (stage.seed, stage.name, *what))).encode(), "big")


def show(stage: Stage, found: Pools, kept: Pools, wanted: dict[str, list[float]], drawn: dict[str, list[np.ndarray]]) -> None:
    """The buckets as a paper shows them: what there is, what the filter leaves, what the stage sees."""
    total = sum(map(sum, wanted.values()))
    lines = [
        (
            source,
            bucket.name,
            f"{len(bucket.documents):,}",
            f"{bucket.tokens:,}",
            f"{len(left.documents):,}",
            f"{len(chosen):,}",
            f"{tokens / total:.1%}",
            f"{tokens / max(1, left.counted(capacity(table_of(stage)))):.2f}",
        )
        for source, buckets in found.items()
        for bucket, left, tokens, chosen in zip(buckets, kept[source], wanted[source], drawn[source], strict=True)
    ]
    columns = ("source", "tokens each", "documents", "tokens", "after gzip", "drawn from", "share", "passes")
    events.emit(events.Table(f"{stage.name}: long documents by length", columns, tuple(lines)))


def save(file: Any, values: np.ndarray) -> None:
    with staged_file(file) as out:
        np.save(out, values)
