"""Conversations of a stage as token shards, with the chat template and tokens that it asks for; judged before any model is
loaded."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmctl import events
from llmctl.corpus.documents import Split, read_conversations
from llmctl.recipe.chat_schema import ChatTable
from llmctl.recipe.graph import line_of
from llmctl.runs.files import staged_folder
from llmctl.stages.training import Stage


@dataclass(frozen=True, slots=True)
class Talks:
    """What a stage trains on, ready in its folder."""

    tokenizer: Path
    train: dict[str, Path]
    """Token shards by source."""
    heldout: dict[str, Path]
    findings: list[Any]
    """`Finding`s of the preflight; the worst first."""


def prepare(stage: Stage) -> Talks:
    """Token shards of the stage's sources with their masks, for training and held out, made where they are not there yet."""
    from llmctl.preflight.chat import Chat, Shards, findings
    from llmctl.tokens.template import missing_tokens
    from llmctl.tokens.tokenizer import load_tokenizer

    table = chat_table(stage)
    folder, config = chat_tokenizer(stage), parent_config(stage)
    tokenizer = load_tokenizer(str(folder))
    longest = table.seq_len if config is None else min(table.seq_len, config.max_position_embeddings)
    if longest < table.seq_len:
        at_most = f"{longest:,} tokens, the context of the model"
        events.say(f"{stage.name}: a row has {table.seq_len:,} tokens, and a conversation {at_most}, at most")
    train = {source: _shards(stage, tokenizer, source, longest, "train") for source in table.mix}
    heldout = {source: _shards(stage, tokenizer, source, longest, "heldout") for source in table.mix}
    chat = Chat(
        [Shards(source, train[source], heldout[source]) for source in table.mix],
        table.most_untrained,
        template_name(stage),
        len(tokenizer),
        missing_tokens(tokenizer),
        config.vocab_size if config is not None else None,
        resized=needs_embeddings(stage),
        unended=_unended(tokenizer),
    )
    return Talks(folder, train, heldout, findings(chat))


def _unended(tokenizer: Any) -> str:
    """Why the template refuses what `end_of_turn_ids` asks of it, as it is asked when the trained weights are written."""
    from llmctl.tokens.template import Refused, end_of_turn_ids

    try:
        end_of_turn_ids(tokenizer)
    except Refused as error:
        return error.reason
    return ""


def chat_table(stage: Stage) -> ChatTable:
    assert isinstance(stage.table, ChatTable)
    return stage.table


def _shards(stage: Stage, tokenizer: Any, source: str, longest: int, split: Split) -> Path:
    """Token shards of a source's conversations, each of at most `longest` tokens."""
    from llmctl.tokens.chat_shards import ChatSettings, write_chat_shards

    table = chat_table(stage)
    out = stage.folder / "data" / split / source
    if not out.exists():  # it gets its name when it is whole
        settings = ChatSettings(table.loss_on, longest, table.too_long)
        name = f"{source}, held out" if split == "heldout" else source
        write_chat_shards(read_conversations(stage.corpus, source, split), tokenizer, out, settings, name)
    return out


def chat_tokenizer(stage: Stage) -> Path:
    """The tokenizer of a stage: the run's, with the tokens and the template that it or a stage before it asks for."""
    from llmctl.tokens.template import add_tokens, set_template
    from llmctl.tokens.tokenizer import load_tokenizer

    folder, asking = stage.run_tokenizer, asked_by(stage)
    own = stage.own_tokenizer
    if not asking or own.exists():
        return own if asking else folder
    tokenizer = load_tokenizer(str(folder))
    for table in asking:
        add_tokens(tokenizer, table.add_tokens)
        if table.template is not None:
            set_template(tokenizer, table.template)
    with staged_folder(own) as aside:
        tokenizer.save_pretrained(aside)
    events.say(f"{stage.name}: {len(tokenizer):,} tokens, chat template {template_name(stage)}")
    return own


def asked_by(stage: Stage) -> list[ChatTable]:
    """The tables that ask for tokens or a template, from the first stage of the line to this one."""
    line = line_of(stage.recipe, stage.table)[::-1]
    return [table for table in line if isinstance(table, ChatTable) and (table.template is not None or table.add_tokens)]


def template_name(stage: Stage) -> str:
    named = [table.template for table in asked_by(stage) if table.template is not None]
    return named[-1] if named else "the tokenizer's own"


def added_tokens(stage: Stage) -> int:
    """Tokens named in `add_tokens` that need an embedding: those that are new with this stage, and those that the tokenizer
    has beyond the rows that the parent embeds."""
    from llmctl.tokens.tokenizer import load_tokenizer

    named = set(chat_table(stage).add_tokens)
    if not named:
        return 0
    known = load_tokenizer(str(stage.run_tokenizer)).get_vocab().keys()
    before = {token for table in asked_by(stage) if table is not stage.table for token in table.add_tokens}
    vocabulary, config = load_tokenizer(str(chat_tokenizer(stage))).get_vocab(), parent_config(stage)
    beyond = {token for token in named if config is not None and vocabulary[token] >= config.vocab_size}
    return len((named - before - known) | beyond)


def needs_embeddings(stage: Stage) -> bool:
    """Whether the model is given an embedding for each token of the stage's tokenizer."""
    return added_tokens(stage) > 0


def parent_config(stage: Stage) -> Any | None:
    """Configuration of the text model that the stage starts from; None while that is a stage that is not made yet."""
    from llmctl.model.load import load_config

    if stage.parent is None and stage.table.from_ in stage.recipe.stages:
        return None
    return load_config(str(stage.parent_model)).get_text_config()
