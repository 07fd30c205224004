"""Commands about what is there: what it is made of, whether it is as it was written, how two differ, what may go."""

from typing import Annotated

import typer

from llmctl.cli_options import Gpus, Json, Processes, RecipeFile, Runs, Set, Smoke, readable_errors, stage_options, verify_resume
from llmctl.errors import EXIT_FAILED


def lineage(
    checkpoint: Annotated[str | None, typer.Argument(help="As for eval. Left out: the newest run.", show_default=False)] = None,
    runs: Runs = None,
    json: Json = False,
) -> None:
    """What a checkpoint is made of, back to the corpus."""
    from llmctl.runs.store import RunStore, default_root
    from llmctl.views.lineage import show_lineage

    with readable_errors():
        show_lineage(RunStore(runs or default_root()), checkpoint, json)


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
) -> None:
    """Hash every file of a checkpoint and of all that it is made of against the manifests.

    `llmctl verify resume RECIPE` kills a stage of the recipe halfway and compares what becomes of it with a run at one stretch.

    Example: llmctl verify olmo_small/sft
    Example: llmctl verify resume recipes/olmo_small.toml --steps 8
    """
    from llmctl.runs.store import RunStore, default_root
    from llmctl.views.lineage import show_verification

    if checkpoint == "resume":
        verify_resume(recipe, stage, steps, stage_options(set_, runs, smoke, gpus, processes))
        return
    with readable_errors():
        if not show_verification(RunStore(runs or default_root()), checkpoint):
            raise typer.Exit(EXIT_FAILED)


def reproduce(checkpoint: str) -> None:
    """Not there yet."""
    raise NotImplementedError


def diff(first: str, second: str) -> None:
    """Not there yet."""
    raise NotImplementedError


def list_runs(runs: Runs = None, json: Json = False) -> None:
    """All runs, and where each stands.

    Example: llmctl runs --json
    """
    from llmctl.runs.store import RunStore, default_root
    from llmctl.views.tables import show_runs

    with readable_errors():
        show_runs(RunStore(runs or default_root()), json)


def clean() -> None:
    """Not there yet."""
    raise NotImplementedError
