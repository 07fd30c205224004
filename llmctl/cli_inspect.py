"""Commands that make no stage: `llmctl tokenizer ...` and `llmctl inspect ...` look at what a run is made of, `bench` and `plan`
at what a recipe costs."""

import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Annotated, Literal

import typer

from llmctl.cli_completion import ARTIFACTS, RECIPES, RUNS, STAGES
from llmctl.cli_options import (
    Gpus,
    Json,
    Processes,
    RecipeFile,
    Runs,
    Set,
    Smoke,
    chosen_ranks,
    make,
    opened_run,
    readable_errors,
    stage_options,
)
from llmctl.cli_usage import Group
from llmctl.errors import EXIT_DEAD_RUN, EXIT_FAILED

TokenFormat = Literal["megatron", "olmo"]

tokenizers = typer.Typer(cls=Group, help="Train a tokenizer, and look at what one makes of text.", no_args_is_help=True)
TokenizerName = Annotated[
    str | None,
    typer.Argument(
        help="Tokenizer's folder, run, or hub name. Left out: the newest run's.", show_default=False, autocompletion=RUNS
    ),
]


@tokenizers.command("train")
def train_tokenizer(recipe: RecipeFile = None, set_: Set = None, runs: Runs = None, smoke: Smoke = False) -> None:
    """Train the tokenizer of a recipe and print bytes per token for every source.

    Example: llmctl tokenizer train recipes/olmo_small.toml
    """
    make(["tokenizer"], recipe, stage_options(set_, runs, smoke))


@tokenizers.command("stats")
def tokenizer_stats(
    tokenizer: TokenizerName = None,
    against: Annotated[list[str] | None, typer.Option(help="Another tokenizer beside it; may be repeated.")] = None,
    text: Annotated[list[Path] | None, typer.Option(help="A text file to measure on, too; may be repeated.")] = None,
    plot: Annotated[Path | None, typer.Option(metavar="FILE", help="Draw a bar chart (.png, .svg).")] = None,
    runs: Runs = None,
    json: Json = False,
) -> None:
    """Bytes per token by language and domain.

    Example: llmctl tokenizer stats olmo_small --against openai-community/gpt2
    """
    with readable_errors():
        from llmctl.runs.store import RunStore, default_root
        from llmctl.stages.inspecting import tokenizer_statistics
        from llmctl.views.tokenizers import plot_statistics, show_statistics

        found = tokenizer_statistics([tokenizer, *(against or [])], text or [], RunStore(runs or default_root()))
        show_statistics(found, json)
        if plot is not None:
            plot_statistics(found, plot)


@tokenizers.command("show")
def show_tokenizer(
    text: Annotated[str, typer.Argument(help="Text; - reads it from standard input.")],
    tokenizer: Annotated[str | None, typer.Option(help="As for stats.", show_default=False, autocompletion=RUNS)] = None,
    ids: Annotated[bool, typer.Option("--ids", help="Write the number of every token behind it.")] = False,
    runs: Runs = None,
) -> None:
    """The tokens of a text in colour.

    Example: llmctl tokenizer show "def main():"
    """
    with readable_errors():
        from llmctl.runs.store import RunStore, default_root
        from llmctl.stages.inspecting import find_tokenizer
        from llmctl.tokens.tokenizer import load_tokenizer
        from llmctl.views.tokenizers import show_tokens

        folder, _ = find_tokenizer(RunStore(runs or default_root()), tokenizer)
        show_tokens(load_tokenizer(folder), sys.stdin.read() if text == "-" else text, ids)


@tokenizers.command("export")
def export_tokens(
    folder: Annotated[Path, typer.Argument(help="Folder to write to.")],
    run: Annotated[
        str | None, typer.Option(help="Left out: the run with the newest tokens.", show_default=False, autocompletion=RUNS)
    ] = None,
    source: Annotated[list[str] | None, typer.Option(help="One source alone; may be repeated.", show_default=False)] = None,
    format_: Annotated[TokenFormat, typer.Option("--format", help="Files of Megatron-LM, or of OLMo-core.")] = "megatron",
    runs: Runs = None,
) -> None:
    """Write a run's token ids for other trainers.

    Example: llmctl tokenizer export out --run olmo_small --source stdlib
    """
    with readable_errors():
        from llmctl.runs.store import RunStore, default_root
        from llmctl.stages.inspecting import find_tokens
        from llmctl.tokens.export import export_shards

        for line in export_shards(find_tokens(RunStore(runs or default_root()), run), source or [], folder, format_):
            print(line)


inspecting = typer.Typer(cls=Group, help="Look at what a run is made of.", no_args_is_help=True)


@inspecting.command("corpus")
def inspect_corpus(
    run: Annotated[
        str | None, typer.Argument(help="Run. Left out: the one with the newest corpus.", show_default=False, autocompletion=RUNS)
    ] = None,
    source: Annotated[str | None, typer.Option(help="One source alone.", show_default=False)] = None,
    heldout: Annotated[bool, typer.Option("--heldout", help="What is held out instead of what is trained on.")] = False,
    rejects: Annotated[
        str | None, typer.Option(metavar="RULE", help="What was dropped by rules with this in their name; '' for all.")
    ] = None,
    find: Annotated[str | None, typer.Option(help="Only documents with this text in them.", show_default=False)] = None,
    limit: Annotated[int, typer.Option(min=1, help="Documents to show at most.")] = 20,
    runs: Runs = None,
    json: Json = False,
) -> None:
    """Page through documents with their scores.

    Example: llmctl inspect corpus olmo_small --rejects copies
    """
    with readable_errors():
        from llmctl.runs.store import RunStore, default_root
        from llmctl.stages.inspecting import find_corpus
        from llmctl.views.corpus import show_corpus

        corpus = find_corpus(RunStore(runs or default_root()), run)
        show_corpus(corpus, source, "heldout" if heldout else "train", rejects, find, limit, json)


