"""daft, the engine of the steps that look at every document: columns in batches, on all cores or on a Ray cluster."""

import logging
import os
import socket
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from llmctl.corpus.pool import parts_of
from llmctl.errors import StageFailed, require_package
from llmctl.recipe.corpus_schema import Engine


def load_daft(engine: Engine = "native", ray_address: str | None = None) -> Any:
    """daft with its runner chosen, and silent: no bars of its own, no telemetry.

    Raises:
        UserError: Ray is wanted and not installed.
        StageFailed: the Ray cluster does not answer.
    """
    os.environ.setdefault("DAFT_PROGRESS_BAR", "0")
    os.environ.setdefault("DAFT_ANALYTICS_ENABLED", "0")
    os.environ.setdefault("DO_NOT_TRACK", "true")
    for name in ("daft_io", "daft_scan", "daft_local_execution"):  # what they write is raised, too
        logging.getLogger(name).setLevel(logging.CRITICAL)
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


def streamed(daft: Any, pool: Path, query: Callable[[Any], Any]) -> Iterator[Any]:
    """Arrow batches of what `query` makes of a frame of the documents in `pool`, in any order.

    The native runner (daft 0.7) makes all its results, and reads all its files for them, however slowly they are taken: it gets
    a file at a time. Ray's runner waits.
    """
    from daft.runners import get_or_infer_runner_type

    files = [str(part) for part in parts_of(pool)]
    for together in [[file] for file in files] if get_or_infer_runner_type() == "native" else [files]:
        yield from query(daft.read_parquet(together)).to_arrow_iter()


def in_order(batches: Iterable[Any]) -> Iterator[dict[str, Any]]:
    """Rows of Arrow batches of which `n` counts the rows from 0, in the order of `n`."""
    waiting: dict[int, dict[str, Any]] = {}
    following = 0
    for batch in batches:
        for row in batch.to_pylist():
            waiting[row["n"]] = row
            while following in waiting:
                yield waiting.pop(following)
                following += 1
