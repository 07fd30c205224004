"""In what two recipes, runs or checkpoints differ, as tables and as JSON. The first line is the verdict."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from llmctl import events
from llmctl.stages.difference import Changed, Difference
from llmctl.stages.score_difference import ScoreRow
from llmctl.stages.sides import Side
from llmctl.views.tables import print_json, print_table

LONGEST = 60  # characters of a value in a table


def show_difference(found: Difference, as_json: bool) -> None:
    if as_json:
        print_json(as_values(found))
        return
    print(found.verdict)
    print(f"A: {named(found.first)}\nB: {named(found.second)}")
    show_changes("recipe", found.deciding)
    show_changes("recipe, keys that change nothing of the outcome", [one for one in found.recipe if not one.decides])
    show_changes("data", found.data)
    show_changes("model", found.shape)
    if found.weights:
        rows = tuple((kind, "of another shape" if far is None else f"{far:.4f}") for kind, far in found.weights.items())
        print_table(events.Table("weights: distance relative to A", ("tensors", "|B - A| / |A|"), rows))
    if found.scores:
        columns = ("measure", "A", "B", "B - A", "95 % interval")
        print_table(events.Table("scores", columns, tuple(map(score_cells, found.scores))))
        if any(row.paired for row in found.scores):
            print("  p: from the differences on the same questions")
    show_changes("versions and hardware", found.circumstances)


def named(side: Side) -> str:
    return side.name if side.artifact is None else f"{side.name} ({side.artifact.name})"


def show_changes(title: str, rows: Sequence[Changed]) -> None:
    if rows:
        cells = tuple((one.key, told(one.first), told(one.second)) for one in rows)
        print_table(events.Table(title, ("", "A", "B"), cells))


def told(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"


def score_cells(row: ScoreRow) -> tuple[str, ...]:
    one, other = ("-" if value is None else f"{value:.4g}" for value in (row.first, row.second))
    difference = f"{row.second - row.first:+.4g}" if row.first is not None and row.second is not None else ""
    interval = f"[{row.interval[0]:+.4g}, {row.interval[1]:+.4g}]{' p' if row.paired else ''}" if row.interval else ""
    return row.name, one, other, difference, interval


def as_values(found: Difference) -> dict[str, Any]:
    lists = {
        name: [asdict(one) for one in rows]
        for name, rows in (
            ("recipe", found.recipe),
            ("data", found.data),
            ("model", found.shape),
            ("scores", found.scores),
            ("versions_and_hardware", found.circumstances),
        )
    }
    sides = {"first": found.first.name, "second": found.second.name}
    return {"same": found.same, "verdict": found.verdict} | sides | {"only": found.only} | lists | {"weights": found.weights}
