"""What a shell offers when Tab is pressed: recipes, stages, checkpoints, runs, recipe keys and their values, tasks.

Typer's scripts ask by starting `llmctl` with `_LLMCTL_COMPLETE` set. Nothing here imports torch, and no mistake is ever told: a
shell would print it into the line that is being typed.
"""

import contextlib
import io
import os
import sys
import typing
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import typer

ASKED = "_LLMCTL_COMPLETE"
BREAKS = "=:"
"""Characters at which bash ends a word (COMP_WORDBREAKS), and which ours contain: pretrain.lr=1e-3, arc_easy:rc."""
Offer = list[str | tuple[str, str]]
"""Words, each with what it means where that is known."""


def answer(program: Callable[[], Any]) -> None:
    """Let `program` (a Typer app) write what the shell asks for; nothing where anything goes wrong."""
    os.environ["COLUMNS"] = "1000"  # Typer folds a meaning at the terminal's width, and a shell takes each line for a word
    of_bash = os.environ.get(ASKED) == "complete_bash"
    begun = join_words() if of_bash else ""
    written, code = io.StringIO(), 0
    with contextlib.redirect_stdout(written), contextlib.redirect_stderr(io.StringIO()):
        try:
            program()
        except SystemExit as end:
            code = end.code  # fish asks by it whether there is anything
        except Exception:  # whatever it is, a traceback would land in the line that is being typed
            return
    text = written.getvalue()
    if of_bash:  # which has the part of the word up to the break already
        text = "".join(line.removeprefix(begun) + "\n" for line in text.splitlines())
    sys.stdout.write(text)
    sys.stdout.flush()
    sys.exit(code)


def join_words() -> str:
    """Put together what bash has split at `=` and `:`, in the variables that Typer reads. Returns the part of the last word that
    bash takes for words of their own."""
    words = os.environ.get("COMP_WORDS", "").split("\n")
    at = int(os.environ.get("COMP_CWORD") or len(words) - 1)
    joined: list[str] = []
    begun = ""
    glued = False
    for number, word in enumerate([*words[:at], words[at] if at < len(words) else ""]):
        is_break = word != "" and not word.strip(BREAKS)
        if joined and (is_break or glued):
            begun = joined[-1] if not is_break else joined[-1] + word
            joined[-1] += word
        else:
            begun = ""
            joined.append(word)
        glued = is_break and number > 0
    # A quote that is still open would end Typer's reading of the line.
    os.environ["COMP_WORDS"] = "\n".join(word.strip("\"'") for word in joined[:-1]) + "\n" + joined[-1].lstrip("\"'")
    os.environ["COMP_CWORD"] = str(len(joined) - 1)
    return begun


def offering(command: Callable[..., None], **offers: Callable[[typer.Context, str], Offer]) -> Callable[..., None]:
    """`command`, with what is offered for parameters of these names."""
    for name, offer in offers.items():
        for information in command.__annotations__[name].__metadata__:
            information.autocompletion = offer
    return command


def recipes(ctx: Any, incomplete: str) -> Offer:
    """TOML files and folders of the place that is being typed; with nothing typed also those of `recipes/`."""
    folder = Path(incomplete or ".").parent if not incomplete.endswith("/") else Path(incomplete)
    found = [str(path) for path in sorted(folder.glob("*.toml"))]
    found += [f"{path}/" for path in sorted(folder.iterdir()) if path.is_dir() and not path.name.startswith(".")]
    if "/" not in incomplete:
        from llmctl.recipe.shipped import shipped_recipes

        found = [str(path) for path in sorted(Path("recipes").glob("*.toml"))] + found
        found += [file.stem for file in shipped_recipes()]
    return [*found]