@inspecting.command("batch")
def inspect_batch(
    checkpoint: Annotated[
        str | None,
        typer.Argument(
            help="Run, or run and stage, as in olmo_small/sft. Left out: the newest.",
            show_default=False,
            autocompletion=ARTIFACTS,
        ),
    ] = None,
    step: Annotated[int, typer.Option(min=1, help="Step of the stage, from 1.")] = 1,
    runs: Runs = None,
    json: Json = False,
) -> None:
    """The documents that a step has trained on.

    Example: llmctl inspect batch olmo_small/pretrain --step 120
    """
    with readable_errors():
        from llmctl.runs.store import RunStore, default_root
        from llmctl.stages.batches import find_job, rows_of_step
        from llmctl.views.batch import show_batch

        job = find_job(RunStore(runs or default_root()), checkpoint)
        show_batch(rows_of_step(job, step), json)


@inspecting.command("sft")
def inspect_sft(
    recipe: RecipeFile = None,
    stage: Annotated[
        str | None, typer.Option(help="Left out: the first on conversations.", show_default=False, autocompletion=STAGES)
    ] = None,
    source: Annotated[str | None, typer.Option(help="One source of its mix alone.", show_default=False)] = None,
    row: Annotated[int, typer.Option(min=1, help="Row of a source to begin with, from 1.")] = 1,
    rows: Annotated[int, typer.Option(min=0, help="Rows of each source to show.")] = 1,
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="Write a page, too.")] = None,
    set_: Set = None,
    runs: Runs = None,
    smoke: Smoke = False,
    json: Json = False,
) -> None:
    """Conversations as they are packed and masked, and whether training on them makes sense (exit code 3: it does not).

    Example: llmctl inspect sft recipes/olmo_small.toml --rows 3 --html sft.html
    """
    # What is made first is told on stderr: the conversations, or JSON, are alone on stdout.
    with redirect_stdout(sys.stderr), opened_run(recipe, stage_options(set_, runs, smoke)) as (opened, _, show):
        from llmctl.stages.talk_rows import inspect_talks

        found = inspect_talks(opened, stage, show, source, row, rows)
    from llmctl.views.talks import show_talks, write_talks

    show_talks(found, json)
    if html is not None:
        write_talks(found, html)
    if found.dead:
        raise typer.Exit(EXIT_DEAD_RUN)


def bench(
    recipe: Annotated[Path, typer.Argument(help="Recipe (TOML).", autocompletion=RECIPES)],
    stage: Annotated[
        str | None, typer.Option(help="Left out: the first that trains.", show_default=False, autocompletion=STAGES)
    ] = None,
    steps: Annotated[int, typer.Option(min=2, help="Steps to time, after three that warm up.")] = 30,
    set_: Set = None,
    gpus: Gpus = None,
    processes: Processes = None,
    json: Json = False,
) -> None:
    """Measure the training step of a stage on random tokens: tokens/s, MFU, memory, parts. Needs no corpus, leaves nothing.

    Example: llmctl bench recipes/olmo_small.toml --stage longctx
    """
    from llmctl.interrupts import raise_on_signals
    from llmctl.stages.bench import measure_stage
    from llmctl.views.bench import show_bench, told_on_stderr

    with readable_errors():
        raise_on_signals()
        with told_on_stderr():
            found = measure_stage(recipe, set_ or [], stage, steps, chosen_ranks(gpus, processes))
        if found is not None:
            show_bench(found, json)


def plan(
    recipe: Annotated[Path, typer.Argument(help="Recipe (TOML).", autocompletion=RECIPES)],
    gpus: Annotated[
        int | None, typer.Option("--gpus", min=1, help="Ranks, one a GPU; they need not be here.", show_default="the recipe's")
    ] = None,
    gpu: Annotated[str | None, typer.Option(help="GPU by its name, as h100.", show_default="this machine")] = None,
    memory: Annotated[str | None, typer.Option(metavar="SIZE", help="Memory of a GPU instead, as 80GB.")] = None,
    price: Annotated[
        float | None, typer.Option(min=0, metavar="DOLLARS", help="Of a GPU's hour.", show_default="about what it is")
    ] = None,
    fit: Annotated[bool, typer.Option("--fit", help="Search the fastest setting that fits, and plan with it.")] = False,
    set_: Set = None,
    runs: Runs = None,
    json: Json = False,
) -> None:
    """What every stage needs and costs, before anything is spent: memory, time, money, disk. Exit code 1: a stage does not fit.

    Example: llmctl plan recipes/olmo3_7b.toml --gpus 8 --gpu h100 --fit
    """
    from llmctl.runs.store import default_root
    from llmctl.stages.planning import Wanted, plan_recipe
    from llmctl.views.bench import told_on_stderr
    from llmctl.views.plan import show_plan

    with readable_errors():
        with told_on_stderr():
            found = plan_recipe(recipe, set_ or [], Wanted(gpus, gpu, memory, price, fit, runs or default_root()))
        show_plan(found, json)
        if not found.fits:
            raise typer.Exit(EXIT_FAILED)
