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
    filters = [table.filter, *(source.filter for source in table.sources.values())]
    models = [Path(rules.language_model) for rules in filters if rules is not None and rules.language_model is not None]
    places = [place for classifier in table.classifiers.values() for found in classifier.labels.values() for place in found]
    labelled = [Path(place) for place in places if place not in table.sources]
    local |= {str(path): fingerprint_path(path) for path in models + labelled}
    identity = {"corpus": identity_of(table), "seed": recipe.seed, "files": local}
    return Node("corpus", "corpus", 2, (), identity, work)


def work(context: Context) -> Outcome:
    from llmctl.corpus.attrition import Attrition
    from llmctl.corpus.snapshot import show, snapshot
    from llmctl.runs.files import write_json

    table, out = context.recipe.corpus, context.artifact.folder
    attrition = Attrition()
    counts = snapshot(table, context.recipe.seed, out, attrition)
    if table.dedup is not None:
        from llmctl.corpus.dedup import drop_copies

        drop_copies(out, context.recipe.text_sources, table, table.dedup, counts, attrition)
    measures = {}
    if table.classifiers:
        from llmctl.corpus.scoring import score_corpus

        measures = score_corpus(out, context.recipe.text_sources, table, counts, attrition)
    show(counts, attrition)
    stats = {name: dict(count) for name, count in counts.items()}
    write_json(out / "stats.json", stats)
    write_json(out / "attrition.json", attrition.rows())
    kept = ["stats.json", "attrition.json", "rejects", "scores", "classifiers"]
    return Outcome(["documents", "conversations"], kept=kept, metrics=stats | {"classifiers": measures})
