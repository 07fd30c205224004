"""Tables for people."""

import json
import sys
import time
from typing import Any

from llmctl import events
from llmctl.runs.artifact import Artifact
from llmctl.runs.files import finite
from llmctl.runs.state import status
from llmctl.runs.store import RunStore, changed

LONGEST_NUMBER = 48  # characters of a cell that is one or a few of them


def print_table(table: events.Table, console: Any = None) -> None:
    """A table drawn by rich on a terminal, in aligned columns elsewhere."""
    if console is None and not sys.stdout.isatty():
        print("\n".join(plain_table(table)), flush=True)
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table

    drawn = Table(title=table.title, title_justify="left", box=box.SIMPLE_HEAD)
    for column, left in zip(table.columns, begins_left(table), strict=True):
        drawn.add_column(column, justify="left" if left else "right")
    for row in table.rows:
        drawn.add_row(*row)
    (console or Console()).print(drawn)


def plain_table(table: events.Table) -> list[str]:
    rows, left = [table.columns, *table.rows], begins_left(table)
    widths = [max(len(row[index]) for row in rows) for index in range(len(table.columns))]
    lines = [table.title]
    for row in rows:
        cells = [c.ljust(w) if at_left else c.rjust(w) for c, w, at_left in zip(row, widths, left, strict=True)]
        lines.append("  " + "  ".join(cells).rstrip())
    return lines


def print_json(value: Any) -> None:
    print(json.dumps(finite(value), indent=2))


def begins_left(table: events.Table) -> list[bool]:
    """Of each column, whether it is text and not numbers: the first one, and those of long cells."""
    return [index == 0 or any(len(row[index]) > LONGEST_NUMBER for row in table.rows) for index in range(len(table.columns))]


def show_runs(store: RunStore, as_json: bool) -> None:
    """All runs and where each of their stages stands."""
    found = [
        {"run": run.name, "stage": artifact.name, "status": status(artifact), "changed": changed_at(artifact)}
        for run in store.runs()
        for artifact in run.artifacts
    ]
    if as_json:
        print_json(found)
        return
    if not found:
        print(f"no runs in {store.root}; start one with `llmctl run recipes/olmo_small.toml`")
        return
    rows = tuple((f"{row['run']}/{row['stage']}", row["status"], row["changed"]) for row in found)
    print_table(events.Table(f"runs in {store.root}", ("stage", "status", "changed"), rows))


def changed_at(artifact: Artifact) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(changed(artifact)))
