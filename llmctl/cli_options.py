"""Options that several commands share, and what each does around its work."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Annotated, Any

import typer

from llmctl.errors import EXIT_CTRL_C, EXIT_FAILED, Interrupted, UserError

RecipeFile = Annotated[Path | None, typer.Argument(help="Recipe (TOML). Left out: the newest run's.", show_default=False)]
Set = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a key: --set pretrain.lr=3e-4")]
Runs = Annotated[Path | None, typer.Option("--runs", envvar="LLMCTL_RUNS", help="Folder of the runs.", show_default="./runs")]
Smoke = Annotated[bool, typer.Option("--smoke", help="The same graph shrunk: every stage in about two minutes.")]
Gpus = Annotated[int | None, typer.Option("--gpus", min=1, help="Ranks to start on this machine, one a GPU.")]
Processes = Annotated[int | None, typer.Option("--processes", min=1, help="Ranks to start on this machine's CPU.")]
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


def make(kinds: list[str] | None, recipe: Path | None, options: dict[str, Any]) -> None:
    """Make the stages of `kinds` (None: the whole recipe) and whatever comes before them."""
    from llmctl.interrupts import raise_on_signals
    from llmctl.stages.session import launched, open_run
    from llmctl.views.progress import PlainScreen, screen
    from llmctl.views.stage import recorded_on

    # Of a launcher's ranks the first one alone speaks.
    with readable_errors(), screen() if launched()[1] == 0 else nullcontext(PlainScreen()) as shown:
        raise_on_signals()
        ranks = chosen_ranks(options.pop("gpus"), options.pop("processes"))
        opened = open_run(recipe, **options)
        opened.make(kinds, ranks, recorded_on(shown, opened.recipe.tracking.tensorboard))


def stage_options(
    set_: list[str] | None, runs: Path | None, smoke: bool, gpus: int | None, processes: int | None
) -> dict[str, Any]:
    return {"overrides": set_ or [], "runs": runs, "smoke": smoke, "gpus": gpus, "processes": processes}


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
