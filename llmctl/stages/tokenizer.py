"""tokenizer: trained on the corpus, or taken from a folder or the hub.

Leaves: `tokenizer/`, what `AutoTokenizer` loads, and bytes per token of every source's held-out text.
"""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from llmctl import events
from llmctl.recipe.schema import Recipe
from llmctl.runs.keys import fingerprint_path
from llmctl.stages.node import Context, Node, Outcome

SAMPLE_DOCUMENTS = 200


def node(recipe: Recipe) -> Node:
    table = recipe.tokenizer
    origin = table.path if table else external_origin(recipe)
    identity = {
        "tokenizer": table.model_dump(mode="json") if table else None,
        "from": None if table else origin,
        "files": fingerprint_path(Path(origin)) if origin and Path(origin).exists() else None,
    }
    return Node("tokenizer", "tokenizer", 1, ("corpus",), identity, work)


def external_origin(recipe: Recipe) -> str | None:
    """The model outside the recipe that its stages start from: its tokenizer serves when none is trained."""
    for stage in recipe.stages.values():
        if stage.from_ is not None and stage.from_ not in recipe.stages:
            return stage.from_
    return None


def work(context: Context) -> Outcome:
    from llmctl.corpus.documents import read_documents
    from llmctl.tokens.template import ensure_template
    from llmctl.tokens.tokenizer import compression, load_tokenizer, train_tokenizer

    recipe, folder = context.recipe, context.artifact.folder / "tokenizer"
    corpus = context.parents["corpus"].folder
    table = recipe.tokenizer
    if table is not None and table.path is None:
        texts = texts_up_to(corpus, table.sources or recipe.text_sources, table.train_bytes)
        train_tokenizer(texts, table.vocab_size, folder, table.trainer)
    else:
        origin = table.path if table is not None else external_origin(recipe)
        assert origin is not None  # the recipe's check
        outside = load_tokenizer(origin)
        if ensure_template(outside):
            events.say(f"{origin}: its tokenizer has no chat template and is given one")
        outside.save_pretrained(folder)
    tokenizer = load_tokenizer(str(folder))
    rows: list[tuple[str, str]] = []
    metrics: dict[str, float] = {"vocabulary": len(tokenizer)}
    for name in recipe.text_sources:
        sample = [document.text for document in islice(read_documents(corpus, name, "heldout"), SAMPLE_DOCUMENTS)]
        if sample:
            metrics[f"bytes_per_token/{name}"] = compression(tokenizer, sample)
            rows.append((name, f"{metrics[f'bytes_per_token/{name}']:.3f}"))
    events.emit(events.Table(f"tokenizer: {len(tokenizer):,} tokens", ("held-out source", "bytes per token"), tuple(rows)))
    return Outcome(["tokenizer"], metrics=metrics)


def texts_up_to(corpus: Path, sources: list[str], budget: int) -> Iterator[str]:
    """Training texts of the sources, an equal share of `budget` bytes from each."""
    from llmctl.corpus.documents import read_documents

    share = budget // max(1, len(sources))
    for name in sources:
        left = share
        for document in read_documents(corpus, name, "train"):
            if left <= 0:
                break
            left -= len(document.text.encode())
            yield document.text
