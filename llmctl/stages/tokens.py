"""tokens: the text sources as token shards, made once and shared by the stages that train on text.

Tokenising happens here, outside any process group: it would trip a collective's time-out on large corpora.
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from llmctl import events
from llmctl.corpus.documents import Split
from llmctl.recipe.schema import Recipe
from llmctl.recipe.train_schema import InfillingTable
from llmctl.runs.keys import fingerprint_path
from llmctl.stages.node import Context, Node, Outcome


def node(recipe: Recipe) -> Node:
    taken_over = {name: fingerprint_path(Path(recipe.corpus.sources[name].path)) for name in recipe.token_sources}
    return Node("tokens", "tokens", 2, ("corpus", "tokenizer"), {"taken over": taken_over}, work)


def work(context: Context) -> Outcome:
    from llmctl.tokens.adopted_shards import adopt_shards
    from llmctl.tokens.shards import TokenShards
    from llmctl.tokens.tokenizer import load_tokenizer

    corpus, folder = context.parents["corpus"].folder, context.artifact.folder
    tokenizer = str(context.parents["tokenizer"].folder / "tokenizer")
    rows, metrics = [], {}
    for name in [*context.recipe.text_sources, *context.recipe.token_sources]:
        out = folder / "shards" / name
        if name in context.recipe.text_sources:
            tokenise(corpus, name, tokenizer, out)
        elif not out.exists():
            adopt_shards(Path(context.recipe.corpus.sources[name].path), load_tokenizer(tokenizer), out)
        shards = TokenShards(out)
        metrics[f"tokens/{name}"] = shards.tokens
        per_token = f"{shards.bytes / max(1, shards.tokens):.2f}" if shards.bytes else ""  # of ids no text is known
        rows.append((name, f"{shards.documents:,}", f"{shards.tokens:,}", per_token))
    events.emit(events.Table("training tokens", ("source", "documents", "tokens", "bytes per token"), tuple(rows)))
    return Outcome(["shards"], metrics=metrics)


def tokenise(
    corpus: Path, source: str, tokenizer: str, out: Path, infilling: InfillingTable | None = None, part: Split = "train"
) -> Path:
    """The token shards `out` of a source's documents for training, or of those held out, made where they are not there yet."""
    from llmctl.runs.files import read_json
    from llmctl.tokens.text_shards import TextShards

    if not out.exists():  # it gets its name when it is whole
        size = read_json(corpus / "stats.json")[source][f"{part}_bytes"]
        TextShards(tokenizer, out, infilling=infilling).write(partial(_written, corpus, source, part), size)
    return out


def _written(corpus: Path, source: str, part: Split) -> Iterator[tuple[str, str, str]]:
    from llmctl.corpus.documents import read_documents

    return ((document.id, document.text, document.path) for document in read_documents(corpus, source, part))
