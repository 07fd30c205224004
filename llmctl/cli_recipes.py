"""Commands about recipes: one to begin with, those that ship, what is wrong with one, what its keys mean."""

from typing import Annotated

import typer

from llmctl.cli_options import readable_errors


def init() -> None:
    """Not there yet."""
    raise NotImplementedError


def recipes() -> None:
    """Not there yet."""
    raise NotImplementedError


def check() -> None:
    """Not there yet."""
    raise NotImplementedError


def schema() -> None:
    """Not there yet."""
    raise NotImplementedError


def explain(key: Annotated[str, typer.Argument(help="Dotted key, as in pretrain.lr; or a table, as in sft.")]) -> None:
    """What a key of the recipe means, its type, unit and default.

    Example: llmctl explain pretrain.lr
    """
    from llmctl.views.explain import explain as text_of

    with readable_errors():
        typer.echo(text_of(key))
