"""Whether what is there is as it was written."""

import json
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict
from typing import Any

from llmctl.runs.artifact import Artifact
from llmctl.runs.store import RunStore
from llmctl.stages.verifying import Verified, verify
from llmctl.views.progress import screen


def show_verification(store: RunStore, checkpoint: str | None, everything: bool, expected: str | None, as_json: bool) -> bool:
    """Hash every file of an artifact and of its ancestors, or of all runs; True if all are as they were written, and the
    artifact's output hash is `expected`, where one is."""
    if everything:
        artifacts = [artifact for run in store.runs() for artifact in run.artifacts]
    else:
        artifacts = store.ancestry(store.find_artifact(checkpoint))
    other = None if expected is None or artifacts[0].output_hash == expected else artifacts[0].output_hash
    found = _verified(artifacts, as_json)
    whole = other is None and not any(one.problems for one in found)
    if as_json:
        print(json.dumps({"whole": whole, "artifacts": [as_values(one) for one in found]}, indent=2))
    for one in found:
        _tell(one, as_json)
    if other is not None:
        print(f"{artifacts[0].name}: its output hash is {other}, and {expected} was expected", file=sys.stderr)
    elif expected is not None and not as_json:
        print(f"{artifacts[0].name}: the output hash is the expected one, {expected}")
    if everything and not found and not as_json:
        print(f"no runs in {store.root}")
    return whole


def _verified(artifacts: Sequence[Artifact], quiet: bool) -> list[Verified]:
    if quiet:
        return verify(artifacts)
    with screen() as shown, shown.stage("verify") if artifacts else nullcontext():
        return verify(artifacts)


def _tell(one: Verified, as_json: bool) -> None:
    for problem in one.problems:
        print(f"{problem.path}: {problem.what}", file=sys.stderr)
    for checked in one.changed:
        print(f"warning: {checked.input.name} ({checked.input.place}): {checked.what}; {one.artifact.name} keeps what it read",
              file=sys.stderr)  # fmt: skip
    if not as_json:
        print(f"{one.artifact.name}: {one.standing}")


def as_values(one: Verified) -> dict[str, Any]:
    return {
        "folder": str(one.artifact.folder),
        "standing": one.standing,
        "problems": [{"path": str(problem.path), "what": problem.what} for problem in one.problems],
        "inputs_changed": [
            {key: value for key, value in asdict(checked.input).items() if key != "artifact"} | {"what": checked.what}
            for checked in one.changed
        ],
    }
