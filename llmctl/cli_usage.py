"""What the command line answers where it cannot read what was typed: one line, as for every other mistake."""

import sys
from difflib import get_close_matches
from typing import Any

import typer
from typer.core import TyperGroup

from llmctl.errors import EXIT_BAD_INPUT


class Group(TyperGroup):
    """Commands, with the nearest name for one that there is not."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args and args[0] not in self.commands:
            near = get_close_matches(args[0], self.commands, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(sorted(self.commands))}"
            ctx.fail(f"no command {args[0]!r}; {hint}")
        return super().resolve_command(ctx, args)


class Program(Group):
    """The whole of them. A mistake is a line and not a box: scripts read it, and narrow terminals break a box."""

    def main(self, *arguments: Any, standalone_mode: bool = True, **options: Any) -> Any:
        if not standalone_mode:
            return super().main(*arguments, standalone_mode=False, **options)
        try:
            code = super().main(*arguments, standalone_mode=False, **options)
        except typer.Abort:
            typer.echo("error: aborted", err=True)
            sys.exit(1)
        except Exception as error:
            if not hasattr(error, "format_message"):
                raise
            answer_mistake(error)
            sys.exit(EXIT_BAD_INPUT)
        sys.exit(code or 0)


def answer_mistake(error: Any) -> None:
    """A mistake that the command line's parser has found, with the help that would have prevented it."""
    message = error.format_message()
    if not message:  # the help of a group without a command, which is on the screen by now
        return
    message = message.removesuffix(".")
    message = message[:1].lower() + message[1:]
    where = "" if error.ctx is None else f"; see `{error.ctx.command_path} --help`"
    typer.echo(f"error: {message}{where}", err=True)
