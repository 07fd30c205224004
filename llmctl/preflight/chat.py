"""Whether training on conversations would teach what it should, judged from the reports of their token shards before any
model is loaded: rows without a trained token, answers that are never closed, held-out rows that are trained on."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from llmctl import events
from llmctl.errors import DeadRun
from llmctl.tokens.chat_shards import TOO_LONG, UNMASKABLE, ChatReport, read_hashes, read_report
from llmctl.tokens.shards import TokenShards

RAISE = "Raise seq_len, and the model's context where that is shorter"
SHOWN = 5  # pairs of rows that are named


@dataclass(frozen=True, slots=True)
class Shards:
    """A source's token shards."""

    source: str
    train: Path
    heldout: Path | None = None


@dataclass(frozen=True, slots=True)
class Chat:
    """What a stage trains on, and with which tokens."""

    sources: Sequence[Shards]
    most_untrained: float
    """Share of the conversations that may be left without a trained token."""
    template: str
    """As people call it."""
    tokens: int
    """Of the tokenizer."""
    missing: Sequence[str] = field(default_factory=list)
    """Markers of the template that the tokenizer has not (`missing_tokens`)."""
    embedded: int | None = None
    """Tokens that the model embeds (`vocab_size` of its configuration); None: not known."""
    resized: bool = False
    """Whether the stage will give the model an embedding for each token of the tokenizer."""
    unended: str = ""
    """Why the template writes no conversation that tells which tokens end an answer (`end_of_turn_ids`); empty: it does."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Something wrong: what it is, and what to do."""

    what: str
    remedy: str
    dead: bool = True
    """Whether training makes no sense with it."""

    def __str__(self) -> str:
        return f"{self.what}\n    {self.remedy}"


def findings(chat: Chat) -> list[Finding]:
    """Everything that is wrong with a stage's conversations; the worst first."""
    found, trained = _embeddings(chat) + _ends(chat), Trained(chat.sources)
    for shards in chat.sources:
        report = read_report(shards.train)
        found += _trained(shards.source, report, chat) + _closed(shards.source, report, chat)
        found += _thinking(shards.source, report, chat)
        if shards.heldout is not None:
            found += _measured(shards.source, read_report(shards.heldout))
            found += _shared(shards.source, shards.heldout, trained)
    return sorted(found, key=lambda finding: not finding.dead)


def refuse(stage: str, found: Sequence[Finding]) -> None:
    """Say what is wrong; findings that leave sense in training are warnings.

    Raises:
        DeadRun: training would teach nothing, or something wrong; with all of the findings.
    """
    if any(finding.dead for finding in found):
        listed = "".join(f"\n  {number}. {finding}" for number, finding in enumerate(found, 1))
        raise DeadRun(f"{stage} is refused, since its conversations would teach nothing, or something wrong:{listed}")
    for finding in found:
        events.warn(f"{stage}: {finding.what} {finding.remedy}")


def _embeddings(chat: Chat) -> list[Finding]:
    if chat.embedded is None or chat.resized or chat.tokens <= chat.embedded:
        return []
    what = f"the tokenizer has {chat.tokens:,} tokens and the model embeds {chat.embedded:,}."
    return [
        Finding(
            what, "Name the new ones in add_tokens, which gives the model an embedding for each; or take the model's tokenizer."
        )
    ]


def _ends(chat: Chat) -> list[Finding]:
    if not chat.unended:
        return []
    what = f"the template ({chat.template}) writes not even one question with its answer, so that nothing tells where one ends: "
    return [Finding(what + f"{chat.unended}.", 'Mend the template; or take another one: template = "chatml".')]


def _trained(source: str, report: ChatReport, chat: Chat) -> list[Finding]:
    """Conversations of which nothing is trained."""
    share = report.untrained / max(1, report.conversations)
    if report.kept and share <= chat.most_untrained:
        return []
    if not report.conversations:
        return [Finding(f"{source}: no conversation to train on.", "Look at the source's path and its shape.")]
    what = f"{source}: {report.untrained:,} of {report.conversations:,} conversations ({share:.1%}) have no trained token"
    what += f" (most_untrained = {chat.most_untrained:g})" if report.kept else ", and nothing is left to train on"
    return [Finding(what + ":" + _rows(report), _remedy(report, chat))]


def _rows(report: ChatReport) -> str:
    lines = sorted(report.left_out.items(), key=lambda item: -item[1].count)
    return "".join(
        f"\n       {rows.count:,} {reason} ({', '.join(rows.places)}{', ...' if rows.count > len(rows.places) else ''})"
        for reason, rows in lines
    )


