"""What the benchmarks share: the documents they take, their options, and how a result is written."""

import argparse
import json
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

WORKERS = 2


def options(description: str | None) -> argparse.ArgumentParser:
    """--text and --out."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", type=Path, help="Documents: a file or folder. Left out: source of the installed packages.")
    parser.add_argument("--out", type=Path, help="Where the result is written as JSON.")
    return parser


def documents(text: Path | None, megabytes: float = float("inf")) -> list[str]:
    """Texts of `text`, or the Python source of the installed packages, up to a size."""
    texts, size = [], 0
    for body in _read(text):
        size += len(body.encode())
        if size > megabytes * 1_000_000:
            break
        texts.append(body)
    return texts


def _read(text: Path | None) -> Iterator[str]:
    from llmctl.corpus.builtin import installed_packages
    from llmctl.corpus.rows import Faults, read_rows

    if text is None:
        return (document.text for document in installed_packages())
    return (row["text"] for _, row in read_rows(str(text), Faults("skip")))


def write_result(result: dict[str, Any], out: Path | None) -> None:
    """Write a result with the date, the hardware and the versions it was got with."""
    from llmctl.runs.machine import hardware, versions

    if out is not None:
        made = {"date": str(date.today())} | result | {"hardware": hardware(), "versions": versions()}
        out.write_text(json.dumps(made, indent=1) + "\n")
