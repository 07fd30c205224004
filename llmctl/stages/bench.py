"""`llmctl bench`: from a recipe to a job of random rows, which needs neither the corpus nor what comes before the stage.

Rows hold random token ids. The lengths of their documents are spread as those of text are, log-normally: half are shorter than
400 tokens, and 30 % of the tokens are in documents of 8,192 and more; what is longer than a row is cut to it. Weights are new
ones of the shape that the stage would start from.
"""

import tempfile
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from llmctl.errors import Interrupted, UserError
from llmctl.preflight.plan import check_shared
from llmctl.recipe.chat_schema import ChatTable, LoraTable
from llmctl.recipe.graph import line_of, training_stage
from llmctl.recipe.load import load_recipe
from llmctl.recipe.presets import resolve_model
from llmctl.recipe.schema import AverageTable, LongContextTable, Recipe, TrainTable
from llmctl.runs.files import read_json
from llmctl.stages.context import scaling_from
from llmctl.stages.lora import adapter_of
from llmctl.stages.session import joined_ranks
from llmctl.stages.shape import model_shape
from llmctl.stages.tokenizer import external_origin
from llmctl.stages.training import by_ladder

SEED = 1
MEDIAN, SIGMA = 400, 1.5  # of the lengths in tokens, and of their logarithms
FEWEST_ROWS = 64
MOST_TOKENS = 2**24  # that are made; a longer measurement passes over them again
NO_LIMIT = 1e9
UNKNOWN_BUDGET = 10**18  # tokens; a stage that is measured in epochs has as many as its text
GROWING = ("batch_warmup_tokens", "batch_warmup_from", "length_warmup_tokens")


def measure_stage(file: Path, overrides: list[str], stage: str | None, steps: int, ranks: int | None) -> Any:
    """The `Measured` of a stage, the first that trains if none is named; None on all but the first of a launcher's ranks.

    Raises:
        UserError: a mistake in the recipe, or the model's shape or vocabulary is not known on this machine.
        Interrupted: nothing was measured.
    """
    recipe = load_recipe(file, overrides, corpus=False)
    table = training_stage(recipe, stage)
    joined, rank = joined_ranks(ranks)
    ranks = joined if joined > 1 else ranks or table.processes
    with tempfile.TemporaryDirectory(prefix="llmctl-bench-") as folder:
        job = job_of_random_rows(recipe, table, steps, ranks, Path(folder))
        from llmctl.train.bench import RESULT_FILE, Measured, measure
        from llmctl.train.distributed import start_ranks

        try:
            if joined == 1 and ranks > 1:
                start_ranks(job.write(), ranks, str(steps))
                return Measured(**read_json(job.path / RESULT_FILE))
            found = measure(job, steps)
        except Interrupted as stop:
            raise Interrupted("stopped; nothing was measured", stop.exit_code) from None
    return found if rank == 0 else None


def job_of_random_rows(recipe: Recipe, table: TrainTable, steps: int, ranks: int, folder: Path) -> Any:
    """The `TrainJob` of a stage as it is measured; its token shards are written to `folder`."""
    from llmctl.train.bench import IN_PARTS, WARM_UP
    from llmctl.train.job import TrainJob

    start = starting_shape(recipe, table)
    table = by_ladder(table, start.get("shape"), start.get("shape_of"), table.tokens or UNKNOWN_BUDGET)
    table = table.model_copy(update=dict.fromkeys(GROWING))  # what is measured is a step as most are
    check_shared(table, ranks)
    steps += WARM_UP + IN_PARTS
    assert table.batch_tokens is not None
    tokens = max(FEWEST_ROWS * table.seq_len, min(steps * table.batch_tokens, MOST_TOKENS))
    lengths = write_random_shards(folder / "shards", start["vocabulary"], tokens, table.seq_len)
    return TrainJob(
        folder=str(folder),
        stage=table.name,
        steps=steps,
        table=table.model_dump(mode="json", by_alias=True) | {"max_repetition": NO_LIMIT},
        tokenizer="",  # no text becomes ids, and no model is left
        parts=parts_of(table, folder / "shards", lengths),
        lora=adapter_of(table, new_tokens(recipe, table)) if isinstance(table, LoraTable) else None,
        seed=recipe.seed if table.seed is None else table.seed,
        deepspeed=recipe.deepspeed,
        **start,
    )


