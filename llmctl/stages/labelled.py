"""Texts with labels from files: CSV with a header, JSON lines or Parquet, or a folder with a train and a test file."""

import csv
import difflib
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from llmctl import events
from llmctl.corpus.rows import Faults, read_rows
from llmctl.errors import UserError

TEXT_COLUMNS = ("text", "sentence", "content", "utterance", "query", "question", "document", "review", "message", "title")
LABEL_COLUMNS = ("label", "category", "intent", "class", "target", "label_text", "labels", "topic", "sentiment")
SUFFIXES = (".csv", ".jsonl", ".jsonl.gz", ".jsonl.zst", ".parquet")
HELD_OUT = 0.2
"""Of the rows, where no test file is."""


@dataclass(frozen=True, slots=True)
class Labelled:
    """Documents; each is of the training part or of the test part."""

    texts: list[str]
    labels: list[str]
    places: list[str]
    """`file:line` or `file:row`."""
    training: list[int]
    test: list[int]


@dataclass(frozen=True, slots=True)
class Columns:
    text: str
    label: str


def read_labelled(data: Path, test: Path | None, text: str | None, label: str | None, seed: int) -> Labelled:
    """The documents of `data`. Without a test file a fifth is held out by the seed, class by class.

    Raises:
        UserError: there is no such file or column, a row has no text or no label, or there are fewer than two classes.
    """
    train_file, test_file = _files_of(data)
    test_file = test or test_file
    texts, labels, places = _documents(train_file, text, label)
    count = len(texts)
    if test_file is not None:
        more = _documents(test_file, text, label)
        shared = len(set(texts) & set(more[0]))
        texts, labels, places = texts + more[0], labels + more[1], places + more[2]
        training, asked = _without(range(count), texts, set(more[0])), list(range(count, len(texts)))
        if shared:
            events.warn(f"{train_file}: {count - len(training):,} of its texts are in {test_file}, too; they teach nothing")
    else:
        training, asked = _held_out(texts, labels, seed)
        events.say(f"no test file: {len(asked):,} of {count:,} rows of {train_file.name} are held out for the test (seed {seed})")
    classes = sorted({labels[document] for document in training})
    if len(classes) < 2:
        raise UserError(f"{train_file}: {'one class' if classes else 'no class'} to learn, {classes}; expected two or more")
    if unknown := sorted({labels[document] for document in asked} - set(classes)):
        events.warn(f"{len(unknown)} classes of the test have no training example and are left out: {', '.join(unknown[:5])}")
    return Labelled(texts, labels, places, training, asked)


def _without(documents: range, texts: list[str], unwanted: set[str]) -> list[int]:
    return [document for document in documents if texts[document] not in unwanted]


def _held_out(texts: list[str], labels: list[str], seed: int) -> tuple[list[int], list[int]]:
    """Training and test documents. Equal texts go to the same part."""
    members: dict[str, dict[str, list[int]]] = {}
    for document, (text, label) in enumerate(zip(texts, labels, strict=True)):
        members.setdefault(label, {}).setdefault(text, []).append(document)
    generator = np.random.default_rng(seed)
    chosen: set[str] = set()
    for label in sorted(members):
        distinct = list(members[label])
        chosen |= {distinct[place] for place in generator.permutation(len(distinct))[: round(HELD_OUT * len(distinct))]}
    test = [document for document, text in enumerate(texts) if text in chosen]
    return _without(range(len(texts)), texts, chosen), test


def _files_of(data: Path) -> tuple[Path, Path | None]:
    """The training file, and the test file of a folder."""
    if data.is_file():
        return data, None
    if not data.is_dir():
        raise UserError(
            f"{data}: no such file or folder; expected a file ({', '.join(SUFFIXES)}) or a folder with train and test"
        )
    readable = [file for file in sorted(data.iterdir()) if file.name.endswith(SUFFIXES)]
    found = {part: [file for file in readable if file.name.startswith(part)] for part in ("train", "test")}
    for part, files in found.items():
        if len(files) > 1 or (part == "train" and not files):
            has = ", ".join(file.name for file in sorted(data.iterdir())[:8]) or "nothing"
            many = "several files" if files else "no file"
            raise UserError(f"{data}: {many} {part}*{'|'.join(SUFFIXES)}; it has {has}. Name a file, and another with --test")
    return found["train"][0], next(iter(found["test"]), None)


