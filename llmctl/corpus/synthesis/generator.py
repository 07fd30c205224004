"""Who writes the tasks: what is asked of a generator, and the generator that a recipe names."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from llmctl.recipe.long_schema import SyntheticTable


@dataclass(frozen=True, slots=True)
class CountRequest:
    """Questions on how often words occur in a part of a document, as JSON."""

    prompt: str
    seed: str
    counts: dict[str, int]
    """The words to ask for, and how often each occurs."""


@dataclass(frozen=True, slots=True)
class TextRequest:
    """A text of a certain kind on passages that share a phrase."""

    prompt: str
    seed: str
    kind: str
    phrase: str
    passages: list[str]


Request = CountRequest | TextRequest


class Generator(Protocol):
    def write(self, requests: Sequence[Request]) -> list[str]:
        """A text for each request, in their order; an empty one where there is nothing to say."""
        ...


def open_generator(table: SyntheticTable, seed: int) -> Generator:
    """The generator that `[longctx.synthetic] generator` names. It has answered once when it is an endpoint.

    Raises:
        UserError: a folder or hub name is no model, or an endpoint does not answer.
    """
    if table.generator == "template":
        from llmctl.corpus.synthesis.templates import TemplateWriter

        return TemplateWriter(seed)
    if re.match(r"https?://", table.generator):
        from llmctl.corpus.synthesis.endpoint import Endpoint

        endpoint = Endpoint(table.generator, table.model, table.api_key_variable)
        endpoint.check()
        return endpoint
    from llmctl.corpus.synthesis.checkpoint import CheckpointWriter

    return CheckpointWriter(table.generator)
