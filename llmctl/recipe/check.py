"""Mistakes that no single key shows: how the tables of a recipe fit each other. All are found in one pass."""

from collections.abc import Iterator, Set
from pathlib import Path

from llmctl.recipe.check_training import check_mix, check_stage
from llmctl.recipe.corpus_schema import CHAT_BUILTINS, FIELDS_OF_SHAPES, TEXT_BUILTINS, SourceTable
from llmctl.recipe.execution_schema import decided_elsewhere
from llmctl.recipe.fields import BUILTIN, is_address, is_path
from llmctl.recipe.filter_schema import FilterTable
from llmctl.recipe.graph import stage_order
from llmctl.recipe.outside import check_model_folder
from llmctl.recipe.positions import Key
from llmctl.recipe.presets import SHAPES, resolve_model
from llmctl.recipe.schema import (
    RESERVED,
    AverageTable,
    LongContextTable,
    Recipe,
    StageTable,
    TrainTable,
)

Problem = tuple[Key, str]


def check(recipe: Recipe, broken: Set[str] = frozenset()) -> list[Problem]:
    """Every mistake, with the key where it is best mended. Nothing is said that depends on a table in `broken`: tables that
    are left out of `recipe` for mistakes of their own."""
    problems = list(check_order(recipe, broken))
    if "corpus" not in broken:
        problems += check_sources(recipe)
    if not {"corpus", "tokenizer"} & broken:
        problems += check_tokenizer(recipe, broken)
    if "model" not in broken:
        problems += check_model(recipe)
    problems += check_deepspeed(recipe)
    problems += check_long_questions(recipe, broken)
    for stage in recipe.stages.values():
        key: Key = (stage.name,) if stage.name == stage.kind else ("stage", stage.name)
        if stage.name in RESERVED:
            problems.append((key, f"{stage.name!r} is taken: every run has a step of that name"))
        problems += [((*key, field), message) for field, message in check_parent(recipe, stage, broken)]
        if isinstance(stage, TrainTable):
            found = [*check_stage(recipe, stage), *(check_mix(recipe, stage) if "corpus" not in broken else ())]
            problems += [((*key, *field.split(".")), message) for field, message in found]
    return problems


def check_deepspeed(recipe: Recipe) -> Iterator[Problem]:
    for key, ours in decided_elsewhere(recipe.deepspeed):
        yield ("deepspeed", *key.split(".")), f"{key} is decided by a stage's own keys: {ours}"


def check_long_questions(recipe: Recipe, broken: Set[str]) -> Iterator[Problem]:
    """Nothing where a stage is broken: its length is not known."""
    if "eval" in broken or broken - Recipe.model_fields.keys():
        return
    trained = [stage for stage in recipe.stages.values() if isinstance(stage, TrainTable)]
    if not any(isinstance(stage, LongContextTable) for stage in trained):
        return
    longest = max(trained, key=lambda stage: stage.seq_len)
    if longer := [length for length in recipe.eval.long.lengths if length > longest.seq_len]:
        yield (
            ("eval", "long", "lengths"),
            f"lengths = {', '.join(f'{length:,}' for length in longer)}: longer than the longest seq_len of the stages, "
            f"{longest.seq_len:,} of [{longest.name}]",
        )


def check_sources(recipe: Recipe) -> Iterator[Problem]:
    for name, source in recipe.corpus.sources.items():
        key = ("corpus", "sources", name, "path")
        if source.path.startswith(BUILTIN):
            if source.path not in CHAT_BUILTINS + TEXT_BUILTINS:
                yield key, f"path = {source.path!r}: unknown; known are {', '.join(TEXT_BUILTINS + CHAT_BUILTINS)}"
        elif source.kind == "tokens" and not is_path(source.path):
            yield key, f"path = {source.path!r}: token ids are read where they are: copy them to a folder of this machine"
        elif is_path(source.path) and not Path(source.path).expanduser().exists():
            yield key, f"path = {source.path!r}: no such file or folder (seen from {Path.cwd()})"
        if source.filter is not None and source.kind == "chat":
            yield ("corpus", "sources", name, "filter"), "a filter is for text, and this source holds conversations"
        yield from check_filter(source.filter, ("corpus", "sources", name, "filter"))
        yield from check_chat(name, source)
    yield from check_filter(recipe.corpus.filter, ("corpus", "filter"))
    yield from check_classifiers(recipe)
    dedup = recipe.corpus.dedup
    if dedup is not None and dedup.keep == "newest" and not any(s.date_field for s in recipe.corpus.sources.values()):
        yield ("corpus", "dedup", "keep"), 'keep = "newest" needs a source with a date_field'
    for name in set(recipe.corpus.decontaminate.sources) - set(recipe.corpus.sources):
        yield ("corpus", "decontaminate", "sources"), f"{name!r} is no source; there are {', '.join(recipe.corpus.sources)}"


