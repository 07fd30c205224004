"""corpus: every source of the recipe, snapshot into the run with a held-out split, so that later changes outside do
not reach it.

Takes: the sources named in `[corpus.sources]`. Leaves: `documents/` and `conversations/`, one compressed JSON-lines file
per source and split, and `stats.json`.
"""

from pathlib import Path

from llmctl.recipe.graph import identity as identity_of
from llmctl.recipe.schema import Recipe
from llmctl.runs.keys import fingerprint_path
from llmctl.stages.node import Context, Node, Outcome

BUILTIN, HUB = "builtin:", "hf:"


def node(recipe: Recipe) -> Node:
    table = recipe.corpus
    local = {
        name: fingerprint_path(Path(source.path))
        for name, source in table.sources.items()
        if not source.path.startswith((BUILTIN, HUB))
    }
    identity = {"corpus": identity_of(table), "seed": recipe.seed, "files": local}
    return Node("corpus", "corpus", 1, (), identity, work)


def work(context: Context) -> Outcome:
    from llmctl.corpus.snapshot import SourceSpec, show, snapshot
    from llmctl.runs.files import write_json

    table = context.recipe.corpus
    specs = [
        SourceSpec(
            name=name,
            path=source.path,
            kind=source.kind,
            max_bytes=source.max_bytes,
            text_field=source.text_field,
            split=source.split,
            subset=source.subset,
            on_error=source.on_error,
        )
        for name, source in table.sources.items()
    ]
    out = context.artifact.folder
    stats = snapshot(specs, table.heldout_fraction, context.recipe.seed, out)
    if table.dedup is not None:
        from llmctl.corpus.dedup import drop_copies

        texts = [spec.name for spec in specs if not spec.is_chat]
        drop_copies(out, texts, table.dedup, stats, table.engine, table.ray_address)
    show(stats)
    write_json(out / "stats.json", stats)
    return Outcome(["documents", "conversations"], kept=["stats.json", "rejects"], metrics=stats)
