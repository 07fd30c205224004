"""What a checkpoint is made of, as a tree and as JSON."""

from pathlib import Path
from typing import Any, Literal

from llmctl.runs.artifact import Artifact
from llmctl.runs.store import RunStore
from llmctl.stages.inputs import inputs_of
from llmctl.views.lineage_graph import drawn
from llmctl.views.tables import print_json

Form = Literal["tree", "json", "dot", "mermaid"]
SHOWN = 4  # evaluations of a checkpoint that its line has room for


def label(artifact: Artifact) -> str:
    """One line: what it is, how long it took, its numbers."""
    if not artifact.readable:
        return f"{artifact.name}: {'its manifest cannot be read' if artifact.done else 'missing'}"
    manifest = artifact.manifest
    numbers = [f"{name} {value:.4g}" for name, value in artifact.scores.items()][:3]
    return "  ".join([artifact.name, f"{manifest['seconds']:.0f} s", *numbers])


def averaged(artifact: Artifact) -> list[str]:
    """A line for each checkpoint that `llmctl average` took: of a stage that keeps several, this tells which."""
    rows = artifact.manifest["recipe"].get("checkpoints", []) if artifact.readable else []
    return [f"{row['weight']:.4g} x {row['checkpoint']}" for row in rows]


def merged(artifact: Artifact) -> list[str]:
    """A line for the base and for each adapter that `llmctl merge` took, with its hash."""
    made = artifact.manifest["recipe"] if artifact.readable and artifact.manifest["kind"] == "merge" else None
    if made is None:
        return []
    rows = [(made["base"]["checkpoint"], made["base"]), *((f"{r['weight']:.4g} x {r['adapter']}", r) for r in made["adapters"])]
    return [f"{told}  sha256 {row['sha256'][:12]}" for told, row in rows]


def read_in(artifact: Artifact) -> list[str]:
    """A line for everything from outside the runs, as far as no other line names it."""
    if not artifact.readable or {"checkpoints", "adapters"} & artifact.manifest["recipe"].keys():
        return []
    return [
        one.place if one.name in (one.place, Path(one.place).name) else f"{one.name}: {one.place}" for one in inputs_of(artifact)
    ]


def evaluated(artifact: Artifact) -> list[str]:
    """A line of the newest evaluations that were noted of a model of the artifact."""
    noted = artifact.manifest.get("evaluations", [])[::-1] if artifact.readable else []
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
    manifest = artifact.manifest if artifact.readable else {}
    inputs = inputs_of(artifact) if manifest else ()
    return {
        "stage": artifact.stage,
        "folder": str(artifact.folder),
        "key": artifact.key,
        "output_hash": manifest.get("output_hash"),
        "metrics": manifest.get("metrics"),
        "averaged": averaged(artifact),
        "merged": merged(artifact),
        "evaluations": manifest.get("evaluations", []),
        "inputs": [{"name": one.name, "place": one.place, "sha256": one.sha256} for one in inputs],
        "parents": [as_values(store, parent) for parent in store.parents(artifact).values()] if manifest else [],
    }


def show_lineage(store: RunStore, checkpoint: str | None, form: Form) -> None:
    """Print the artifact with all that it is made of."""
    artifact = store.find_artifact(checkpoint)
    if form == "json":
        print_json(as_values(store, artifact))
    elif form == "tree":
        print(f"{artifact.run}: {artifact.folder}")
        print("\n".join(tree(store, artifact)))
    else:
        print("\n".join(drawn(store.ancestry(artifact), form)))


def tree(store: RunStore, artifact: Artifact) -> list[str]:
    """An ancestor that stands in the tree already is left out."""
    shown: set[Path] = set()

    def lines(node: Artifact, indent: str) -> list[str]:
        if node.folder in shown:
            return []
        shown.add(node.folder)
        run = f"{node.run}/" if node.run != artifact.run else ""
        # The deepest chain first: direct parents that are ancestors of another parent stand below that one.
        parents = list(store.parents(node).values())[::-1] if node.readable else []
        below = [line for parent in parents for line in lines(parent, indent + "  ")]
        notes = (
            [f"= {line}" for line in averaged(node) + merged(node)] + evaluated(node) + [f"< {line}" for line in read_in(node)]
        )
        return [f"{indent}{run}{label(node)}", *(f"{indent}    {line}" for line in notes), *below]

    return lines(artifact, "  ")
