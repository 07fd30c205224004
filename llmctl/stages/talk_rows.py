"""What `llmctl inspect sft` shows: packed rows of conversations with what is trained of them, and the preflight's findings."""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, Literal

from llmctl.errors import UserError
from llmctl.recipe.chat_schema import ChatTable
from llmctl.recipe.graph import named_or_first
from llmctl.recipe.schema import Recipe
from llmctl.runs.artifact import Artifact
from llmctl.stages.node import Context
from llmctl.stages.runner import Runner
from llmctl.stages.session import OpenRun, Show
from llmctl.stages.talks import Talks, prepare, template_name
from llmctl.stages.training import Stage

Kind = Literal["masked", "closing", "content"]
KINDS: tuple[Kind, ...] = ("masked", "closing", "content")  # by the numbers of a mask


@dataclass(frozen=True, slots=True)
class Part:
    """Tokens of one kind, one after the other."""

    text: str
    kind: Kind
    special: bool
    """Whether it is a special token of the vocabulary."""


@dataclass(frozen=True, slots=True)
class ShownTalk:
    """A conversation in a row."""

    name: str
    place: str
    tokens: int
    trained: int
    parts: list[Part]


@dataclass(frozen=True, slots=True)
class ShownRow:
    number: int
    """Among the rows of its source."""
    source: str
    padding: int
    """Tokens."""
    talks: list[ShownTalk]


@dataclass(frozen=True, slots=True)
class SourceCount:
    source: str
    conversations: int
    kept: int
    heldout: int
    tokens: int
    trained: int
    rows: int
    padding: float
    """Share of the rows' tokens."""
    reasons: dict[str, tuple[int, list[str]]]
    """Why conversations were left out or cut: how many, and the places of the first."""


@dataclass(frozen=True, slots=True)
class Inspected:
    stage: str
    template: str
    seq_len: int
    rows: list[ShownRow]
    sources: list[SourceCount]
    findings: list[Any]
    """`Finding`s of the preflight."""

    @property
    def dead(self) -> bool:
        return any(finding.dead for finding in self.findings)


def chat_stage(recipe: Recipe, name: str | None) -> ChatTable:
    """The stage of that name; the first that trains on conversations, where none is named.

    Raises:
        UserError: there is none.
    """
    return named_or_first([stage for stage in recipe.stages.values() if isinstance(stage, ChatTable)], name, "on conversations")


def inspect_talks(opened: OpenRun, name: str | None, show: Show, source: str | None, first: int, count: int) -> Inspected:
    """`count` rows of a stage of conversations, from the row `first` (from 1) of each of its sources, or of one. Corpus and
    tokenizer are made if they are not there yet; nothing else is left.

    Raises:
        UserError: the recipe has no such stage, or the stage no such source.
    """
    table = chat_stage(opened.recipe, name)
    if source not in (None, *table.mix):
        raise UserError(f"--source {source}: [{table.name}] has {', '.join(table.mix)}")
    wanted, parent = ["corpus", "tokenizer"], table.from_
    if parent in opened.recipe.stages and not Runner(opened.recipe, opened.store, show).to_make([parent]):
        wanted.append(parent)  # it is made already, and its vocabulary is known
    made = opened.make_named(wanted, None, show)
    with tempfile.TemporaryDirectory() as folder:
        stage = Stage(Context(opened.recipe, Artifact(Path(folder)), made, None), table, table.name)
        talks = prepare(stage)
        packed = {name: _packed(stage, shards) for name, shards in talks.train.items()}
        chosen = [source] if source is not None else list(packed)
        rows = [row for name in chosen for row in _rows(talks, name, packed[name], first, count)]
        counts = [_count(talks, name, packed[name]) for name in packed]
    return Inspected(table.name, template_name(stage), table.seq_len, rows, counts, talks.findings)


def _packed(stage: Stage, shards: Path) -> Any:
    from llmctl.tokens.rows import PackedRows
    from llmctl.tokens.shards import TokenShards

    return PackedRows(TokenShards(shards), stage.table.seq_len)


def _rows(talks: Talks, source: str, packed: Any, first: int, count: int) -> Iterator[ShownRow]:
    from llmctl.tokens.tokenizer import load_tokenizer

    tokenizer = load_tokenizer(str(talks.tokenizer))
    special = {number for number, token in tokenizer.added_tokens_decoder.items() if token.special}
    for number in range(first - 1, min(len(packed), first - 1 + count)):
        pieces = packed.pieces(number)
        names = packed.shards.names({document for document, _, _ in pieces})
        shown = []
        for document, start, length in pieces:
            at = int(packed.shards.offsets[document]) + start
            ids = packed.shards.stream[at : at + length].tolist()
            mask = packed.shards.mask[at : at + length].tolist()
            parts = list(_parts(tokenizer, ids, mask, special))
            name, place = names[document]
            shown.append(ShownTalk(name, place, length, sum(map(bool, mask)), parts))
        yield ShownRow(number + 1, source, packed.seq_len - sum(length for _, _, length in pieces), shown)


def _parts(tokenizer: Any, ids: list[int], mask: list[int], special: set[int]) -> Iterator[Part]:
    tokens = zip(ids, mask, strict=True)
    for (value, is_special), run in groupby(tokens, key=lambda token: (token[1], token[0] in special)):
        yield Part(tokenizer.decode([token for token, _ in run]), KINDS[value], is_special)


def _count(talks: Talks, source: str, packed: Any) -> SourceCount:
    from llmctl.tokens.chat_shards import read_report

    report, heldout = read_report(talks.train[source]), read_report(talks.heldout[source])
    return SourceCount(
        source=source,
        conversations=report.conversations,
        kept=report.kept,
        heldout=heldout.kept,
        tokens=report.tokens,
        trained=report.trained,
        rows=len(packed),
        padding=packed.padding,
        reasons={reason: (rows.count, rows.places) for reason, rows in report.reasons.items()},
    )
