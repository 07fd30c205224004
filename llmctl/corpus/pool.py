"""Documents on their way through the steps of a corpus: a folder of Parquet files that the engine reads in parallel."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from llmctl.corpus.documents import Document

GROUP_DOCUMENTS, GROUP_BYTES = 2_000, 8_000_000  # of a row group, which is what is handed to the engine at a time
PART_BYTES = 64_000_000  # of a file, which is what the engine holds at a time
COLUMNS = ("id", "text", "source", "path", "date", "url")


@contextmanager
def writing_pool(folder: Path) -> Iterator[Callable[[Document], None]]:
    """A function that appends a document to the pool `folder`: a row of `n`, its place, with the fields of the document."""
    import pyarrow
    import pyarrow.parquet

    fields = [("n", pyarrow.int64()), *((name, pyarrow.large_string()) for name in COLUMNS)]
    schema = pyarrow.schema(fields)
    rows: list[Document] = []
    written = size = part_size = parts = 0
    folder.mkdir(parents=True)
    writer: Any = None

    def flush() -> None:
        nonlocal written, size, part_size, parts, writer
        if writer is None:
            writer = pyarrow.parquet.ParquetWriter(folder / f"part-{parts:05d}.parquet", schema, compression="zstd")
        columns: list[Any] = [range(written, written + len(rows))]
        columns += [[getattr(row, name) for row in rows] for name in COLUMNS]
        writer.write_table(
            pyarrow.table([pyarrow.array(c, t) for c, t in zip(columns, schema.types, strict=True)], schema=schema)
        )
        written, part_size = written + len(rows), part_size + size
        size = 0
        rows.clear()
        if part_size >= PART_BYTES:
            finish()

    def finish() -> None:
        nonlocal part_size, parts, writer
        writer.close()
        writer, part_size, parts = None, 0, parts + 1

    def write(document: Document) -> None:
        nonlocal size
        rows.append(document)
        size += len(document.text)
        if len(rows) == GROUP_DOCUMENTS or size >= GROUP_BYTES:
            flush()

    try:
        yield write
        if rows or not parts:  # a pool of nothing has a part as well
            flush()
    finally:
        if writer is not None:
            finish()


def parts_of(pool: Path) -> list[Path]:
    return sorted(pool.glob("part-*.parquet"))


def count_of(pool: Path) -> int:
    """Documents."""
    import pyarrow.parquet

    return sum(pyarrow.parquet.read_metadata(part).num_rows for part in parts_of(pool))


def read_pool(pool: Path) -> Iterator[Document]:
    import pyarrow.parquet

    for part in parts_of(pool):
        for batch in pyarrow.parquet.ParquetFile(part).iter_batches(batch_size=100, columns=list(COLUMNS)):
            for row in batch.to_pylist():
                yield Document(**row)


def names_of(pool: Path, places: set[int]) -> dict[int, str]:
    """The `id` of the documents at `places`."""
    import pyarrow.parquet

    names: dict[int, str] = {}
    for part in parts_of(pool):
        table = pyarrow.parquet.read_table(part, columns=["n", "id"])
        rows = zip(table["n"].to_pylist(), table["id"].to_pylist(), strict=True)
        names.update((place, name) for place, name in rows if place in places)
    return names
