"""Commands that make a model of models that are there, or another form of one."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from llmctl.cli_completion import CHECKPOINTS, RUNS
from llmctl.cli_options import Runs, watched_screen

Form = Literal["safetensors", "gguf"]
Kind = Literal["f32", "f16", "bf16", "q8_0"]


def average(
    checkpoints: Annotated[
        list[str],
        typer.Argument(help="As for eval; also the models a stage keeps.", show_default=False, autocompletion=CHECKPOINTS),
    ],
    weights: Annotated[str | None, typer.Option(metavar="NUMBERS", help="One for each, as 1,2,3.", show_default="equal")] = None,
    name: Annotated[str, typer.Option(help="What the average is called in its run.")] = "average",
    run: Annotated[
        str | None, typer.Option(help="Run that it goes to.", show_default="the checkpoints'", autocompletion=RUNS)
    ] = None,
    runs: Runs = None,
) -> None:
    """Average the weights of checkpoints.

    Example: llmctl average runs/olmo/pretrain-*/kept/*
    """
    with watched_screen() as show:
        from llmctl.stages.averaging import average_checkpoints

        average_checkpoints(checkpoints, weights, name, run, runs, show)


def export(
    checkpoint: Annotated[
        str,
        typer.Argument(help="Model folder, stage folder, RUN/STAGE or hub name.", show_default=False, autocompletion=CHECKPOINTS),
    ],
    target: Annotated[Path, typer.Argument(metavar="FOLDER_OR_FILE", help="Where to; a name in .gguf is a GGUF file.")],
    form: Annotated[Form | None, typer.Option("--format", help="How it is written.", show_default="by the target's name")] = None,
    kind: Annotated[Kind | None, typer.Option("--type", help="Of the weights.", show_default="as they are; GGUF: f16")] = None,
    check: Annotated[
        bool | None, typer.Option("--check/--no-check", help="Compare llama.cpp's tokens.", show_default="if it is installed")
    ] = None,
    name: Annotated[str | None, typer.Option(help="The model's name.", show_default="RUN-STAGE")] = None,
    author: Annotated[str | None, typer.Option(help="Written into a GGUF file.", show_default="none")] = None,
    run: Annotated[
        str | None,
        typer.Option(help="Run that the checkpoint is of.", show_default="the newest that has it", autocompletion=RUNS),
    ] = None,
    runs: Runs = None,
) -> None:
    """Write a model for others: a folder with a model card, or GGUF.

    Example: llmctl export olmo/sft olmo.gguf --type q8_0
    """
    with watched_screen():
        from llmctl.stages.exporting import Wish, export_checkpoint

        export_checkpoint(checkpoint, target, Wish(form, kind, check, name, author), run, runs)


def merge(
    checkpoint: Annotated[
        str, typer.Argument(help="A lora stage; or a base, as for eval.", show_default=False, autocompletion=CHECKPOINTS)
    ],
    adapters: Annotated[
        list[str] | None,
        typer.Argument(help="Of a base: adapter folders and lora stages.", autocompletion=CHECKPOINTS),
    ] = None,
    weights: Annotated[str | None, typer.Option(metavar="NUMBERS", help="One for each, as 1,0.5.", show_default="all 1")] = None,
    name: Annotated[str, typer.Option(help="What the merged model is called in its run.")] = "merged",
    run: Annotated[str | None, typer.Option(help="Run that it goes to.", show_default="the base's", autocompletion=RUNS)] = None,
    out: Annotated[Path | None, typer.Option(help="Write this folder instead of an artifact of a run.")] = None,
    dtype: Annotated[Literal["keep", "fp32", "bf16", "fp16"], typer.Option(help="Type of the weights written.")] = "keep",
    tolerance: Annotated[float | None, typer.Option(help="Largest difference of logits.", show_default="rounding")] = None,
    runs: Runs = None,
) -> None:
    """Merge adapters into their base.

    Example: llmctl merge olmo_small/lora
    """
    with watched_screen() as show:
        from llmctl.stages.merging import merge_adapters

        merge_adapters(checkpoint, adapters or [], weights, dtype, tolerance, out or (name, run), runs, show)