def check_chat(name: str, source: SourceTable) -> Iterator[Problem]:
    """What a source says about its conversations."""
    key: Key = ("corpus", "sources", name)
    said = {"shape": source.shape != "auto", "fields": bool(source.fields), "heldout": source.heldout is not None}
    for field in [field for field, is_said in said.items() if is_said]:
        if source.kind != "chat":
            yield (*key, field), f'{field} is for conversations, and this source holds {source.kind}; did you mean kind = "chat"?'
        elif source.path in CHAT_BUILTINS:
            yield (*key, field), f"{field} is for conversations of your own, and {source.path} is built in"
    if source.kind != "chat" or source.path in CHAT_BUILTINS:
        return
    if source.heldout is not None and source.heldout.startswith(BUILTIN):
        yield (*key, "heldout"), f"heldout = {source.heldout!r}: expected a file or folder of conversations"
    elif source.heldout is not None and is_path(source.heldout) and not Path(source.heldout).exists():
        yield (*key, "heldout"), f"heldout = {source.heldout!r}: no such file or folder (seen from {Path.cwd()})"
    if source.shape in FIELDS_OF_SHAPES:
        for field in source.fields.keys() - FIELDS_OF_SHAPES[source.shape]:
            known = ", ".join(sorted(FIELDS_OF_SHAPES[source.shape]))
            yield (*key, "fields", field), f"rows of shape = {source.shape!r} have no {field}; expected {known}"


def check_filter(table: FilterTable | None, key: Key) -> Iterator[Problem]:
    if table is None:
        return
    named = [("language_model", table.language_model), *(("blocked_domains", file) for file in table.blocked_domains)]
    for field, file in named:
        if file is not None and not Path(file).is_file():
            yield (*key, field), f"{field} = {file!r}: no such file (seen from {Path.cwd()})"


def check_classifiers(recipe: Recipe) -> Iterator[Problem]:
    corpus, texts = recipe.corpus, recipe.text_sources
    for name, table in corpus.classifiers.items():
        key: Key = ("corpus", "classifiers", name)
        for label, places in table.labels.items():
            for place in places:
                if place not in texts and not is_address(place) and not Path(place).exists():
                    yield (*key, "labels"), f"{label}: {place!r} is no text source ({', '.join(texts)}), no file and no folder"
        if table.target is not None and table.target not in table.labels:
            yield (*key, "target"), f"target = {table.target!r} is no label; there are {', '.join(table.labels)}"
        if table.drop_lowest and table.target is None:
            yield (*key, "drop_lowest"), "drop_lowest needs a target: the label whose probability is the score"
        for source in set(table.sources) - set(texts):
            yield (*key, "sources"), f"{source!r} is no text source; there are {', '.join(texts)}"
    for name, source in corpus.sources.items():
        if source.upsample is None:
            continue
        table = corpus.classifiers.get(source.upsample.classifier)
        if table is None or table.target is None or (table.sources and name not in table.sources):
            known = ", ".join(n for n, t in corpus.classifiers.items() if t.target is not None) or "none"
            yield (
                ("corpus", "sources", name, "upsample", "classifier"),
                f"classifier = {source.upsample.classifier!r} gives {name!r} no score; classifiers with a target are: {known}",
            )


