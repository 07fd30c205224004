"""tokens: the text sources as token shards, made once and shared by the stages that train on text.

Tokenising happens here, outside any process group: it would trip a collective's time-out on large corpora.
"""

from llmctl import events
from llmctl.recipe.schema import Recipe
from llmctl.stages.node import Context, Node, Outcome


def node(recipe: Recipe) -> Node:
    return Node("tokens", "tokens", 1, ("corpus", "tokenizer"), {}, work)


def work(context: Context) -> Outcome:
    from llmctl.corpus.documents import read_documents
    from llmctl.tokens.shards import TokenShards, write_text_shards
    from llmctl.tokens.tokenizer import load_tokenizer

    corpus, folder = context.parents["corpus"].folder, context.artifact.folder
    tokenizer = load_tokenizer(str(context.parents["tokenizer"].folder / "tokenizer"))
    rows, metrics = [], {}
    for name in context.recipe.text_sources:
        out = folder / "shards" / name
        if not out.exists():  # written aside and renamed, so that one that is there is whole
            documents = ((document.id, document.text) for document in read_documents(corpus, name, "train"))
            write_text_shards(documents, tokenizer, out)
        shards = TokenShards(out)
        metrics[f"tokens/{name}"] = shards.tokens
        rows.append((name, f"{shards.documents:,}", f"{shards.tokens:,}", f"{shards.bytes / max(1, shards.tokens):.2f}"))
    events.emit(events.Table("training tokens", ("source", "documents", "tokens", "bytes per token"), tuple(rows)))
    return Outcome(["shards"], metrics=metrics)
