"""tokens: the text sources as token shards, made once and shared by the stages that train on text.

Tokenising happens here, outside any process group: it would trip a collective's time-out on large corpora.
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from llmctl import events
from llmctl.recipe.schema import Recipe
from llmctl.stages.node import Context, Node, Outcome


def node(recipe: Recipe) -> Node:
    return Node("tokens", "tokens", 2, ("corpus", "tokenizer"), {}, work)


def work(context: Context) -> Outcome:
    from llmctl.runs.files import read_json
    from llmctl.tokens.shards import TokenShards
    from llmctl.tokens.text_shards import TextShards

    corpus, folder = context.parents["corpus"].folder, context.artifact.folder
    tokenizer = str(context.parents["tokenizer"].folder / "tokenizer")
    sizes = read_json(corpus / "stats.json")
    rows, metrics = [], {}
    for name in context.recipe.text_sources:
        out = folder / "shards" / name
        if not out.exists():  # written aside and renamed, so that one that is there is whole
            documents = partial(_written, corpus, name)
            TextShards(tokenizer, out).write(documents, sizes[name]["train_bytes"])
        shards = TokenShards(out)
        metrics[f"tokens/{name}"] = shards.tokens
        rows.append((name, f"{shards.documents:,}", f"{shards.tokens:,}", f"{shards.bytes / max(1, shards.tokens):.2f}"))
    events.emit(events.Table("training tokens", ("source", "documents", "tokens", "bytes per token"), tuple(rows)))
    return Outcome(["shards"], metrics=metrics)


def _written(corpus: Path, name: str) -> Iterator[tuple[str, str, str]]:
    from llmctl.corpus.documents import read_documents

    return ((document.id, document.text, document.path) for document in read_documents(corpus, name, "train"))