def _remedy(report: ChatReport, chat: Chat) -> str:
    """By the reason that leaves most of them out."""
    reason = max(report.left_out, key=lambda reason: report.left_out[reason].count, default="")
    if reason == TOO_LONG:
        return RAISE + '; or too_long = "turns" keeps the turns that fit; or raise most_untrained if they may go.'
    if reason.startswith("longer"):
        return RAISE + '; or too_long = "truncate" trains on answers that are cut; or raise most_untrained if they may go.'
    if reason.startswith(UNMASKABLE) and "no special token" in reason:
        return _closing_remedy(chat)
    if reason.startswith(UNMASKABLE) and "leaves out" in reason:
        return f'The template ({chat.template}) has no place for them; take one that has: template = "chatml".'
    if reason.startswith(UNMASKABLE) and "the template" in reason:
        return f'The template ({chat.template}) cannot be masked; take another one: template = "chatml".'
    if reason.startswith(UNMASKABLE):
        return "Mend these rows, or take them out of the source; or raise most_untrained if they may go."
    if "template refuses" in reason:
        return f"Take a template other than {chat.template} that has a form for such conversations (olmo, chatml)."
    return "Mend these rows (an assistant turn with words is needed); or raise most_untrained if they may go."


def _closed(source: str, report: ChatReport, chat: Chat) -> list[Finding]:
    """Answers that the model would never learn to end."""
    if not report.kept or (report.closing and not report.unclosed):
        return []
    if not report.unclosed:
        what = f"{source}: every answer is cut before its end: the model would not learn to stop."
        remedy = RAISE + '; or too_long = "turns" keeps the whole turns that fit.'
        return [Finding(what, remedy, dead=chat.most_untrained < 1)]  # as it is in a smoke run
    which = f"{report.unclosed:,} of {report.turns:,} answers not" if report.closing else "no answer"
    what = f"{source}: the template ({chat.template}) closes {which} with a special token: the model would not learn to stop."
    return [Finding(what, _closing_remedy(chat))]


def _closing_remedy(chat: Chat) -> str:
    if not chat.missing:
        return 'Write {{ eos_token }} after each answer in the template; or take another one: template = "chatml".'
    names = ", ".join(f'"{token}"' for token in chat.missing)
    lacking = f"The vocabulary lacks what the template writes: add_tokens = [{names}]"
    return f'{lacking}; or take a template that needs none of them: template = "tulu".'


def _thinking(source: str, report: ChatReport, chat: Chat) -> list[Finding]:
    """Thinking that is there and not trained on, of most answers that have some."""
    if 2 * report.thoughtless <= report.thinking:
        return []
    what = f"{source}: the template ({chat.template}) leaves out the thinking of {report.thoughtless:,} of {report.thinking:,} "
    what += "last answers: the model would not learn to think."
    return [Finding(what, 'Take a template that writes it: template = "chatml" or "olmo".', dead=False)]


def _measured(source: str, report: ChatReport) -> list[Finding]:
    if report.kept or not report.conversations:
        return []
    what = f"{source}: of {report.conversations:,} held-out conversations none has a trained token:{_rows(report)}"
    return [Finding(what, "Hold out more (heldout), or mend what is said of the rows.")]


class Trained:
    """Every conversation that a stage trains on, of all its sources: those of a held-out file may stand in another source."""

    def __init__(self, sources: Sequence[Shards]) -> None:
        self._sources = sources
        found = [read_hashes(shards.train) for shards in sources]
        self.hashes = np.concatenate(found) if found else np.empty((0, 2), np.uint64)
        """As `read_hashes` gives them, a source after the other."""
        self._ends = np.cumsum([len(hashes) for hashes in found], dtype=np.int64)

    def place(self, number: int, source: str) -> str:
        """Where a conversation stands, as one of `source` would be told."""
        which = int(np.searchsorted(self._ends, number, side="right"))
        shards, before = self._sources[which], int(self._ends[which - 1]) if which else 0
        _, path = TokenShards(shards.train).names({number - before})[number - before]
        return path if shards.source == source else f"{path} of {shards.source}"


def _shared(source: str, heldout: Path, trained: Trained) -> list[Finding]:
    """Held-out conversations that are trained on, whole or by their first question."""
    hashes = read_hashes(heldout)
    whole = np.isin(hashes[:, 0], trained.hashes[:, 0])
    asked = np.isin(hashes[:, 1], trained.hashes[:, 1]) & ~whole
    names, count = TokenShards(heldout), f"{len(hashes):,} held-out conversations"

    def pairs(column: int, documents: np.ndarray) -> Iterator[str]:
        """Places of held-out rows, each with that of its double."""
        held = names.names(set(documents[:SHOWN].tolist()))
        for document in documents[:SHOWN].tolist():
            double = np.flatnonzero(trained.hashes[:, column] == hashes[document, column])[0]
            yield f"{held[document][1]} is {trained.place(int(double), source)}"
        if len(documents) > SHOWN:
            yield "..."

    found = []
    remedy = "Take the doubles out of the source, or hold out a file of its own (heldout)."
    if whole.any():
        what = f"{source}: {whole.sum():,} of {count} are trained on, word for word: "
        found.append(Finding(f"{what}{', '.join(pairs(0, np.flatnonzero(whole)))}.", remedy))
    if asked.any():
        what = f"{source}: {asked.sum():,} of {count} ask first what is trained on: "
        found.append(Finding(f"{what}{', '.join(pairs(1, np.flatnonzero(asked)))}.", remedy, dead=False))
    return found
