"""Documents on their way through the steps of a corpus: a Parquet file that the engine reads in parallel."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from llmctl.corpus.documents import Document

GROUP_DOCUMENTS, GROUP_BYTES = 2_000, 8_000_000  # of a row group, which is what is handed to the engine at a time
COLUMNS = ("id", "text", "source", "path", "date")


@contextmanager
def writing_pool(file: Path) -> Iterator[Callable[[Document], None]]:
    """A function that appends a document to `file`: a row of `n`, its place, with the fields of the document."""
    import pyarrow
    import pyarrow.parquet

    fields = [("n", pyarrow.int64()), *((name, pyarrow.large_string()) for name in COLUMNS)]
    schema = pyarrow.schema(fields)
    rows: list[Document] = []
    written = size = 0
    file.parent.mkdir(parents=True, exist_ok=True)
    with pyarrow.parquet.ParquetWriter(file, schema, compression="zstd") as writer:

        def flush() -> None:
            nonlocal written, size
            columns: list[Any] = [range(written, written + len(rows))]
            columns += [[getattr(row, name) for row in rows] for name in COLUMNS]
            writer.write_table(
                pyarrow.table([pyarrow.array(c, t) for c, t in zip(columns, schema.types, strict=True)], schema=schema)
            )
            written += len(rows)
            size = 0
            rows.clear()

        def write(document: Document) -> None:
            nonlocal size
            rows.append(document)
            size += len(document.text)
            if len(rows) == GROUP_DOCUMENTS or size >= GROUP_BYTES:
                flush()

        yield write
        flush()


def read_pool(file: Path) -> Iterator[Document]:
    import pyarrow.parquet

    for batch in pyarrow.parquet.ParquetFile(file).iter_batches(batch_size=100, columns=list(COLUMNS)):
        for row in batch.to_pylist():
            yield Document(**row)
