"""What a step of a stage trains on, told from the stage's job alone: before, while or after it runs."""

import sys
from dataclasses import dataclass
from typing import Any

from llmctl.errors import UserError
from llmctl.runs.store import RunStore


@dataclass(frozen=True, slots=True)
class ShownPiece:
    """A document in a row, or the part of it that is there."""

    document: str
    path: str
    first: int
    """Of its tokens."""
    tokens: int
    of: int
    """Tokens of the whole document."""
    text: str


@dataclass(frozen=True, slots=True)
class ShownRow:
    position: int
    """In the order of all rows of the stage."""
    source: str
    supervised: int
    """Tokens that something is learnt from."""
    pieces: list[ShownPiece]


def find_job(store: RunStore, name: str | None) -> Any:
    """The `TrainJob` of RUN/STAGE, of the newest stage of a run that trains, or of the newest of all, which is named.

    Raises:
        UserError: there is none.
    """
    from llmctl.train.job import JOB_FILE, TrainJob

    run, _, stage = (name or "").partition("/")
    artifacts = [artifact for one in store.runs() if run in ("", one.name) for artifact in one.artifacts]
    files = [a.folder / JOB_FILE for a in artifacts if stage in ("", a.stage) and (a.folder / JOB_FILE).exists()]
    if not files:
        raise UserError(f"{name or store.root}: no stage that trains has begun there; `llmctl runs` shows where runs stand")
    file = max(files, key=lambda path: path.stat().st_mtime)
    if not stage:
        print(f"the newest stage that trains is {file.parent}", file=sys.stderr)
    return TrainJob.read(file)


def rows_of_step(job: Any, step: int) -> list[ShownRow]:
    """The rows of a step, which is counted from 1.

    Raises:
        UserError: the stage has no such step.
    """
    from llmctl.tokens.tokenizer import load_tokenizer
    from llmctl.train.data import TrainingRows

    if step > job.steps:
        raise UserError(f"--step {step:,}: {job.stage} has {job.steps:,} steps")
    data, decode = TrainingRows(job), load_tokenizer(job.tokenizer).decode
    shown = []
    for place, (source, row) in enumerate(data.of_step(step - 1)):
        rows = data.sources[source]
        names = rows.shards.names({document for document, _, _ in rows.pieces(row)})
        pieces = []
        for document, first, tokens in rows.pieces(row):
            start = int(rows.shards.offsets[document]) + first
            text = decode(rows.shards.stream[start : start + tokens].tolist())
            name, path = names.get(document, ("", ""))
            pieces.append(ShownPiece(name, path, first, tokens, int(rows.shards.lengths[document]), text))
        position = data.steps.rows_before(step - 1) + place
        shown.append(ShownRow(position, job.parts[source].name, rows.supervised(row), pieces))
    return shown
