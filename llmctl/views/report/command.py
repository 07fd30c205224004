"""`llmctl report`: which run, and where its page goes."""

import difflib
import errno
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from llmctl.errors import UserError
from llmctl.runs.files import expanded, write_text
from llmctl.runs.store import RECIPE_FILE, Run, RunStore, default_root
from llmctl.views.report.collect import MARKS, collect
from llmctl.views.report.figures import FORMATS, write_figure

PAGE = "report.html"


@dataclass(frozen=True, slots=True)
class Wish:
    """What is asked for on the command line."""

    out: Path | None = None
    plots: Path | None = None
    figure_format: str = "both"
    serve: bool = False
    port: int = 0
    as_json: bool = False


def show_report(name: str | None, wish: Wish, runs: Path | None) -> None:
    """Write the page, or serve it, or print what it is made from.

    Raises:
        UserError: there is no such run, or nothing can be written there.
    """
    if wish.figure_format not in (*FORMATS, "both"):
        raise UserError(f"--format {wish.figure_format}: expected png, svg or both")
    if wish.serve and (wish.as_json or wish.out or wish.plots):
        raise UserError("--serve shows the page and writes nothing; leave --json, --out and --plots out")
    store = RunStore(runs or default_root())
    run = store.newest_run() if name is None else find_run(store, name)
    if wish.serve:
        from llmctl.views.report.serve import serve

        serve(run, wish.port)
        return
    record = collect(run.folder)
    if wish.as_json:
        print(json.dumps(record.plain(), indent=2))
        if wish.out is None and wish.plots is None:
            return
    from llmctl.views.report.page import figures, guarded, make_page, summary_lines

    out = wish.out or run.folder / PAGE
    kinds = FORMATS if wish.figure_format == "both" else (wish.figure_format,)
    drawings = figures(record)
    with _written("--out", out):
        write_text(out, make_page(record, drawings))
    written = []
    if wish.plots is not None:
        with _written("--plots", wish.plots):
            wish.plots.mkdir(parents=True, exist_ok=True)
            for name, figure in drawings.items():
                make = partial(write_figure, name, figure, wish.plots, kinds)
                written += guarded(record, f"the figure {name}", make, [])
    if not wish.as_json:
        print("\n".join([str(out), *summary_lines(record)]))
        if written:
            print(f"{len(written)} figures in {wish.plots}")


@contextmanager
def _written(option: str, place: Path) -> Iterator[None]:
    """Raises:
    UserError: `place` is none to write to.
    """
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):  # which has a message of its own
            raise
        raise UserError(f"{place}: cannot be written ({error.strerror}); {option} names another place") from None


def find_run(store: RunStore, name: str) -> Run:
    """The run of that name, or in that folder, which may be one of its stages'.

    Raises:
        UserError: there is none; the message lists what there is.
    """
    place = expanded(name)
    for folder in (store.root / name, place, *([place.resolve().parent] if place.is_dir() else [])):
        if is_run(folder):
            return Run(folder.resolve())
    known = [run.name for run in store.runs() if is_run(run.folder)]
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]}? " if near else ""
    there = (
        f"there are: {', '.join(known)}" if known else "there are none yet; start one with `llmctl run recipes/olmo_small.toml`"
    )
    raise UserError(f"{name!r} is no run in {store.root} and no folder of one; {hint}{there}")


def is_run(folder: Path) -> bool:
    """Whether there is a recipe's record, or an artifact."""
    if not folder.is_dir():
        return False
    return (folder / RECIPE_FILE).is_file() or any(next(folder.glob(f"*-*/{mark}"), None) for mark in MARKS)
