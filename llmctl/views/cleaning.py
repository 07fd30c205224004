"""What of the runs may go, and what went."""

import json
import sys
from collections.abc import Sequence

from llmctl import events
from llmctl.errors import StageFailed, UserError
from llmctl.runs.cleaning import Removable, removable, remove
from llmctl.runs.store import Run, RunStore
from llmctl.stages.planned import current
from llmctl.views.tables import print_table

UNITS = ("bytes", "kB", "MB", "GB", "TB")


def show_cleaning(store: RunStore, names: Sequence[str], yes: bool, trainers: bool, as_json: bool) -> bool:
    """List what may go of the runs of these names (none: of all), and remove it with `yes`. False where something could not be
    removed."""
    runs = runs_named(store, names)
    found = removable(store, runs, {run.name: current(store, run) for run in runs}, trainers)
    sizes = [one.bytes for one in found]
    freed = [_removed(one) if yes else None for one in found]
    went, total = [bytes_ is not None for bytes_ in freed], sum(filter(None, freed))
    if as_json:
        rows = [
            {"path": str(one.path), "bytes": size, "why": one.why, "removed": gone}
            for one, size, gone in zip(found, sizes, went, strict=True)
        ]
        print(json.dumps({"removed": yes and all(went), "bytes": sum(sizes), "freed": total, "entries": rows}, indent=2))
    elif not found:
        print(f"nothing of {', '.join(names) or store.root} may go")
    else:
        shown = tuple(
            (str(one.path.relative_to(store.root)), size_told(size), one.why)
            for one, size, gone in zip(found, sizes, went, strict=True)
            if gone or not yes
        )
        if shown:
            print_table(events.Table("removed" if yes else "may go", ("", "size", "why"), shown))
        print(f"{size_told(total)} were removed" if yes else f"nothing was removed; --yes removes {size_told(sum(sizes))}")
    return not yes or all(went)


def runs_named(store: RunStore, names: Sequence[str]) -> list[Run]:
    """Raises:
    UserError: there is no run of one of these names.
    """
    known = {run.name: run for run in store.runs()}
    for name in names:
        if name not in known:
            raise UserError(f"{name}: no such run in {store.root}; there are: {', '.join(known) or 'none'}")
    return [known[name] for name in names] if names else list(known.values())


def _removed(one: Removable) -> int | None:
    """Remove it; bytes that were freed, None where it is still there, which is told."""
    try:
        return remove(one)
    except (StageFailed, OSError) as error:
        print(f"{one.path}: not removed: {error}", file=sys.stderr)
        return None


def size_told(size: float) -> str:
    """1234567 -> 1.2 MB"""
    for unit in UNITS[:-1]:
        if size < 1000:
            return f"{size:,.0f} {unit}" if unit == UNITS[0] else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:,.1f} {UNITS[-1]}"
