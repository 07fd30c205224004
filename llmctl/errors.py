"""Errors that are meant for the person at the keyboard, and the exit codes that go with them."""

from importlib.util import find_spec

EXIT_DONE = 0
EXIT_FAILED = 1
EXIT_BAD_INPUT = 2
EXIT_DEAD_RUN = 3
EXIT_INTERRUPTED = 75  # EX_TEMPFAIL of sysexits.h: the same command goes on from the last checkpoint
EXIT_CTRL_C = 130


class UserError(Exception):
    """A mistake in a recipe, an option or an input file: what is wrong, what was expected, what to do.

    The command line prints the message alone, without a traceback, and exits with `exit_code`.
    """

    exit_code = EXIT_BAD_INPUT


class StageFailed(UserError):
    """A stage could not be done for a reason outside the recipe (another process holds the run, say)."""

    exit_code = EXIT_FAILED


class DeadRun(UserError):
    """A stage would train and teach nothing, or something wrong. Found before any model is loaded."""

    exit_code = EXIT_DEAD_RUN


class Interrupted(BaseException):
    """The run was told to stop (SIGTERM, Ctrl-C) and has left a state that the same command resumes.

    No `Exception`, as `KeyboardInterrupt` is none: a library that catches everything must not swallow it.
    """

    def __init__(self, message: str, exit_code: int = EXIT_INTERRUPTED) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def require_package(package: str, what_for: str, distribution: str | None = None) -> None:
    """`distribution` is what `pip` calls it, where that is another name.

    Raises:
        UserError: an optional package is not installed.
    """
    if find_spec(package) is None:
        raise UserError(f"{what_for} needs a package that is not installed: pip install {distribution or package}")