def parts_of(table: TrainTable, shards: Path, lengths: np.ndarray) -> list[Any]:
    """As the stage would have them: whole documents fitted into rows where it has conversations or long documents."""
    from llmctl.train.job import DataPart

    if table.kind in ("pretrain", "midtrain"):
        return [DataPart("random", str(shards), 1.0, table.packing)]
    every = DataPart("random", str(shards), 1.0, "best_fit")
    if not isinstance(table, LongContextTable):
        return [every]
    long = np.flatnonzero(lengths >= table.bucket_edges[0])
    if not table.long_share or not len(long):
        return [every]
    file = shards / "long.npy"
    np.save(file, long)
    parts = [replace(every, share=table.long_share, documents=str(file), truncate=table.too_long == "truncate", label="long")]
    return parts + ([replace(every, share=1 - table.long_share)] if table.long_share < 1 else [])


def write_random_shards(folder: Path, vocabulary: int, tokens: int, longest: int) -> np.ndarray:
    """Token shards of at least `tokens` random ids; the documents' lengths. The same arguments give the same shards."""
    from llmctl.tokens.shards import PartWriter, write_meta

    random = np.random.default_rng(SEED)
    lengths = np.zeros(0, np.int64)
    while lengths.sum() < tokens:
        drawn = random.lognormal(np.log(MEDIAN), SIGMA, 1 + int(tokens / MEDIAN))
        lengths = np.concatenate([lengths, np.clip(drawn, 2, longest).astype(np.int64)])
    lengths = lengths[: 1 + int(np.searchsorted(lengths.cumsum(), tokens))]
    kind = np.dtype(np.uint16 if vocabulary <= 2**16 else np.uint32)
    folder.mkdir(parents=True)
    writer = PartWriter(folder, 0, kind)
    for length in lengths.tolist():
        writer.add(random.integers(0, vocabulary, length, kind), "", "", 0)
    write_meta(folder, kind, [writer.close()], writer.lengths)
    return lengths


def starting_shape(recipe: Recipe, table: TrainTable) -> dict[str, Any]:
    """Fields of the `TrainJob` that say what a stage starts from: `shape` or `shape_of`, `rope`, and `vocabulary`, the tokens
    that are embedded. Those that stages add are all taken for new: which are, the tokenizer alone can tell.

    Raises:
        UserError: it cannot be told on this machine.
    """
    line = line_of(recipe, table)
    outside = line[-1].from_ if not isinstance(line[-1], AverageTable) else line[-1].of[0]
    start: dict[str, Any] = {}
    added = len(added_tokens(recipe, table))
    if outside is not None:
        config = config_of(outside)
        length = getattr(config, "max_position_embeddings", table.seq_len)
        start = {"shape_of": outside, "vocabulary": config.vocab_size + added}
    else:
        length = getattr(line[-1], "seq_len", table.seq_len)
    extended = [stage.seq_len for stage in line[1:] if isinstance(stage, LongContextTable)]
    length = max([length, *extended])
    if outside is None:
        tokens = vocabulary_of(recipe)
        shape = model_shape(recipe, tokens, length)
        start = {"shape": shape, "vocabulary": max(shape["vocab_size"], (tokens or shape["vocab_size"]) + added)}
    if isinstance(table, LongContextTable):
        start["rope"] = asdict(scaling_from(table, length))
    return start


def added_tokens(recipe: Recipe, table: TrainTable) -> list[str]:
    """Tokens that the stage and those that it comes from add, each once."""
    asked = [stage.add_tokens for stage in line_of(recipe, table) if isinstance(stage, ChatTable)]
    return list(dict.fromkeys(token for tokens in reversed(asked) for token in tokens))


def new_tokens(recipe: Recipe, table: LoraTable) -> int:
    """Tokens that the stage adds to what its parent knows."""
    before = (stage.add_tokens for stage in line_of(recipe, table)[1:] if isinstance(stage, ChatTable))
    return len(set(table.add_tokens).difference(*before))


def config_of(place: str) -> Any:
    """The configuration of a model outside the recipe.

    Raises:
        UserError: it is not on this machine, and the hub does not give it.
    """
    from llmctl.model.load import load_config

    try:
        return load_config(place).get_text_config()
    except UserError as error:
        raise UserError(
            f"{error}\n  Of a stage that starts from it the shape is needed: a folder with its config.json alone will do"
        ) from None


def vocabulary_of(recipe: Recipe) -> int:
    """Tokens of the recipe's tokenizer; 0 where [model] says how many are embedded.

    Raises:
        UserError: it is not on this machine, and the hub does not give it.
    """
    from llmctl.tokens.tokenizer import load_tokenizer

    assert recipe.model is not None  # the recipe's check
    if resolve_model(recipe.model)["vocab_size"] is not None:
        return 0
    table = recipe.tokenizer
    if table is not None and table.path is None:
        return table.vocab_size
    place = table.path if table is not None else external_origin(recipe)
    try:
        return len(load_tokenizer(str(place)))
    except UserError as error:
        raise UserError(f"{error}\n  Its vocabulary is the model's; say how large it is with --set model.vocab_size=N") from None
