"""tokens: the text sources as token shards, made once and shared by the stages that train on text.

Tokenising happens here, outside any process group: it would trip a collective's time-out on large corpora.
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from llmctl import events
from llmctl.recipe.schema import InfillingTable, Recipe
from llmctl.stages.node import Context, Node, Outcome


def node(recipe: Recipe) -> Node:
    return Node("tokens", "tokens", 2, ("corpus", "tokenizer"), {}, work)


def work(context: Context) -> Outcome:
    from llmctl.tokens.shards import TokenShards

    corpus, folder = context.parents["corpus"].folder, context.artifact.folder
    tokenizer = str(context.parents["tokenizer"].folder / "tokenizer")
    rows, metrics = [], {}
    for name in context.recipe.text_sources:
        shards = TokenShards(tokenise(corpus, name, tokenizer, folder / "shards" / name))
        metrics[f"tokens/{name}"] = shards.tokens
        rows.append((name, f"{shards.documents:,}", f"{shards.tokens:,}", f"{shards.bytes / max(1, shards.tokens):.2f}"))
    events.emit(events.Table("training tokens", ("source", "documents", "tokens", "bytes per token"), tuple(rows)))
    return Outcome(["shards"], metrics=metrics)


def tokenise(corpus: Path, source: str, tokenizer: str, out: Path, infilling: InfillingTable | None = None) -> Path:
    """The token shards `out` of a source's training documents, made where they are not there yet."""
    from llmctl.runs.files import read_json
    from llmctl.tokens.text_shards import TextShards

    if not out.exists():  # it gets its name when it is whole
        size = read_json(corpus / "stats.json")[source]["train_bytes"]
        TextShards(tokenizer, out, infilling=infilling).write(partial(_written, corpus, source), size)
    return out


def _written(corpus: Path, source: str) -> Iterator[tuple[str, str, str]]:
    from llmctl.corpus.documents import read_documents

    return ((document.id, document.text, document.path) for document in read_documents(corpus, source, "train"))
