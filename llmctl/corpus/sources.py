"""The sources of a recipe as documents: built in, files and folders, data sets of the hub."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from llmctl.corpus import builtin
from llmctl.corpus.attrition import Attrition
from llmctl.corpus.documents import Document
from llmctl.corpus.hub import read_hub
from llmctl.corpus.rows import Faults, Place, read_rows
from llmctl.recipe.corpus_schema import SourceTable
from llmctl.recipe.fields import HUB, is_address

BUILTIN_TEXT: dict[str, Callable[[int | None], Iterator[Document]]] = {
    "builtin:python-stdlib": builtin.standard_library,
    "builtin:python-packages": builtin.installed_packages,
}
CHAT_BYTES = 20_000_000  # of package source that chat data are made from, beside the standard library


@dataclass(frozen=True, slots=True)
class Source:
    name: str
    table: SourceTable

    @property
    def kind(self) -> str:
        return self.table.kind


def read_source(source: Source, attrition: Attrition) -> Iterator[Document]:
    """The documents of a source of text.

    Raises:
        UserError: a source that cannot be read.
    """
    table = source.table
    if table.path in BUILTIN_TEXT:
        yield from BUILTIN_TEXT[table.path](table.max_bytes)
        return
    used = 0
    faults = Faults(table.on_error)
    for place, row in rows_of(source, faults):
        text = row.get(table.text_field)
        if not isinstance(text, str):
            faults(place, f"no text in field {table.text_field!r} (it has {', '.join(map(str, row)) or 'no field'})")
            continue
        if not text.strip():
            attrition.add(source.name, "read", "empty", 0)
            continue
        try:
            used += len(text.encode())
        except UnicodeEncodeError:
            faults(place, "half a surrogate pair, which is no character")
            continue
        if table.max_bytes is not None and used > table.max_bytes:
            break
        date = str(row.get(table.date_field) or "") if table.date_field else ""
        name = f"{source.name}/{row.get('id') or Path(place).name}"
        yield Document(text, name, source.name, place, date, str(row.get(table.url_field) or ""))
    faults.tell(source.name, attrition)


def rows_of(source: Source, faults: Faults, heldout: bool = False) -> Iterator[tuple[Place, dict[str, Any]]]:
    """(place, row) of a source that is not built in; of its file of held-out rows, which the source must have."""
    table = source.table
    path, files = (str(table.heldout), []) if heldout else (table.path, table.files)
    if path.startswith(HUB) and not is_address(path):
        return read_hub(path, table.split, table.subset, files)
    return read_rows(path, faults, files)


def asked_about(source: Source) -> Iterator[Document]:
    """The files that built-in conversations are about."""
    size = source.table.max_bytes
    return chain(builtin.standard_library(size), builtin.installed_packages(size or CHAT_BYTES))
