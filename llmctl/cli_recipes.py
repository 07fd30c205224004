"""Commands about recipes: one to begin with, those that ship, what is wrong with one, what its keys mean."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from llmctl.cli_options import Json, Processes, Runs, Set, Smoke, readable_errors
from llmctl.errors import EXIT_BAD_INPUT, StageFailed, UserError


def init(
    file: Annotated[Path, typer.Argument(help="Recipe to write.")] = Path("own.toml"),
    goal: Annotated[str | None, typer.Option(metavar="GOAL", help="pretrain, continue, sft, lora or sft+lora.")] = None,
    base: Annotated[str | None, typer.Option(metavar="MODEL", help="Model to start from: folder or hub name.")] = None,
    data: Annotated[
        list[str] | None, typer.Option(metavar="PATH", help="Text or conversations: file, folder, hf:NAME; may be repeated.")
    ] = None,
    hardware: Annotated[str | None, typer.Option(help="cpu, or GPUs as 8xh100.", show_default="this machine")] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Ask nothing: defaults for what is left out.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Write over a file that is there.")] = False,
) -> None:
    """Write a commented recipe from a few answers; on a terminal what no option says is asked.

    Example: llmctl init own.toml --goal sft+lora --base Qwen/Qwen3-0.6B --data talks.jsonl --hardware 1xh100
    """
    with readable_errors():
        from llmctl.views.starting import ask, check_target, write_recipe

        check_target(file, force)
        asked = ask(file, goal, base, data or [], hardware, sys.stdin.isatty() and not yes)
        write_recipe(file, asked)


def recipes(json: Json = False) -> None:
    """The recipes that ship: what each makes, its size, what it needs and what it costs.

    Example: llmctl recipes --json
    """
    with readable_errors():
        from llmctl.recipe.shipped import shipped_recipes
        from llmctl.stages.shipping import described
        from llmctl.views.recipes import show_recipes

        found = [described(file) for file in shipped_recipes()]
        if not found:
            raise StageFailed("the recipes that ship are not where this installation should have them; install llmctl again")
        show_recipes(found, json)


def check(
    recipe: Annotated[Path, typer.Argument(help="Recipe (TOML), or the name of one that ships.")],
    set_: Set = None,
    smoke: Smoke = False,
    gpus: Annotated[int | None, typer.Option("--gpus", min=1, help="Ranks, one a GPU; they need not be here.")] = None,
    processes: Processes = None,
    runs: Runs = None,
    json: Json = False,
) -> None:
    """All that can be known of a recipe before it is run: stages and their fit, sources, memory, disk, storage.

    Nothing is made. Exit code 2: something is wrong. After it comes `llmctl run RECIPE --smoke`, the step before every real run.

    Example: llmctl check recipes/olmo_small.toml
    """
    with readable_errors():
        if gpus is not None and processes is not None:
            raise UserError("--gpus and --processes exclude each other")
        if processes is not None:
            os.environ["CUDA_VISIBLE_DEVICES"] = ""  # as the run itself does
        from llmctl.stages.checking import check_recipe
        from llmctl.views.checking import show_findings

        options = [word for value in set_ or () for word in ("--set", value)]
        options += ["--runs", str(runs)] if runs is not None else []
        options += ["--gpus", str(gpus)] if gpus is not None else []
        options += ["--processes", str(processes)] if processes is not None else []
        options += ["--smoke"] if smoke else []
        found = check_recipe(recipe, set_ or [], smoke, gpus, processes, runs)
        if not show_findings(found, recipe, options, json):
            raise typer.Exit(EXIT_BAD_INPUT)


def schema(
    out: Annotated[
        list[Path] | None,
        typer.Option("--out", metavar="FILE", help="Write to this file (.md: the reference); may be repeated."),
    ] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the reference of all keys instead.")] = False,
) -> None:
    """The JSON schema of a recipe's file, by which editors complete and check it; or the reference of all keys.

    `#:schema ./recipe.schema.json` as the first line of a recipe tells an editor of it.

    Example: llmctl schema --out recipe.schema.json
    """
    from llmctl.runs.files import require_writable, write_text
    from llmctl.views.reference import reference, schema_text

    with readable_errors():
        if not out:
            typer.echo(reference() if markdown else schema_text(), nl=False)
        for file in out or ():
            require_writable(file)
            write_text(file, reference() if file.suffix == ".md" else schema_text())
            typer.echo(f"written: {file}")


def explain(
    key: Annotated[
        str | None,
        typer.Argument(help="Dotted key, as in pretrain.lr; or a table, as in sft. Left out: all tables.", show_default=False),
    ] = None,
) -> None:
    """What a key of the recipe means, its type, unit and default.

    Example: llmctl explain pretrain.lr
    """
    from llmctl.views.explain import explain as text_of
    from llmctl.views.explain import list_tables

    with readable_errors():
        typer.echo(list_tables() if key is None else text_of(key))
