"""Conversations as token shards with masks."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np

from llmctl import events
from llmctl.errors import UserError
from llmctl.runs.files import staged_folder
from llmctl.tokens.shards import PartWriter, kind_of_ids, write_meta
from llmctl.tokens.template import Messages, encode_conversation


class Talk(Protocol):
    """A conversation, as the corpus has it."""

    @property
    def messages(self) -> Messages: ...
    @property
    def id(self) -> str: ...
    @property
    def path(self) -> str: ...
    @property
    def size(self) -> int: ...


def write_chat_shards(
    conversations: Iterable[Talk],
    tokenizer: Any,
    out: Path,
    loss_on: Literal["assistant", "last_turn"],
    max_tokens: int,
    name: str = "conversations",
) -> None:
    """Tokenise conversations with their masks. One that is longer than `max_tokens`, or has no trained token, is left
    out and counted.

    Raises:
        UserError: none is left.
    """
    kind, too_long, untrained = kind_of_ids(tokenizer), 0, 0
    with staged_folder(out) as aside:
        writer = PartWriter(aside, 0, kind, masked=True)
        for conversation in conversations:
            ids, mask = encode_conversation(tokenizer, conversation.messages, loss_on)
            if len(ids) > max_tokens:
                too_long += 1
            elif not mask.any():
                untrained += 1
            else:
                writer.add(np.asarray(ids), conversation.id, conversation.path, conversation.size, mask)
            if (len(writer.lengths) + too_long + untrained) % 256 == 0:
                events.progress(f"tokenising {name}", len(writer.lengths), None, "conversations")
        part = writer.close()
        if not writer.lengths:
            raise UserError(
                f"{name}: no conversation is left to train on: {too_long:,} longer than seq_len = {max_tokens:,} tokens, "
                f"{untrained:,} without an answer"
            )
        if too_long or untrained:
            events.say(
                f"{name}: left out {too_long:,} conversations longer than {max_tokens:,} tokens and {untrained:,} without a "
                f"trained token; {len(writer.lengths):,} stay"
            )
        write_meta(aside, kind, [part], writer.lengths)
