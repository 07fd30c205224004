"""`llmctl init`: the questions that no option answered, and the file that is written."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import typer

from llmctl.errors import UserError
from llmctl.recipe.starting import GOALS, ON_BASE, starter_text
from llmctl.runs.files import require_writable, write_text
from llmctl.stages.starting import answers_of, default_data, found_hardware


def ask(file: Path, goal: str | None, base: str | None, data: Sequence[str], hardware: str | None, questions: bool) -> Any:
    """The `Answers`; with `questions`, what is left out is asked, else it has its default.

    Raises:
        UserError: an answer that cannot be.
    """
    wanted = goal or (question_goal(base) if questions else default_goal(base))
    if wanted not in GOALS:
        raise UserError(f"--goal {wanted}: expected one of {', '.join(GOALS)}")
    if wanted in ON_BASE and base is None and questions:
        base = typer.prompt("Model to start from (folder or hub name)", default="HuggingFaceTB/SmolLM2-135M")
    if not data and questions:
        told = typer.prompt("Data (files, folders or hf:NAME, with commas between)", default=",".join(default_data(wanted)))
        data = [place.strip() for place in told.split(",") if place.strip()]
    chosen = hardware or found_hardware()
    if hardware is None and questions:
        chosen = typer.prompt("Hardware (cpu, or GPUs as 8xh100)", default=chosen)
    return answers_of(file, wanted, base, data, chosen)


def default_goal(base: str | None) -> str:
    return "pretrain" if base is None else "sft"


def question_goal(base: str | None) -> str:
    for goal, meaning in GOALS.items():
        typer.echo(f"  {goal:<9} {meaning}")
    return typer.prompt("Goal", default=default_goal(base))


def check_target(file: Path, force: bool) -> None:
    """Raises:
    UserError: there is a file of that name, or none can be written.
    """
    require_writable(file)
    if file.exists() and not force:
        raise UserError(f"{file} is there already; name another file, or write over it with --force")


def write_recipe(file: Path, answers: Any) -> None:
    """Write the recipe and say what to do next."""
    write_text(file, starter_text(answers))
    gpus = ["--gpus", str(answers.hardware.ranks)] if answers.hardware.ranks > 1 else []
    for data in answers.data:
        typer.echo(f"{data.path}: {'conversations' if data.kind == 'chat' else 'text'}")
    typer.echo(f"written: {file}\n\nnext:")
    for words in (["check", str(file), *gpus], ["run", str(file), "--smoke"], ["run", str(file), *gpus]):
        typer.echo(f"  {shlex.join(['llmctl', *words])}")
