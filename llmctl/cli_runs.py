"""Commands about what is there: what it is made of, whether it is as it was written, how two differ, what may go."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from llmctl.cli_options import Gpus, Json, Processes, RecipeFile, Runs, Set, Smoke, readable_errors, stage_options, verify_resume
from llmctl.errors import EXIT_FAILED, UserError

Form = Literal["tree", "json", "dot", "mermaid"]


def lineage(
    checkpoint: Annotated[str | None, typer.Argument(help="As for eval. Left out: the newest run.", show_default=False)] = None,
    form: Annotated[Form, typer.Option("--format", help="dot is for Graphviz.")] = "tree",
    runs: Runs = None,
    json: Json = False,
) -> None:
    """What a checkpoint is made of, back to the corpus and what that was read from.

    Example: llmctl lineage olmo_small/sft --format dot | dot -Tsvg > lineage.svg
    """
    from llmctl.runs.store import RunStore, default_root
    from llmctl.views.lineage import show_lineage

    with readable_errors():
        show_lineage(RunStore(runs or default_root()), checkpoint, "json" if json else form)


def verify(
    checkpoint: Annotated[
        str | None, typer.Argument(help="As for eval, the newest run if left out; or `resume`.", show_default=False)
    ] = None,
    recipe: RecipeFile = None,
    stage: Annotated[str | None, typer.Option(help="resume: the stage to try. Left out: the first.", show_default=False)] = None,
    steps: Annotated[int, typer.Option(min=2, help="resume: steps to make.")] = 8,
    set_: Set = None,
    runs: Runs = None,
    smoke: Smoke = False,
    gpus: Gpus = None,
    processes: Processes = None,
    everything: Annotated[bool, typer.Option("--all", help="Every stage of every run.")] = False,
    expect: Annotated[
        str | None, typer.Option(metavar="HASH", help="The output hash that the checkpoint must have.", show_default=False)
    ] = None,
    json: Json = False,
) -> None:
    """Hash every file of a checkpoint and of all that it is made of against the manifests.

    `llmctl verify resume RECIPE` kills a stage of the recipe halfway and compares what becomes of it with a run at one stretch.

    Example: llmctl verify olmo_small/sft
    Example: llmctl verify resume recipes/olmo_small.toml --steps 8
    """
    from llmctl.runs.store import RunStore, default_root
    from llmctl.views.verification import show_verification

    if checkpoint == "resume":
        verify_resume(recipe, stage, steps, stage_options(set_, runs, smoke, gpus, processes))
        return
    with readable_errors():
        if everything and (checkpoint is not None or expect is not None):
            raise UserError("--all takes every stage of every run: leave the checkpoint and --expect out")
        if not show_verification(RunStore(runs or default_root()), checkpoint, everything, expect, json):
            raise typer.Exit(EXIT_FAILED)


def reproduce(
    checkpoint: Annotated[
        str | None, typer.Argument(help="As for lineage. Left out: the newest run.", show_default=False)
    ] = None,
    out: Annotated[Path | None, typer.Option(metavar="FOLDER", help="Where to.", show_default="reproduce-RUN-STAGE")] = None,
    runs: Runs = None,
    json: Json = False,
) -> None:
    """Write the recipe and the commands that make a checkpoint again, and check that its inputs are the same.

    Exit code 1 where something that decides the outcome has changed.

    Example: llmctl reproduce olmo_small/sft
    """
    with readable_errors():
        from llmctl.runs.store import RunStore, default_root
        from llmctl.stages.reproducing import reproduce as write_reproduction
        from llmctl.views.reproduction import show_reproduction

        found = write_reproduction(RunStore(runs or default_root()), checkpoint, out)
        show_reproduction(found, json)
        if not found.same:
            raise typer.Exit(EXIT_FAILED)


def diff(
    first: Annotated[str, typer.Argument(metavar="A", help="Recipe file, run, RUN/STAGE or a stage's folder.")],
    second: Annotated[str, typer.Argument(metavar="B", help="As A.")],
    runs: Runs = None,
    json: Json = False,
) -> None:
    """In what two recipes, runs or checkpoints differ: configuration, data, weights, scores.

    Exit code 0: the same bits, or the same recipe. 1: they differ.

    Example: llmctl diff olmo_small/sft recipes/olmo_small.toml
    """
    with readable_errors():
        from llmctl.runs.store import RunStore, default_root
        from llmctl.stages.difference import compare
        from llmctl.stages.sides import find_side
        from llmctl.views.diff import show_difference

        store = RunStore(runs or default_root())
        found = compare(find_side(store, first), find_side(store, second))
        show_difference(found, json)
        if not found.same:
            raise typer.Exit(EXIT_FAILED)


def list_runs(runs: Runs = None, json: Json = False) -> None:
    """All runs, and where each stands.

    Example: llmctl runs --json
    """
    from llmctl.runs.store import RunStore, default_root
    from llmctl.views.tables import show_runs

    with readable_errors():
        show_runs(RunStore(runs or default_root()), json)


def clean(
    names: Annotated[list[str] | None, typer.Argument(metavar="RUN...", help="Left out: all runs.", show_default=False)] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Remove it. Without this nothing is touched.")] = False,
    trainers: Annotated[
        bool,
        typer.Option("--trainers", help="Optimizer moments of stages that others began from, too; none can carry them again."),
    ] = False,
    runs: Runs = None,
    json: Json = False,
) -> None:
    """What may go: unfinished and superseded stages, checkpoints of finished ones, what killed processes left.

    Never what anything else is made of, what a process works on, or models that a stage was told to keep.

    Example: llmctl clean olmo_small --yes
    """
    with readable_errors():
        from llmctl.runs.store import RunStore, default_root
        from llmctl.views.cleaning import show_cleaning

        if not show_cleaning(RunStore(runs or default_root()), names or [], yes, trainers, json):
            raise typer.Exit(EXIT_FAILED)
