"""Commands that measure what a model has learnt."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from llmctl.cli_options import Runs, readable_errors


def probe(
    checkpoint: Annotated[str, typer.Argument(help="Model folder, stage folder, RUN/STAGE or hub name.", show_default=False)],
    data: Annotated[Path, typer.Argument(help="CSV, JSON lines or Parquet; or a folder of train and test.", show_default=False)],
    text_column: Annotated[str | None, typer.Option(help="Column of the texts.", show_default="by its name")] = None,
    label_column: Annotated[str | None, typer.Option(help="Column of the classes.", show_default="by its name")] = None,
    test: Annotated[Path | None, typer.Option(help="Test file.", show_default="a fifth of the rows")] = None,
    shots: Annotated[str, typer.Option(metavar="NUMBERS", help="Examples of each class.")] = "1,2,4,8,16",
    seeds: Annotated[int, typer.Option(min=1, help="Draws of examples.")] = 5,
    seed: Annotated[int, typer.Option(min=0, help="Of the first draw, the held-out part, the untrained model.")] = 1,
    layer: Annotated[str, typer.Option(metavar="N|all|last", help="Layer; all: the best by cross-validation.")] = "all",
    pool: Annotated[Literal["mean", "last"], typer.Option(help="Of a text's tokens.")] = "mean",
    test_rows: Annotated[int, typer.Option(min=1, help="Rows of the test at most, drawn by the seed.")] = 1000,
    plots: Annotated[Path | None, typer.Option(metavar="DIR", help="Draw the curve and a map of classes there.")] = None,
    map_classes: Annotated[str | None, typer.Option(metavar="NAMES", help="Classes to draw.", show_default="12 largest")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the numbers to this file.")] = None,
    runs: Runs = None,
) -> None:
    """Classify texts by a model's hidden states, beside a bag of words and the untrained model.

    Example: llmctl probe olmo/pretrain reviews.csv --plots pictures
    """
    from llmctl.stages.probing import Wish, probe_checkpoint
    from llmctl.views.progress import screen

    wish = Wish(text_column, label_column, test, shots, seeds, seed, layer, pool, test_rows, map_classes)
    with readable_errors(), screen() as shown, shown.stage("probe"):
        probe_checkpoint(checkpoint, data, wish, plots, json_file, runs)
