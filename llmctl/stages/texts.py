"""Text that models are measured on: the held-out part of a run's corpus, and files of the user's own."""

from collections.abc import Iterator
from pathlib import Path

from llmctl import events
from llmctl.corpus.files import File, files_of
from llmctl.corpus.rows import ROW_SUFFIXES, TEXT_SUFFIXES, Faults, read_rows
from llmctl.errors import UserError
from llmctl.recipe.schema import Recipe
from llmctl.stages.heldout import sample_texts


class Stop(Faults):
    """Stops at a row that cannot be read, whatever a recipe says of its source."""

    def __init__(self) -> None:
        super().__init__("stop")

    def __call__(self, place: str, what: str, reason: str = "unreadable") -> None:
        raise UserError(f"{place}: {what}")


def heldout_texts(corpus: Path, recipe: Recipe) -> dict[str, list[str]]:
    """The sample that the stages report bits per byte on, of each text source; sources without held-out text are named."""
    found = {name: sample_texts(corpus, name, recipe.eval.bits_per_byte_bytes) for name in recipe.text_sources}
    if empty := [name for name, texts in found.items() if not texts]:
        events.say(f"no held-out text of {', '.join(empty)}: left out")
    return {name: texts for name, texts in found.items() if texts}


def own_texts(path: Path) -> list[str]:
    """The documents of a file, or of the files below a folder: a row's "text" in JSON lines and the like, else a whole file.

    Raises:
        UserError: nothing is there, a file is empty or holds no text, or a row has no "text".
    """
    place = path.expanduser()
    whole = place.is_file() and not place.name.endswith(ROW_SUFFIXES)
    files = files_of(str(place), ("",) if whole else ROW_SUFFIXES + TEXT_SUFFIXES)
    found = [text for file in files for text in _documents(file)]
    if not any(text.strip() for text in found):
        raise UserError(f"{path}: it holds no text but white space")
    return [text for text in found if text]


def _documents(file: File) -> Iterator[str]:
    if file.size == 0:
        raise UserError(f"{file.name}: an empty file")
    if not file.name.endswith(ROW_SUFFIXES):
        yield _plain(file)
        return
    for place, row in read_rows(file.name, Stop()):
        text = row.get("text")
        if not isinstance(text, str):
            raise UserError(f'{place}: no text in field "text" (it has {", ".join(map(str, row)) or "no field"})')
        if any("\ud800" <= sign <= "\udfff" for sign in text):
            raise UserError(f"{place}: half a surrogate pair, which is no character")
        yield text


def _plain(file: File) -> str:
    """A file as it is: its line ends count as bytes, too."""
    with file.open() as opened:
        data = opened.read()
    if b"\0" in data:
        raise UserError(f"{file.name}: no text, as it has a zero at byte {data.index(0):,}")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise UserError(f"{file.name}: no text in UTF-8, from byte {error.start:,} on") from None