def check_tokenizer(recipe: Recipe, broken: Set[str]) -> Iterator[Problem]:
    table = recipe.tokenizer
    if table is not None and table.path is not None and not Path(table.path).exists() and not looks_like_hub_name(table.path):
        yield ("tokenizer", "path"), f"path = {table.path!r}: no such folder (seen from {Path.cwd()}), and no hub name"
    inside = recipe.stages.keys() | broken
    outside = [s.from_ for s in recipe.stages.values() if s.from_ is not None and s.from_ not in inside]
    if table is None:
        if recipe.stages and not outside and not broken:
            yield ("tokenizer",), "[tokenizer] is missing, and no stage starts from a model that has one"
        return
    for name in table.sources:
        if name not in recipe.corpus.sources:
            yield ("tokenizer", "sources"), f"{name!r} is no source; there are {', '.join(recipe.corpus.sources)}"
    if table.path is None and not recipe.text_sources:
        yield (
            ("tokenizer",),
            "no text source to train a tokenizer on; name one in [corpus.sources], or set tokenizer.path",
        )


def check_model(recipe: Recipe) -> Iterator[Problem]:
    table = recipe.model
    if table is None:
        for stage in recipe.stages.values():
            if stage.kind == "pretrain" and stage.from_ is None:
                yield ("pretrain",), "makes a new model, but there is no [model]"
        return
    if table.preset is not None and table.preset not in SHAPES:
        yield ("model", "preset"), f"preset = {table.preset!r}: unknown; known are {', '.join(SHAPES)}"
        return
    shape = resolve_model(table)
    missing = [key for key in ("hidden_size", "layers", "heads", "ffn_size", "window") if not shape[key]]
    if missing:
        yield ("model",), f"[model] lacks {', '.join(missing)}; set them, or a preset ({', '.join(SHAPES)})"
        return
    hidden, heads, kv_heads, head_size = (shape[k] for k in ("hidden_size", "heads", "kv_heads", "head_size"))
    if table.head_size is None and hidden % heads:
        yield ("model", "heads"), f"heads = {heads} does not divide hidden_size = {hidden}"
    if heads % kv_heads:
        yield ("model", "kv_heads"), f"kv_heads = {kv_heads} does not divide heads = {heads}"
    if head_size % 2:
        yield ("model", "head_size"), f"a head of {head_size} is odd; rotary positions need pairs"
    trained = recipe.tokenizer.vocab_size if recipe.tokenizer is not None and recipe.tokenizer.path is None else 0
    if table.vocab_size is not None and table.vocab_size < trained:
        yield (
            ("model", "vocab_size"),
            f"vocab_size = {table.vocab_size:,} is less than the tokenizer's {trained:,}; leave it out to take the tokenizer's",
        )


def check_order(recipe: Recipe, broken: Set[str]) -> Iterator[Problem]:
    if not recipe.stages and not recipe.corpus.sources and not broken:
        yield (
            (),
            "the recipe has no stage ([pretrain], [midtrain], [longctx], [sft], [lora]) and no source ([corpus.sources.NAME])",
        )
    circle = set(recipe.stages) - {stage.name for stage in stage_order(recipe)}
    if circle:
        yield (
            ("stage", sorted(circle)[0]),
            f"these stages start from each other in a circle: {', '.join(sorted(circle))}",
        )


def check_parent(recipe: Recipe, stage: StageTable, broken: Set[str]) -> Iterator[tuple[str, str]]:
    named = stage.of if isinstance(stage, AverageTable) else [stage.from_]
    field = "of" if isinstance(stage, AverageTable) else "from"
    for name in named:
        if name in broken:
            continue
        if name is None:
            if stage.kind != "pretrain":
                yield "from", f"[{stage.name}] has no stage before it; set from = a stage, a model folder or a hub name"
        elif name not in recipe.stages and not Path(name).expanduser().exists() and not looks_like_hub_name(name):
            known = ", ".join(n for n in recipe.stages if n != stage.name) or "none"
            yield field, f"{field} = {name!r}: no such stage (there are: {known}), no such folder"
        elif name not in recipe.stages and Path(name).expanduser().exists():
            yield from ((field, f"{field} = {message}") for message in check_model_folder(recipe, name))
    if isinstance(stage, AverageTable) and stage.weights is not None and len(stage.weights) != len(stage.of):
        yield "weights", f"{len(stage.weights)} weights for {len(stage.of)} checkpoints"


def looks_like_hub_name(name: str) -> bool:
    return name.count("/") == 1 and not name.startswith((".", "/", "~"))
