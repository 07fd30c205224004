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
    freed, failed = _remove_all(found) if yes else (0, False)
    if as_json:
        rows = [{"path": str(one.path), "bytes": size, "why": one.why} for one, size in zip(found, sizes, strict=True)]
        print(json.dumps({"removed": yes, "bytes": sum(sizes), "freed": freed, "entries": rows}, indent=2))
        return not failed
    if not found:
        print(f"nothing of {', '.join(names) or store.root} may go")
        return True
    rows = tuple(
        (str(one.path.relative_to(store.root)), size_told(size), one.why) for one, size in zip(found, sizes, strict=True)
    )
    print_table(events.Table("removed" if yes else "may go", ("", "size", "why"), rows))
    print(f"{size_told(freed)} were removed" if yes else f"nothing was removed; --yes removes {size_told(sum(sizes))}")
    return not failed


def runs_named(store: RunStore, names: Sequence[str]) -> list[Run]:
    """Raises:
    UserError: there is no run of one of these names.
    """
    known = {run.name: run for run in store.runs()}
    for name in names:
        if name not in known:
            raise UserError(f"{name}: no such run in {store.root}; there are: {', '.join(known) or 'none'}")
    return [known[name] for name in names] if names else list(known.values())


def _remove_all(found: Sequence[Removable]) -> tuple[int, bool]:
    """(bytes that were freed, whether something is still there)"""
    freed, failed = 0, False
    for one in found:
        try:
            freed += remove(one)
        except (StageFailed, OSError) as error:
            failed = True
            print(f"{one.path}: not removed: {error}", file=sys.stderr)
    return freed, failed


def size_told(size: float) -> str:
    """1234567 -> 1.2 MB"""
    for unit in UNITS[:-1]:
        if size < 1000:
            return f"{size:,.0f} {unit}" if unit == UNITS[0] else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:,.1f} {UNITS[-1]}"
