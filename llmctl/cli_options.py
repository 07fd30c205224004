"""Options that several commands share, and what each does around its work."""

import errno
import os
import shlex
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Annotated, Any

import typer

from llmctl import events
from llmctl.cli_completion import OVERRIDES, RECIPES
from llmctl.errors import EXIT_CTRL_C, EXIT_FAILED, Interrupted, UserError

RecipeFile = Annotated[
    Path | None,
    typer.Argument(help="Recipe (TOML). Left out: the newest run's.", show_default=False, autocompletion=RECIPES),
]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a key: --set pretrain.lr=3e-4", autocompletion=OVERRIDES),
]
Runs = Annotated[Path | None, typer.Option("--runs", envvar="LLMCTL_RUNS", help="Folder of the runs.", show_default="./runs")]
Smoke = Annotated[bool, typer.Option("--smoke", help="The same graph shrunk: every stage in about two minutes.")]
Gpus = Annotated[int | None, typer.Option("--gpus", min=1, help="Ranks to start on this machine, one a GPU.")]
Processes = Annotated[int | None, typer.Option("--processes", min=1, help="Ranks to start on this machine's CPU.")]
MaxTime = Annotated[
    str | None, typer.Option("--max-time", metavar="TIME", help="Stop after this time, as 90m or 4h, to be gone on with.")
]
Profile = Annotated[bool, typer.Option("--profile", help="Record ten steps of each stage that trains with torch's profiler.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@contextmanager
def readable_errors() -> Iterator[None]:
    """A user's mistake is one message on stderr and an exit code, never a traceback."""
    try:
        yield
    except UserError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(error.exit_code) from None
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        where = f" ({error.filename})" if error.filename else ""
        typer.echo(f"error: no space is left on the disk{where}; make room, and the same command goes on from here", err=True)
        raise typer.Exit(EXIT_FAILED) from None
    except Interrupted as stop:
        typer.echo(str(stop), err=True)
        raise typer.Exit(stop.exit_code) from None
    except KeyboardInterrupt:
        typer.echo("stopped; the same command goes on from here", err=True)
        raise typer.Exit(EXIT_CTRL_C) from None


def make(kinds: list[str] | None, recipe: Path | None, options: dict[str, Any], stage: str | None = None) -> None:
    """Make the stages of `kinds` (None: the whole recipe), or the one named `stage`, and whatever comes before them."""
    place = f" --runs {shlex.quote(str(options['runs']))}" if options["runs"] is not None else ""
    with opened_run(recipe, options) as (opened, ranks, show):
        if stage is not None:
            opened.make_named([stage], ranks, show)
        else:
            opened.make(kinds, ranks, show)
        if kinds is None:
            events.say(f"all of it on one page: llmctl report {opened.recipe.name}{place}")


def verify_resume(recipe: Path | None, stage: str | None, steps: int, options: dict[str, Any]) -> None:
    """Kill a stage and compare; exit code 1 where the bits differ."""
    with opened_run(recipe, options) as (opened, ranks, show):
        from llmctl.stages import resume_check

        if not resume_check.verify_resume(opened, stage, steps, ranks, show):
            raise typer.Exit(EXIT_FAILED)


@contextmanager
def opened_run(recipe: Path | None, options: dict[str, Any]) -> Iterator[tuple[Any, int | None, Any]]:
    """The run of a recipe, the ranks chosen, and what shows and records a stage; with the screen on and signals watched."""
    from llmctl.interrupts import arriving, raise_on_signals, stop_in
    from llmctl.stages.session import launched, open_run
    from llmctl.views.progress import PlainScreen, screen
    from llmctl.views.stage import recorded_on

    # Of a launcher's ranks the first one alone speaks.
    with readable_errors(), arriving(), screen() if launched()[1] == 0 else nullcontext(PlainScreen()) as shown:
        if (max_time := options.pop("max_time")) is not None:
            stop_in(seconds_of(max_time))
        raise_on_signals()
        ranks = chosen_ranks(options.pop("gpus"), options.pop("processes"))
        opened = open_run(recipe, **options)
        yield opened, ranks, recorded_on(shown, opened.recipe)


@contextmanager
def watched_screen() -> Iterator[Any]:
    """What shows and records a stage that no recipe describes; with the screen on and signals watched."""
    from llmctl.interrupts import arriving, raise_on_signals
    from llmctl.views.progress import screen
    from llmctl.views.stage import recorded_on

    with readable_errors(), arriving(), screen() as shown:
        raise_on_signals()
        yield recorded_on(shown)


def stage_options(
    set_: list[str] | None,
    runs: Path | None,
    smoke: bool,
    gpus: int | None = None,
    processes: int | None = None,
    max_time: str | None = None,
    profile: bool = False,
) -> dict[str, Any]:
    found = {"overrides": set_ or [], "runs": runs, "smoke": smoke, "profile": profile}
    return found | {"gpus": gpus, "processes": processes, "max_time": max_time}


def seconds_of(time: str) -> int:
    """Raises:
    UserError: it is no duration.
    """
    from pydantic import TypeAdapter, ValidationError

    from llmctl.recipe.quantities import Duration

    try:
        return TypeAdapter(Duration).validate_python(time)
    except ValidationError:
        raise UserError(f"--max-time {time}: expected a duration: 30, 90m or 4h") from None


def chosen_ranks(gpus: int | None, processes: int | None) -> int | None:
    """Ranks to start, None: as the recipe says. With `processes` no GPU is used, whatever the machine has."""
    if gpus is not None and processes is not None:
        raise UserError("--gpus and --processes exclude each other")
    if processes is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    if gpus is not None:
        from llmctl.train.distributed import require_gpus

        require_gpus(gpus)
    return gpus or processes
