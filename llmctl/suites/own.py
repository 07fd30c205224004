"""A user's own tasks."""

from pathlib import Path

from llmctl.errors import UserError
from llmctl.suites.task import Task


def load(file: Path) -> Task:
    raise UserError(f"{file}: own tasks are not read yet")


def fingerprint(file: Path) -> str:
    raise UserError(f"{file}: own tasks are not read yet")
