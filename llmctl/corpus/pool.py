"""Documents on their way through the steps of a corpus: a folder of Parquet files that the engine reads in parallel."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from llmctl.corpus.documents import Document

GROUP_DOCUMENTS, GROUP_BYTES = 2_000, 8_000_000  # of a row group, which is what is handed to the engine at a time
PART_BYTES = 64_000_000  # of a file, which is what the engine holds at a time
COLUMNS = ("id", "text", "source", "path", "date", "url")


class PoolWriter:
    """Appends documents to the pool `folder`: a row of `n`, its place, with the fields of the document."""

    def __init__(self, folder: Path) -> None:
        import pyarrow

        self._folder = folder
        self._schema = pyarrow.schema([("n", pyarrow.int64()), *((name, pyarrow.large_string()) for name in COLUMNS)])
        self._rows: list[Document] = []  # of the row group that fills
        self._size = self._written = 0
        self._part: Any = None
        self._part_size = self._parts = 0

    def write(self, document: Document) -> None:
        self._rows.append(document)
        self._size += len(document.text)
        if len(self._rows) == GROUP_DOCUMENTS or self._size >= GROUP_BYTES:
            self.flush()

    def flush(self) -> None:
        """Write the row group, and end the part where it is full."""
        import pyarrow
        import pyarrow.parquet

        if self._part is None:
            file = self._folder / f"part-{self._parts:05d}.parquet"
            self._part = pyarrow.parquet.ParquetWriter(file, self._schema, compression="zstd")
        columns: list[Any] = [range(self._written, self._written + len(self._rows))]
        columns += [[getattr(row, name) for row in self._rows] for name in COLUMNS]
        arrays = [pyarrow.array(column, kind) for column, kind in zip(columns, self._schema.types, strict=True)]
        self._part.write_table(pyarrow.table(arrays, schema=self._schema))
        self._written += len(self._rows)
        self._part_size += self._size
        self._rows, self._size = [], 0
        if self._part_size >= PART_BYTES:
            self.end_part()

    def end_part(self) -> None:
        if self._part is not None:
            self._part.close()
            self._part, self._part_size, self._parts = None, 0, self._parts + 1

    def finish(self) -> None:
        if self._rows or not self._parts:  # a pool of nothing has a part as well
            self.flush()


@contextmanager
def writing_pool(folder: Path) -> Iterator[Callable[[Document], None]]:
    """A function that appends a document to the pool `folder`."""
    folder.mkdir(parents=True)
    writer = PoolWriter(folder)
    try:
        yield writer.write
        writer.finish()
    finally:
        writer.end_part()


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
