"""What a checkpoint is made of."""

import json
import sys
from pathlib import Path
from typing import Any

from llmctl.errors import UserError
from llmctl.runs.artifact import Artifact
from llmctl.runs.store import RunStore

SHOWN = 4  # evaluations of a checkpoint that its line has room for


def subject(store: RunStore, checkpoint: str | None) -> Artifact:
    """The artifact that `checkpoint` means, or the newest finished one of the newest run.

    Raises:
        UserError: it belongs to no run, or nothing is finished yet.
    """
    if checkpoint is not None:
        owner = store.owner(store.find_checkpoint(checkpoint))
        if owner is None:
            raise UserError(f"{checkpoint}: a model folder without a manifest; only what llmctl made has a lineage")
        return owner
    run = store.newest_run()
    finished = [artifact for artifact in run.artifacts if artifact.done]
    if not finished:
        raise UserError(f"{run.folder}: nothing is finished yet; `llmctl runs` shows where it stands")
    return max(finished, key=lambda artifact: artifact.manifest["ended"])


def label(artifact: Artifact) -> str:
    """One line: what it is, how long it took, its numbers."""
    if not artifact.done:
        return f"{artifact.name}: missing"
    manifest = artifact.manifest
    numbers = [f"{k} {v:.4g}" for k, v in manifest["metrics"].items() if isinstance(v, float)][:3]
    return "  ".join([artifact.name, f"{manifest['seconds']:.0f} s", *numbers])


def averaged(artifact: Artifact) -> list[str]:
    """A line for each checkpoint that `llmctl average` took: of a stage that keeps several, this tells which."""
    rows = artifact.manifest["recipe"].get("checkpoints", []) if artifact.done else []
    return [f"{row['weight']:.4g} x {row['checkpoint']}" for row in rows]


def merged(artifact: Artifact) -> list[str]:
    """A line for the base and for each adapter that `llmctl merge` took, with its hash."""
    made = artifact.manifest["recipe"] if artifact.done and artifact.manifest["kind"] == "merge" else None
    if made is None:
        return []
    rows = [(made["base"]["checkpoint"], made["base"]), *((f"{r['weight']:.4g} x {r['adapter']}", r) for r in made["adapters"])]
    return [f"{told}  sha256 {row['sha256'][:12]}" for told, row in rows]


def evaluated(artifact: Artifact) -> list[str]:
    """A line of the newest evaluations that were noted of a model of the artifact."""
    noted = artifact.manifest.get("evaluations", [])[::-1] if artifact.done else []
    if not noted:
        return []
    more = f", and {len(noted) - SHOWN:,} more (--json has all)" if len(noted) > SHOWN else ""
    return [f"evaluated: {', '.join(map(score_line, noted[:SHOWN]))}{more}"]


def score_line(noted: dict[str, Any]) -> str:
    asked, found = noted["asked"], noted["found"]
    scale, digits = (1, 3) if asked.get("measure") == "bits_per_byte" else (100, 1)
    error = f" ± {scale * found['stderr']:.{digits}f}" if found.get("stderr") is not None else ""
    shots = f" {asked['shots']}-shot" if asked.get("shots") is not None else ""
    where = f" of {asked['model']}" if asked.get("model", "model") != "model" else ""
    value = f" {scale * found['value']:.{digits}f}" if found.get("value") is not None else ""
    return f"{asked.get('task', '?')}{shots}{where}{value}{error}"


def as_values(store: RunStore, artifact: Artifact) -> dict[str, Any]:
    manifest = artifact.manifest if artifact.done else {}
    return {
        "stage": artifact.stage,
        "folder": str(artifact.folder),
        "key": artifact.key,
        "output_hash": manifest.get("output_hash"),
        "metrics": manifest.get("metrics"),
        "averaged": averaged(artifact),
        "merged": merged(artifact),
        "evaluations": manifest.get("evaluations", []),
        "parents": [as_values(store, parent) for parent in store.parents(artifact).values()] if artifact.done else [],
    }


def show_lineage(store: RunStore, checkpoint: str | None, as_json: bool) -> None:
    """Print the artifact with all that it is made of. An ancestor that stands in the tree already is only named."""
    artifact = subject(store, checkpoint)
    if as_json:
        print(json.dumps(as_values(store, artifact), indent=2))
        return
    shown: set[Path] = set()

    def lines(node: Artifact, indent: str) -> list[str]:
        if node.folder in shown:
            return []
        shown.add(node.folder)
        run = f"{node.run}/" if node.run != artifact.run else ""
        # The deepest chain first: direct parents that are ancestors of another parent stand below that one.
        parents = list(store.parents(node).values())[::-1] if node.done else []
        below = [line for parent in parents for line in lines(parent, indent + "  ")]
        made_of = [f"{indent}    = {line}" for line in averaged(node) + merged(node)]
        return [f"{indent}{run}{label(node)}", *made_of, *(f"{indent}    {line}" for line in evaluated(node)), *below]

    print(f"{artifact.run}: {artifact.folder}")
    print("\n".join(lines(artifact, "  ")))


def show_verification(store: RunStore, checkpoint: str | None) -> bool:
    """Hash every file of an artifact and of its ancestors; True if all are as they were written."""
    whole, seen, queue = True, set(), [subject(store, checkpoint)]
    while queue:
        artifact = queue.pop(0)
        if artifact.folder in seen:
            continue
        seen.add(artifact.folder)
        problems = artifact.problems()
        for problem in problems:
            print(f"{problem.path}: {problem.what}", file=sys.stderr)
        whole = whole and not problems
        print(f"{artifact.name}: {f'{len(problems)} files differ' if problems else 'as written'}")
        queue += store.parents(artifact).values() if artifact.done else []
    return whole
