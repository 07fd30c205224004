"""daft, the engine of the steps that look at every document: columns in batches, on all cores or on a Ray cluster."""

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from llmctl.corpus.documents import Document, read_documents
from llmctl.errors import StageFailed, require_package
from llmctl.recipe.corpus_schema import Engine

ROW_GROUP = 2_000  # documents that are handed to the engine at a time


def load_daft(engine: Engine = "native", ray_address: str | None = None) -> Any:
    """daft with its runner chosen, and silent: no bars of its own, no telemetry.

    Raises:
        UserError: Ray is wanted and not installed.
        StageFailed: the Ray cluster does not answer.
    """
    os.environ.setdefault("DAFT_PROGRESS_BAR", "0")
    os.environ.setdefault("DAFT_ANALYTICS_ENABLED", "0")
    os.environ.setdefault("DO_NOT_TRACK", "true")
    import daft
    from daft.runners import get_or_infer_runner_type

    if engine == "native":
        if get_or_infer_runner_type() != "native":
            daft.set_runner_native()
        return daft
    require_package("ray", 'corpus.engine = "ray"')
    import ray

    try:
        if ray_address is not None:
            require_answer(ray_address)
        ray.init(address=ray_address, ignore_reinit_error=True, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise StageFailed(f"corpus.ray_address = {ray_address!r}: no Ray cluster answers there ({reason})") from None
    daft.set_runner_ray(address=ray_address, noop_if_initialized=True)
    return daft


def require_answer(address: str) -> None:
    """Raises:
    OSError: nothing listens at `address` (HOST:PORT or ray://HOST:PORT); Ray itself would ask for many minutes.
    ValueError: it is no such address.
    """
    if address == "auto":
        return
    host, _, port = address.removeprefix("ray://").rpartition(":")
    socket.create_connection((host, int(port)), timeout=10).close()


@contextmanager
def pool(corpus: Path, sources: list[str]) -> Iterator[Path]:
    """Training documents of these sources as a Parquet file, for as long as the block lasts: `n`, their place in the order of
    sources and reading, `id` and `text`."""
    import pyarrow
    import pyarrow.parquet

    file = corpus / ".pool.parquet"
    schema = pyarrow.schema([("n", pyarrow.int64()), ("id", pyarrow.string()), ("text", pyarrow.large_string())])
    try:
        with pyarrow.parquet.ParquetWriter(file, schema, compression="zstd") as writer:
            rows: list[Document] = []
            written = 0

            def flush() -> None:
                nonlocal written
                columns = [list(range(written, written + len(rows))), [row.id for row in rows], [row.text for row in rows]]
                writer.write_table(pyarrow.table(columns, schema=schema))
                written += len(rows)
                rows.clear()

            for source in sources:
                for document in read_documents(corpus, source, "train"):
                    rows.append(document)
                    if len(rows) == ROW_GROUP:
                        flush()
            flush()
        yield file
    finally:
        file.unlink(missing_ok=True)
