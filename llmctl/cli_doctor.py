"""`llmctl doctor`: what works on this machine."""

from typing import Annotated

import typer

from llmctl.cli_options import Json, Runs, readable_errors
from llmctl.errors import EXIT_FAILED


def doctor(
    quick: Annotated[bool, typer.Option("--quick", help="Look, and try nothing: no package is imported.")] = False,
    runs: Runs = None,
    json: Json = False,
) -> None:
    """What works here: Python, torch, GPUs, every package by a tiny real use, two ranks, disk, network; what to install.

    Exit code 1: something that every run needs does not work. A bug report wants the JSON.

    Example: llmctl doctor --json
    """
    from llmctl.doctor.diagnosis import diagnose
    from llmctl.runs.store import default_root
    from llmctl.views.doctor import show_diagnosis, told_at_work

    with readable_errors():
        with told_at_work() as begun:
            found = diagnose(runs or default_root(), quick, begun)
        show_diagnosis(found, json)
        if found.failed:
            raise typer.Exit(EXIT_FAILED)
