"""Commands that make a model of models that are there, or another form of one."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from llmctl.cli_options import Runs, watched_screen


def average(
    checkpoints: Annotated[list[str], typer.Argument(help="As for eval; also the models a stage keeps.", show_default=False)],
    weights: Annotated[str | None, typer.Option(metavar="NUMBERS", help="One for each, as 1,2,3.", show_default="equal")] = None,
    name: Annotated[str, typer.Option(help="What the average is called in its run.")] = "average",
    run: Annotated[str | None, typer.Option(help="Run that it goes to.", show_default="the checkpoints'")] = None,
    runs: Runs = None,
) -> None:
    """Average the weights of checkpoints. Example: llmctl average runs/olmo/pretrain-*/kept/*"""
    with watched_screen() as show:
        from llmctl.stages.averaging import average_checkpoints

        average_checkpoints(checkpoints, weights, name, run, runs, show)


def merge(
    checkpoint: Annotated[str, typer.Argument(help="A lora stage; or a base, as for eval.", show_default=False)],
    adapters: Annotated[list[str] | None, typer.Argument(help="Of a base: adapter folders and lora stages.")] = None,
    weights: Annotated[str | None, typer.Option(metavar="NUMBERS", help="One for each, as 1,0.5.", show_default="all 1")] = None,
    name: Annotated[str, typer.Option(help="What the merged model is called in its run.")] = "merged",
    run: Annotated[str | None, typer.Option(help="Run that it goes to.", show_default="the base's")] = None,
    out: Annotated[Path | None, typer.Option(help="Write this folder instead of an artifact of a run.")] = None,
    dtype: Annotated[Literal["keep", "fp32", "bf16", "fp16"], typer.Option(help="Type of the weights written.")] = "keep",
    tolerance: Annotated[float | None, typer.Option(help="Largest difference of logits.", show_default="rounding")] = None,
    runs: Runs = None,
) -> None:
    """Merge adapters into their base. Example: llmctl merge olmo_small/lora"""
    with watched_screen() as show:
        from llmctl.stages.merging import merge_adapters

        merge_adapters(checkpoint, adapters or [], weights, dtype, tolerance, out or (name, run), runs, show)
