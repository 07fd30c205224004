"""corpus: every source of the recipe, snapshot into the run with a held-out split, so that later changes outside do
not reach it.

Takes: the sources named in `[corpus.sources]`. Leaves: `documents/` and `conversations/`, one compressed JSON-lines file
per source and split, and `stats.json`.
"""

import shutil
from collections.abc import Callable
from pathlib import Path

from llmctl import events
from llmctl.errors import UserError
from llmctl.recipe.fields import is_path
from llmctl.recipe.graph import identity as identity_of
from llmctl.recipe.schema import Recipe, TrainTable
from llmctl.recipe.tokenizer_schema import TokenizerTable
from llmctl.runs.keys import fingerprint_path
from llmctl.stages.node import Context, Node, Outcome
from llmctl.stages.questions import asked_in, tasks_of
from llmctl.suites import catalog
from llmctl.suites.task import Task

RULER_BYTES, RULER_VOCABULARY = 2_000_000, 32_768  # of the tokenizer that what was left out is counted by


def node(recipe: Recipe) -> Node:
    table = recipe.corpus
    local = {
        name: fingerprint_path(Path(source.path))
        for name, source in table.sources.items()
        if source.kind != "tokens" and is_path(source.path)
    }
    local |= {
        f"held out of {name}": fingerprint_path(Path(source.heldout))
        for name, source in table.sources.items()
        if source.heldout is not None and is_path(source.heldout)
    }
    filters = [table.filter, *(source.filter for source in table.sources.values())]
    named = [file for rules in filters if rules is not None for file in (rules.language_model, *rules.blocked_domains)]
    places = [place for classifier in table.classifiers.values() for found in classifier.labels.values() for place in found]
    labelled = [Path(place) for place in places if place not in table.sources and is_path(place)]
    local |= {str(path): fingerprint_path(path) for path in [*(Path(file) for file in named if file is not None), *labelled]}
    looked_at = sources_to_decontaminate(recipe)
    questions = catalog.fingerprint(asked_in(recipe, recipe.eval.suites)) if looked_at else []
    decontaminated = {"sources": looked_at, "suites": questions}
    identity = {"corpus": identity_of(table), "seed": recipe.seed, "files": local, "decontaminated": decontaminated}
    return Node("corpus", "corpus", 3, (), identity, work)


def sources_to_decontaminate(recipe: Recipe) -> dict[str, bool]:
    """Sources whose text is compared with the evaluation's questions, each with whether it holds conversations."""
    table, sources = recipe.corpus.decontaminate, recipe.corpus.sources
    if not table.on or not asked_in(recipe, recipe.eval.suites):
        return {}
    stages = [stage for stage in recipe.stages.values() if isinstance(stage, TrainTable)]
    first, later = ({n for s in stages if (s.kind == "pretrain") == at for n in sources_of(s)} for at in (True, False))
    wanted = set(table.sources) or later - first
    return {name: sources[name].kind == "chat" for name in sources if name in wanted}


def sources_of(stage: TrainTable) -> list[str]:
    return [*stage.mix, *getattr(stage, "long_mix", ())]


def all_questions(corpus: Path, recipe: Recipe) -> list[Task]:
    """The tasks of the evaluation with every question that could be asked, whatever the number that is."""
    return tasks_of(asked_in(recipe, recipe.eval.suites), corpus, recipe, None)[0]


def token_counter(recipe: Recipe, corpus: Path) -> Callable[[list[str]], int] | None:
    """Counts tokens nearly as the recipe's tokenizer will, which is made after the corpus: with the one that it names, or one
    trained on a sample of the corpus. None where there is neither."""
    from llmctl.stages.tokenizer import external_origin, texts_up_to
    from llmctl.tokens.encoder import Encoder
    from llmctl.tokens.tokenizer import load_tokenizer, train_tokenizer

    table, folder = recipe.tokenizer, corpus / ".pools" / "tokenizer"
    origin = table.path if table is not None else external_origin(recipe)
    if origin is None and not recipe.text_sources:
        return None
    try:
        if origin is None:
            chosen = table or TokenizerTable()
            texts = texts_up_to(corpus, chosen.sources or recipe.text_sources, RULER_BYTES)
            train_tokenizer(texts, min(chosen.vocab_size, RULER_VOCABULARY), folder, chosen.trainer)
        encode = Encoder(load_tokenizer(origin or str(folder)))
    except UserError as error:  # a tokenizer out of reach, say, which a later stage may have no need for
        events.warn(f"the tokens of what was left out are not counted: {error}")
        return None
    return lambda texts: len(encode(texts)[0])


def work(context: Context) -> Outcome:
    from llmctl.corpus.attrition import Attrition
    from llmctl.corpus.page import write_page
    from llmctl.corpus.snapshot import show, snapshot
    from llmctl.runs.files import write_json

    table, out = context.recipe.corpus, context.artifact.folder
    attrition = Attrition()
    counts = snapshot(table, context.recipe.seed, out, attrition)
    if table.dedup is not None:
        from llmctl.corpus.dedup import drop_copies

        drop_copies(out, context.recipe.text_sources, table, table.dedup, counts, attrition)
    looked_at = sources_to_decontaminate(context.recipe)
    if looked_at:
        from llmctl.corpus.decontamination import decontaminate

        decontaminate(out, looked_at, all_questions(out, context.recipe), table.decontaminate, counts, attrition)
    measures = {}
    if table.classifiers:
        from llmctl.corpus.scoring import score_corpus

        measures = score_corpus(out, context.recipe.text_sources, table, counts, attrition)
    count = token_counter(context.recipe, out)
    if count is not None:
        attrition.count_tokens(count)
    shutil.rmtree(out / ".pools", ignore_errors=True)
    show(counts, attrition)
    stats = {name: dict(count) for name, count in counts.items()}
    write_json(out / "stats.json", stats)
    write_json(out / "attrition.json", attrition.rows())
    write_page(out, context.recipe, stats, attrition.rows())
    events.say(f"what is there and what was left out, with samples: {out / 'corpus.html'}")
    kept = ["stats.json", "attrition.json", "corpus.html", "rejects", "scores", "classifiers"]
    return Outcome(["documents", "conversations"], kept=kept, metrics=stats | {"classifiers": measures})