def stages(ctx: Any, incomplete: str) -> Offer:
    """Stages of the recipe on the line, or of the newest run."""
    from llmctl.recipe.load import PLAIN_STAGES, read
    from llmctl.recipe.shipped import recipe_file, shipped_recipes

    known = {file.stem for file in shipped_recipes()}
    recipe = next((word for word in words_before() if word.endswith(".toml") or word in known), None)
    if recipe is None:
        return [*dict.fromkeys(artifact.stage for artifact in store(ctx).newest_run().artifacts)]
    values = read(recipe_file(Path(recipe))).values
    return [*(name for name in PLAIN_STAGES if values.get(name)), *values.get("stage", {})]


def checkpoints(ctx: Any, incomplete: str) -> Offer:
    """RUN/STAGE of every finished checkpoint, newest first."""
    return [*dict.fromkeys(f"{artifact.run}/{artifact.stage}" for artifact in store(ctx).checkpoints())]


def artifacts(ctx: Any, incomplete: str) -> Offer:
    """RUN/STAGE of all that runs have made."""
    return [*dict.fromkeys(f"{one.run}/{one.stage}" for run in store(ctx).runs() for one in run.artifacts if one.done)]


def runs(ctx: Any, incomplete: str) -> Offer:
    return [run.name for run in store(ctx).runs()]


def store(ctx: Any) -> Any:
    from llmctl.runs.store import RunStore, default_root

    words = words_before()
    at = words.index("--runs") + 1 if "--runs" in words else len(words)
    return RunStore(Path(words[at]).expanduser() if at < len(words) else default_root())


def words_before() -> list[str]:
    """The words of the line: while an option lacks its value, Typer has read none of them into parameters."""
    line = os.environ.get("COMP_WORDS") or os.environ.get("_TYPER_COMPLETE_ARGS", "")
    return line.split()


def keys(ctx: Any, incomplete: str) -> Offer:
    """Keys and tables of a recipe, as `llmctl explain` takes them."""
    from llmctl.views import explain

    told = {name: first_line(table.__doc__) for name, table in explain.tables().items() if name}
    told |= {name: first_line(info.description) for name, (_, info) in explain.keys().items()}
    return [(name, meaning) for name, meaning in told.items() if name.startswith(incomplete)]


def first_line(text: str | None) -> str:
    return (text or "").strip().partition("\n")[0]


def overrides(ctx: Any, incomplete: str) -> Offer:
    """KEY= for every key that begins so; after the sign, or where one key alone is left, the values that it may have."""
    from llmctl.views import explain

    every = {name: info for name, (_, info) in explain.keys().items() if "NAME" not in name}
    key, sign, _ = incomplete.partition("=")
    fitting = [key] if sign and key in every else [name for name in every if name.startswith(incomplete)]
    if len(fitting) != 1:
        return [(f"{name}=", first_line(every[name].description)) for name in fitting]
    (key,) = fitting
    words = [*dict.fromkeys(values(every[key].annotation))]
    if not words:  # two offers, since a shell puts a blank behind one alone; the other tells the type
        words = [] if sign else ["", explain.type_name(every[key].annotation).upper().replace(" ", "_")]
    return [f"{key}={word}" for word in words]


def values(annotation: Any) -> Iterator[str]:
    """The words that a type admits; none of a type with too many."""
    if annotation is bool:
        yield from ("true", "false")
    elif typing.get_origin(annotation) is typing.Literal:
        yield from map(str, typing.get_args(annotation))
    elif typing.get_origin(annotation) not in (list, dict, tuple):
        for inner in typing.get_args(annotation):
            yield from values(inner)


def tasks(ctx: Any, incomplete: str) -> Offer:
    """Suites and tasks that `llmctl eval --list` has, and files of own ones."""
    from llmctl.suites import catalog

    return [*catalog.known().items(), *(str(path) for path in own_files((".toml", ".jsonl")))]


def own_files(endings: Iterable[str]) -> list[Path]:
    return sorted(path for path in Path().iterdir() if path.suffix in endings)


RECIPES, STAGES, CHECKPOINTS, ARTIFACTS = recipes, stages, checkpoints, artifacts
RUNS, KEYS, OVERRIDES, TASKS = runs, keys, overrides, tasks
