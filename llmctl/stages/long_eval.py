"""`llmctl eval --long`: the measurements of a long-context stage for any checkpoint beside its parent."""

from pathlib import Path
from typing import Any

from llmctl import events
from llmctl.errors import UserError
from llmctl.recipe.long_schema import GuardTable, LongContextTable
from llmctl.recipe.schema import Recipe
from llmctl.stages.long_measure import materials
from llmctl.stages.long_proof import compare, judge, prove
from llmctl.stages.long_show import draw, plain, show
from llmctl.stages.measure import Precision
from llmctl.stages.scoring import Checkpoint


def evaluate_long(
    compared: list[Checkpoint], corpus: Path, recipe: Recipe, plots: Path | None, precision: Precision = "auto"
) -> dict[str, Any]:
    """Tables, and plain values; pictures into `plots`. The last of `compared` is the checkpoint, before it its parent, if any.

    Raises:
        UserError: there is no held-out text to measure on, or no folder for the pictures can be made.
    """
    from llmctl.model.load import load_config
    from llmctl.tokens.tokenizer import load_tokenizer

    if recipe.reference_source is None:
        raise UserError("--long measures on held-out text, and the recipe has no text source in [corpus.sources]")
    if plots is not None:
        try:
            plots.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"--plots {plots}: no such folder can be made: {error.strerror}") from None
    checkpoint = compared[-1]
    config = load_config(checkpoint.model)
    length = int(config.max_position_embeddings)
    short = length_before(config)
    if len(compared) > 1 and (before := int(load_config(compared[0].model).max_position_embeddings)) < length:
        short = before
    tokenizer = load_tokenizer(checkpoint.model)
    guard = guard_of(recipe, checkpoint.name)
    found = materials(corpus, recipe, tokenizer, min(short, length), length, guard)
    results = prove(found, {one.name: one.model for one in compared}, tokenizer, precision=precision)
    comparisons = compare(found, results[compared[0].name], results[checkpoint.name]) if len(compared) > 1 else []
    show(checkpoint.name, found, results, comparisons)
    judge(checkpoint.name, guard.model_copy(update={"policy": "warn"}), comparisons)
    if plots is not None:
        drawn = draw(found, results, plots)
        events.say(f"pictures: {', '.join(map(str, drawn)) or 'none, for want of long documents and of a map of needles'}")
    return plain(found, results, comparisons)


def length_before(config: Any) -> int:
    """The context that the positions of a model were first trained for, in tokens: its own where they are not scaled."""
    from llmctl.model.rope import RECORD

    parameters = getattr(config, "rope_parameters", None) or {}  # models without RoPE have none
    entries = [entry for entry in [parameters, *parameters.values()] if isinstance(entry, dict)]
    lengths = [entry["original_max_position_embeddings"] for entry in entries if "original_max_position_embeddings" in entry]
    if record := getattr(config, RECORD, None):  # of linear, ntk and base the entries keep no length
        lengths.append(record["original_length"])
    return int(min([*lengths, config.max_position_embeddings]))


def guard_of(recipe: Recipe, stage: str) -> GuardTable:
    """The guard of a long-context stage; of another, that of the recipe's first long-context stage, else the defaults."""
    tables = {name: table for name, table in recipe.stages.items() if isinstance(table, LongContextTable)}
    chosen = tables.get(stage) or next(iter(tables.values()), None)
    return chosen.guard if chosen is not None else GuardTable()
