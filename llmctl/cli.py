"""The command line. One short function per verb; everything heavy is imported by the verb that needs it."""

import io
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from llmctl import __version__
from llmctl.cli_completion import ARTIFACTS, ASKED, CHECKPOINTS, KEYS, RECIPES, RUNS, STAGES, answer, offering
from llmctl.cli_doctor import doctor
from llmctl.cli_eval import evaluate, probe
from llmctl.cli_inspect import bench, inspecting, plan, tokenizers
from llmctl.cli_models import average, export, merge
from llmctl.cli_options import (
    Gpus,
    MaxTime,
    Processes,
    Profile,
    RecipeFile,
    Runs,
    Set,
    Smoke,
    make,
    readable_errors,
    stage_options,
)
from llmctl.cli_recipes import check, explain, init, recipes, schema
from llmctl.cli_report import report
from llmctl.cli_runs import clean, diff, lineage, list_runs, reproduce, verify
from llmctl.cli_usage import Program
from llmctl.errors import EXIT_FAILED
from llmctl.interrupts import leave

app = typer.Typer(
    name="llmctl",
    cls=Program,
    help="Takes raw text to a tuned language model, from one recipe file.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
MAKE, MEASURE, LOOK = "Make", "Measure and try", "Look at runs"
MODELS, PLAN = "Models of models", "Recipes, plans and this machine"


@app.command(rich_help_panel=MAKE)
def run(
    recipe: Annotated[Path, typer.Argument(help="Recipe (TOML).", autocompletion=RECIPES)],
    set_: Set = None,
    runs: Runs = None,
    smoke: Smoke = False,
    gpus: Gpus = None,
    processes: Processes = None,
    max_time: MaxTime = None,
    profile: Profile = False,
    stage: Annotated[
        str | None,
        typer.Option(help="This alone, and what it is made of. Left out: all.", show_default=False, autocompletion=STAGES),
    ] = None,
) -> None:
    """Make everything a recipe describes. What is done is left alone; what was interrupted goes on.

    Example: llmctl run recipes/olmo_small.toml
    """
    make(None, recipe, stage_options(set_, runs, smoke, gpus, processes, max_time, profile), stage)


@app.command(rich_help_panel=MAKE)
def curate(recipe: RecipeFile = None, set_: Set = None, runs: Runs = None, smoke: Smoke = False) -> None:
    """Make the corpus of a recipe: read its sources, filter, hold out, drop copies, score.

    Example: llmctl curate recipes/olmo_small.toml
    """
    make(["corpus"], recipe, stage_options(set_, runs, smoke))


@app.command(rich_help_panel=MAKE)
def pretrain(
    recipe: RecipeFile = None,
    set_: Set = None,
    runs: Runs = None,
    smoke: Smoke = False,
    gpus: Gpus = None,
    processes: Processes = None,
    max_time: MaxTime = None,
    profile: Profile = False,
) -> None:
    """Train a new model on the mix.

    Example: llmctl pretrain recipes/olmo_small.toml
    """
    make(["pretrain"], recipe, stage_options(set_, runs, smoke, gpus, processes, max_time, profile))


@app.command(rich_help_panel=MAKE)
def midtrain(
    recipe: RecipeFile = None,
    set_: Set = None,
    runs: Runs = None,
    smoke: Smoke = False,
    gpus: Gpus = None,
    processes: Processes = None,
    max_time: MaxTime = None,
    profile: Profile = False,
) -> None:
    """Go on from the parent, moments included, on a better mix, with the rate falling to zero.

    Example: llmctl midtrain recipes/olmo_small.toml
    """
    make(["midtrain"], recipe, stage_options(set_, runs, smoke, gpus, processes, max_time, profile))


@app.command(rich_help_panel=MAKE)
def longctx(
    recipe: RecipeFile = None,
    set_: Set = None,
    runs: Runs = None,
    smoke: Smoke = False,
    gpus: Gpus = None,
    processes: Processes = None,
    max_time: MaxTime = None,
    profile: Profile = False,
) -> None:
    """Extend the context by RoPE scaling and training on long documents.

    Example: llmctl longctx recipes/olmo_small.toml --gpus 8
    """
    make(["longctx"], recipe, stage_options(set_, runs, smoke, gpus, processes, max_time, profile))


@app.command(rich_help_panel=MAKE)
def sft(
    recipe: RecipeFile = None,
    lora: Annotated[bool, typer.Option("--lora", help="Train the recipe's LoRA adapter on top of it.")] = False,
    set_: Set = None,
    runs: Runs = None,
    smoke: Smoke = False,
    gpus: Gpus = None,
    processes: Processes = None,
    max_time: MaxTime = None,
    profile: Profile = False,
) -> None:
    """Tune on conversations; prompts are masked.

    Example: llmctl sft --lora
    """
    make(["lora" if lora else "sft"], recipe, stage_options(set_, runs, smoke, gpus, processes, max_time, profile))


app.command(rich_help_panel=MODELS)(average)
app.command(rich_help_panel=MODELS)(merge)
app.command(rich_help_panel=MODELS)(export)
app.command(rich_help_panel=PLAN)(bench)
app.command(rich_help_panel=PLAN)(plan)


app.command("eval", rich_help_panel=MEASURE)(evaluate)
app.command(rich_help_panel=MEASURE)(probe)


@app.command(rich_help_panel=MEASURE)
def generate(
    checkpoint: Annotated[
        str, typer.Argument(help="Model folder, stage folder, RUN/STAGE, or hub name.", autocompletion=CHECKPOINTS)
    ],
    prompt: Annotated[str, typer.Argument(help="Text to continue; - reads standard input.")],
    tokens: Annotated[int, typer.Option(min=1, help="Tokens at most.")] = 128,
    temperature: Annotated[float, typer.Option(min=0.0, help="0 takes the likeliest token.")] = 0.0,
    top_p: Annotated[float, typer.Option(min=0.0, max=1.0, help="Nucleus of the sampling.")] = 0.95,
    seed: int = 1,
    runs: Runs = None,
) -> None:
    """Continue a text.

    Example: llmctl generate olmo_small/longctx "def fibonacci(n):"
    """
    from llmctl.stages.session import open_checkpoint

    with readable_errors():
        model, its_tokenizer = open_checkpoint(checkpoint, runs)
        from llmctl.model.generate import stream

        text = sys.stdin.read() if prompt == "-" else prompt
        typer.echo(text, nl=False)
        for piece in stream(model, its_tokenizer, text, tokens, temperature, top_p, seed):
            typer.echo(piece, nl=False)
        typer.echo()


@app.command(rich_help_panel=MEASURE)
def chat(
    checkpoint: Annotated[
        str | None,
        typer.Argument(help="As for generate. Left out: the newest.", show_default=False, autocompletion=CHECKPOINTS),
    ] = None,
    tokens: Annotated[int, typer.Option(min=1, help="Tokens of an answer at most.")] = 256,
    temperature: Annotated[float, typer.Option(min=0.0)] = 0.0,
    runs: Runs = None,
) -> None:
    """Talk to a tuned model; an empty line or Ctrl-D ends.

    Example: llmctl chat olmo_small/sft
    """
    from llmctl.stages.session import converse

    with readable_errors():
        converse(checkpoint, tokens, temperature, runs)


app.add_typer(tokenizers, name="tokenizer", rich_help_panel=MAKE)
app.add_typer(inspecting, name="inspect", rich_help_panel=LOOK)

app.command(rich_help_panel=LOOK)(report)
app.command(rich_help_panel=LOOK)(offering(lineage, checkpoint=ARTIFACTS))
app.command(rich_help_panel=LOOK)(offering(verify, checkpoint=ARTIFACTS, stage=STAGES))
app.command(rich_help_panel=LOOK)(offering(reproduce, checkpoint=ARTIFACTS))
app.command(rich_help_panel=LOOK)(offering(diff, first=ARTIFACTS, second=ARTIFACTS))
app.command("runs", rich_help_panel=LOOK)(list_runs)
app.command(rich_help_panel=LOOK)(offering(clean, names=RUNS))
app.command(rich_help_panel=PLAN)(init)
app.command(rich_help_panel=PLAN)(recipes)
app.command(rich_help_panel=PLAN)(offering(check, recipe=RECIPES))
app.command(rich_help_panel=PLAN)(schema)
app.command(rich_help_panel=PLAN)(offering(explain, key=KEYS))
app.command(rich_help_panel=PLAN)(doctor)


def show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"llmctl {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[bool, typer.Option("--version", callback=show_version, is_eager=True, help="Print the version.")] = False,
    local_rank: Annotated[int | None, typer.Option("--local_rank", hidden=True)] = None,  # written by `deepspeed`; LOCAL_RANK too
) -> None:
    """Takes raw text to a tuned language model, from one recipe file."""


def main() -> None:
    # Help drawn with box characters crashes where a pipe's encoding has none (cp1252 on Windows, LANG=C).
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    # Large pages for torch's tensors on a CPU, read when torch is imported: a sixth off the small recipe's step.
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    try:
        if ASKED in os.environ:
            answer(lambda: app(prog_name="llmctl"))
        else:
            app(prog_name="llmctl")
    except SystemExit as end:
        leave(end.code if isinstance(end.code, int) else EXIT_FAILED)
        raise


if __name__ == "__main__":
    main()
