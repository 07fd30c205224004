"""What `llmctl check` finds, and a look at what a recipe's sources and templates are, without any work."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from llmctl.corpus.files import files_of
from llmctl.errors import UserError
from llmctl.recipe.chat_schema import ChatTable
from llmctl.recipe.corpus_schema import SourceTable
from llmctl.recipe.fields import BUILTIN, is_path
from llmctl.recipe.presets import resolve_model
from llmctl.recipe.schema import Recipe
from llmctl.stages.tokenizer import external_origin

Level = Literal["ok", "warning", "error"]
FIRST_ROWS = 20
TOKEN_SUFFIXES = (".npy", ".bin")
TALK = [{"role": "user", "content": "Question?"}, {"role": "assistant", "content": "Answer."}]


@dataclass(frozen=True, slots=True)
class Finding:
    what: str
    level: Level
    text: str


def found(what: str, look: Callable[[], Iterable[tuple[Level, str]]]) -> list[Finding]:
    """What a look tells of `what`; a mistake of the user that it stops at is an error."""
    findings: list[Finding] = []
    try:
        findings += [Finding(what, level, text) for level, text in look()]
    except UserError as error:
        findings.append(Finding(what, "error", str(error)))
    return findings


def look_at_source(name: str, table: SourceTable) -> Iterator[tuple[Level, str]]:
    """The first rows of a source of this machine: they can be read, and are of the kind that the recipe says."""
    if table.path.startswith(BUILTIN):
        yield "ok", f"{table.path}, which every Python has"
    elif not is_path(table.path):
        yield "ok", f"{table.path}: read when the corpus is made, and not looked at here"
    elif table.kind == "tokens":
        files = files_of(table.path, TOKEN_SUFFIXES, table.files)
        yield "ok", f"{len(files):,} files of token ids in {table.path}"
    else:
        yield from look_at_rows(name, table, heldout=False)
        if table.heldout is not None and is_path(table.heldout):
            yield from look_at_rows(name, table, heldout=True)


def look_at_rows(name: str, table: SourceTable, heldout: bool) -> Iterator[tuple[Level, str]]:
    from llmctl.corpus.rows import Faults
    from llmctl.corpus.shapes import Shapes
    from llmctl.corpus.sources import Source, rows_of
    from llmctl.corpus.tool_calls import RowFault

    faults, shapes, good = Faults(table.on_error), Shapes(table, name), 0
    for place, row in islice(rows_of(Source(name, table), faults, heldout), FIRST_ROWS):
        try:
            if table.kind == "chat":
                shapes.read(place, row)
            elif not isinstance(row.get(table.text_field), str):
                faults(place, f"no text in field {table.text_field!r} (it has {', '.join(map(str, row)) or 'no field'})")
                continue
        except RowFault as fault:
            faults(place, fault.what, fault.reason)
            continue
        good += 1
    where = table.heldout if heldout else table.path
    if good == 0:
        raise UserError(f"{where}: none of its first rows can be read")
    rows = f"conversations, {shapes.first_label}" if table.kind == "chat" else "text"
    skipped = faults.reasons.total()
    left_out = f"; {skipped} of them could not be read and would be skipped" if skipped else ""
    yield "warning" if skipped else "ok", f"the first {good + skipped} rows of {where} are {rows}{left_out}"


def local_files(table: SourceTable) -> list[tuple[str, int]]:
    """Names and sizes of the files that a source of this machine reads."""
    from llmctl.corpus.rows import ROW_SUFFIXES, TEXT_SUFFIXES

    return [(file.name, file.size) for file in files_of(table.path, ROW_SUFFIXES + TEXT_SUFFIXES, table.files)]


def look_at_template(recipe: Recipe, table: ChatTable) -> Iterator[tuple[Level, str]]:
    """The chat template of a stage writes a conversation, with markers that the tokenizer has."""
    from llmctl.tokens.template import add_tokens, ensure_template, missing_tokens, render, set_template

    tokenizer = tokenizer_here(recipe)
    known = tokenizer is not None
    if tokenizer is None:
        if table.template is None:
            yield "ok", "chat template: the tokenizer's own"
            return
        tokenizer = stand_in()
    if table.template is not None:
        set_template(tokenizer, table.template)
    given = ensure_template(tokenizer)
    add_tokens(tokenizer, table.add_tokens)
    render(tokenizer, TALK)
    name = table.template or ("one that llmctl gives it" if given else "the tokenizer's own")
    missing = missing_tokens(tokenizer) if known else []
    if missing:
        named = ", ".join(f'"{token}"' for token in missing)
        yield "warning", f"chat template {name} writes {', '.join(missing)}, no tokens of this tokenizer; add_tokens = [{named}]"
    else:
        yield "ok", f"chat template: {name}; a conversation was written by it"


def look_at_tokenizer(recipe: Recipe) -> Iterator[tuple[Level, str]]:
    """The tokenizer, and whether what it makes is embedded by the models of the recipe."""
    from llmctl.model.load import load_config

    table, tokenizer = recipe.tokenizer, tokenizer_here(recipe)
    origin = table.path if table is not None else external_origin(recipe)
    if tokenizer is None:
        if table is not None and table.path is None:
            yield "ok", f"trained on the corpus, {table.vocab_size:,} tokens"
        elif origin is not None:
            yield "ok", f"{origin}: on the hub, and not looked at here"
        return
    yield "ok", f"{origin}: {len(tokenizer):,} tokens"
    embedded = {"[model] vocab_size": resolve_model(recipe.model)["vocab_size"]} if recipe.model is not None else {}
    for stage in recipe.stages.values():
        if table is not None and stage.from_ not in (None, *recipe.stages) and Path(str(stage.from_)).exists():
            embedded[str(stage.from_)] = load_config(str(stage.from_)).get_text_config().vocab_size
    for place, rows in embedded.items():
        if rows is not None and rows < len(tokenizer):
            yield "error", f"{place} embeds {rows:,} tokens, and the tokenizer has {len(tokenizer):,}: a model goes with its own"


def tokenizer_here(recipe: Recipe) -> Any | None:
    """The tokenizer of the recipe, where it is one of this machine."""
    from llmctl.tokens.tokenizer import load_tokenizer

    origin = recipe.tokenizer.path if recipe.tokenizer is not None else external_origin(recipe)
    return load_tokenizer(origin) if origin is not None and Path(origin).exists() else None


def stand_in() -> Any:
    """A tokenizer to try a template with while the recipe's own is not trained yet."""
    from tokenizers import Tokenizer
    from tokenizers.models import BPE
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer(BPE()), eos_token="<|endoftext|>", bos_token="<|endoftext|>")