def _documents(file: Path, text: str | None, label: str | None) -> tuple[list[str], list[str], list[str]]:
    """Texts, labels and places."""
    columns: Columns | None = None
    texts, labels, places = [], [], []
    for place, row in _rows(file):
        if columns is None:
            columns = _columns(file, list(row), text, label)
            told = f"{file.name}: text in column {columns.text!r}, label in {columns.label!r}"
            events.say(told + ("" if text and label else " (--text-column, --label-column name others)"))
        value, name = row.get(columns.text), row.get(columns.label)
        if not isinstance(value, str) or not value.strip():
            raise UserError(f"{place}: column {columns.text!r} holds {_kind(value)}; expected text. Mend or remove the row")
        if name is None or isinstance(name, list | dict | float) or not str(name).strip():
            raise UserError(f"{place}: column {columns.label!r} holds {_kind(name)}; expected a class, as text or a whole number")
        texts.append(value)
        labels.append(str(name).strip())
        places.append(place)
    if not texts:
        raise UserError(f"{file}: no rows; expected texts with labels")
    return texts, labels, places


def _kind(value: Any) -> str:
    if value is None or (isinstance(value, str) and not value.strip()):
        return "nothing"
    return f"a {type(value).__name__}, {str(value)[:40]!r}"


def _rows(file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    if not file.is_file():
        raise UserError(f"{file}: no such file")
    if not file.name.endswith(SUFFIXES):
        raise UserError(f"{file}: not a kind of file that is known; expected {', '.join(SUFFIXES)}")
    return _csv_rows(file) if file.name.endswith(".csv") else _other_rows(file)


def _other_rows(file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    try:
        yield from read_rows(str(file), Faults("stop"))
    except UserError as error:  # which would tell of a key of the recipe
        raise UserError(str(error).partition(" Mend it, or set on_error")[0]) from None


def _csv_rows(file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    try:
        text = file.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{file}: not UTF-8 at byte {error.start:,}; save it as UTF-8") from None
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        header = next(reader, None)
        if header is None:
            raise UserError(f"{file}: an empty file; expected a header and rows")
        for cells in reader:
            if not cells:
                continue
            if len(cells) != len(header):
                raise UserError(
                    f"{file}:{reader.line_num}: {len(cells)} cells; expected {len(header)}, as in the header "
                    f"({', '.join(header)}). A text with commas stands in double quotes"
                )
            yield f"{file}:{reader.line_num}", dict(zip(header, cells, strict=True))
    except csv.Error as error:
        raise UserError(f"{file}:{reader.line_num}: no CSV: {error}") from None


def _columns(file: Path, has: list[str], text: str | None, label: str | None) -> Columns:
    found = []
    for named, usual, option in ((text, TEXT_COLUMNS, "--text-column"), (label, LABEL_COLUMNS, "--label-column")):
        lower = {column.strip().lower(): column for column in reversed(has)}
        column = named if named in has else None
        if named is None:
            column = next((lower[name] for name in usual if name in lower and lower[name] not in found), None)
        if column is None:
            near = difflib.get_close_matches(named or "", has, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]!r}? " if near else ""
            wrong = f"no column {named!r}" if named else f"no column of a usual name ({', '.join(usual[:4])}, ...)"
            raise UserError(f"{file}: {wrong}; {hint}it has {', '.join(map(repr, has))}. Name one with {option}")
        found.append(column)
    if found[0] == found[1]:
        raise UserError(f"{file}: text and label are both column {found[0]!r}; name two with --text-column and --label-column")
    return Columns(*found)
