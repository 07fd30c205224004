"""The scores of two checkpoints beside each other."""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from llmctl.evals.compare import quantile
from llmctl.runs.artifact import Artifact
from llmctl.runs.files import read_json
from llmctl.runs.store import Run

MANY = 1e9
"""Degrees of freedom of an error that is only known as a number."""


@dataclass(frozen=True, slots=True)
class ScoreRow:
    """A number of both, or of one alone (the other is None)."""

    name: str
    first: float | None
    second: float | None
    interval: tuple[float, float] | None = None
    """Of 95 % confidence around second - first; None where no errors are known."""
    paired: bool = False
    """Whether the interval is from the differences of the same questions."""


def compare_scores(first: Artifact, second: Artifact) -> list[ScoreRow]:
    """The metrics of the stages, and what was measured of their models: noted evaluations, and those of their runs."""
    rows = [ScoreRow(name, *values) for name, values in _beside(first.scores, second.scores) if values[0] != values[1]]
    noted = _beside(_noted(first), _noted(second))
    asked = _beside(_asked(first), _asked(second))
    return [*rows, *(_row(name, *found, first, second) for name, found in [*noted, *asked])]


def _beside(first: dict[str, Any], second: dict[str, Any]) -> Iterator[tuple[str, tuple[Any, Any]]]:
    for name in dict.fromkeys([*first, *second]):
        yield name, (first.get(name), second.get(name))


def _noted(artifact: Artifact) -> dict[str, dict[str, Any]]:
    """Evaluations in the manifest of the stage's own model, by how they were asked."""
    found = {}
    for one in artifact.manifest.get("evaluations", []):
        asked = one.get("asked", {})
        if asked.get("model", "model") == "model":
            more = {key: value for key, value in asked.items() if key not in ("task", "shots", "model")}
            found[f"{asked.get('task', '?')} {asked.get('shots', 0)}-shot {json.dumps(more, sort_keys=True)}"] = one["found"]
    return found


def _asked(artifact: Artifact) -> dict[str, dict[str, Any]]:
    """Rows of the newest evaluation of its run that this very artifact is a parent of."""
    own = f"{artifact.run}/{artifact.name}"
    for other in reversed(Run(artifact.folder.parent).artifacts):
        if other.stage == "eval" and other.readable and own in [p.get("folder") for p in other.manifest["parents"].values()]:
            try:
                rows = read_json(other.folder / "scores.json")["results"]
                return {
                    f"{row['task']} {row['shots']}-shot": row | {"evaluation": str(other.folder)}
                    for row in rows
                    if row["checkpoint"] == artifact.stage
                }
            except (OSError, ValueError, KeyError, TypeError):
                continue
    return {}


def _row(name: str, one: dict[str, Any] | None, other: dict[str, Any] | None, first: Artifact, second: Artifact) -> ScoreRow:
    name, found = name.partition(" {")[0], [one or {}, other or {}]
    before, after = (row.get("value") for row in found)
    if before is None or after is None:
        return ScoreRow(name, before, after)
    if "evaluation" in found[0] and found[0]["evaluation"] == found[1].get("evaluation"):  # the questions are the same
        for row, against, sign in ((found[1], first, 1), (found[0], second, -1)):
            ends = [sign * end for end in row.get("difference_interval") or [] if end is not None]
            if row.get("compared_with") == against.stage and len(ends) == 2:
                return ScoreRow(name, before, after, (min(ends), max(ends)), True)
    errors = [row["stderr"] for row in found if row.get("stderr") is not None]
    if len(errors) < 2:
        return ScoreRow(name, before, after)
    reach = quantile(MANY) * math.hypot(*errors)
    return ScoreRow(name, before, after, (after - before - reach, after - before + reach))
