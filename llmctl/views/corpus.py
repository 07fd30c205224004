"""`llmctl inspect corpus`: documents of a corpus with their scores, and what was dropped with its reason."""

import json
import sys
from collections.abc import Iterator
from itertools import islice
from typing import Any

from rich.console import Console
from rich.text import Text

from llmctl.corpus.documents import Split, read_conversations, read_documents
from llmctl.corpus.page import read_rejects
from llmctl.corpus.shown import shown_text
from llmctl.errors import UserError
from llmctl.runs.artifact import Artifact

SHOWN = 1_500  # characters of a document


def show_corpus(
    corpus: Artifact, source: str | None, split: Split, rejects: str | None, find: str | None, limit: int, as_json: bool
) -> None:
    """Documents of a corpus, or with `rejects` what was dropped by a rule whose name has that in it.

    Raises:
        UserError: the corpus has no such source, or nothing is found.
    """
    sources = sorted({path.name for kind in ("documents", "conversations") for path in (corpus.folder / kind).glob("*")})
    if source is not None and source not in sources:
        raise UserError(f"{source!r} is no source of {corpus.folder}; there are {', '.join(sources)}")
    wanted = [source] if source is not None else sources
    rows = _dropped(corpus, wanted, rejects) if rejects is not None else _kept(corpus, wanted, split)
    found = list(islice((row for row in rows if find is None or find in shown_text(row)), limit))
    if not found:
        raise UserError(f"{corpus.folder}: nothing of that kind")
    if as_json:
        for row in found:
            print(json.dumps(row, ensure_ascii=False))
        return
    console = Console()
    if sys.stdout.isatty():
        with console.pager(styles=True):
            _show(console, found)
    else:
        _show(console, found)


def _kept(corpus: Artifact, sources: list[str], split: Split) -> Iterator[dict[str, Any]]:
    for source in sources:
        scores = _scores(corpus, source) if split == "train" else {}
        for document in read_documents(corpus.folder, source, split):
            yield {"id": document.id, "path": document.path, "text": document.text} | scores.get(document.id.split("#")[0], {})
        for talk in read_conversations(corpus.folder, source, split):
            tools = {"tools": talk.tools} if talk.tools else {}
            yield {"id": talk.id, "path": talk.path, "kind": talk.kind, "messages": talk.messages} | tools


def _dropped(corpus: Artifact, sources: list[str], rule: str) -> Iterator[dict[str, Any]]:
    for source, step, row in read_rejects(corpus.folder):
        if source in sources and rule in f"{step}: {row['rule']}":
            yield {"step": step} | {key: value for key, value in row.items() if key != "source"}


def _scores(corpus: Artifact, source: str) -> dict[str, dict[str, Any]]:
    file = corpus.folder / "scores" / f"{source}.parquet"
    if not file.exists():
        return {}
    import pyarrow.parquet

    rows = pyarrow.parquet.read_table(file).to_pylist()
    return {row["id"]: {key: value for key, value in row.items() if key not in ("id", "bytes")} for row in rows}


def _show(console: Console, rows: list[dict[str, Any]]) -> None:
    for row in rows:
        facts = {key: value for key, value in row.items() if key not in ("id", "text", "messages", "tools")}
        console.print(Text(row["id"], style="bold"))
        told = (f"{key} {value:.3f}" if isinstance(value, float) else f"{key} {value}" for key, value in facts.items() if value)
        console.print(Text(", ".join(told), style="dim"))
        text = shown_text(row)
        rest = f"\n… {len(text) - SHOWN:,} more characters" if len(text) > SHOWN else ""
        console.print(Text(text[:SHOWN] + rest + "\n"))
