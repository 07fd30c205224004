"""Commands that make a model of models that are there, or another form of one."""

from typing import Annotated

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
