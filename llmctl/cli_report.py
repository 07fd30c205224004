"""`llmctl report`: a whole run on one page."""

from pathlib import Path
from typing import Annotated

import typer

from llmctl.cli_options import Json, Runs, readable_errors


def report(
    run: Annotated[str | None, typer.Argument(help="Run, or its folder. Left out: the newest.", show_default=False)] = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="Page.", show_default="RUN's folder/report.html")
    ] = None,
    plots: Annotated[Path | None, typer.Option("--plots", metavar="DIR", help="Write the figures there, too.")] = None,
    figure_format: Annotated[str, typer.Option("--format", help="Of the figures: png, svg or both.")] = "both",
    serve: Annotated[bool, typer.Option("--serve", help="Show it live, on this machine alone, until Ctrl-C.")] = False,
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="Of --serve; 0: one that is free.")] = 8765,
    runs: Runs = None,
    json: Json = False,
) -> None:
    """A whole run on one page: curves, scores, data, samples, warnings. It opens from disk, without network.

    Example: llmctl report olmo_small --plots figures
    Example: llmctl report --serve
    """
    from llmctl.views.report.command import Wish, show_report

    with readable_errors():
        show_report(run, Wish(out, plots, figure_format, serve, port, json), runs)
