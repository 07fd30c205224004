"""A lineage as a graph, in the languages of Graphviz and Mermaid."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

from llmctl.runs.artifact import Artifact
from llmctl.runs.store import RunStore
from llmctl.stages.inputs import inputs_of

TELLING = ("loss on held-out answers/after", "bits_per_byte_after", "bits_per_byte", "largest_logit_difference")
"""Metrics that tell most of a stage; the first that it has."""


@dataclass(frozen=True, slots=True)
class Graph:
    nodes: dict[str, list[str]] = field(default_factory=dict)
    """Lines of text by id; of ids that begin with `input`, things from outside the runs."""
    edges: list[tuple[str, str]] = field(default_factory=list)
    """(what was used, what was made of it)."""


def graph_of(artifacts: Sequence[Artifact]) -> Graph:
    """Every artifact once, parents and things from outside pointing at what was made of them."""
    graph, inputs = Graph(), dict[str, str]()
    ids = {artifact.folder: f"n{number}" for number, artifact in enumerate(artifacts)}
    for artifact in artifacts:
        graph.nodes[ids[artifact.folder]] = lines_of(artifact)
        if not artifact.readable:
            continue
        parents = RunStore.of(artifact).parents(artifact).values()
        graph.edges.extend((ids[parent.folder], ids[artifact.folder]) for parent in parents)
        for one in inputs_of(artifact):
            node = inputs.setdefault(one.place, f"input{len(inputs)}")
            graph.nodes[node] = [one.place] if one.name == one.place else [one.name, one.place]
            graph.edges.append((node, ids[artifact.folder]))
    return graph


def lines_of(artifact: Artifact) -> list[str]:
    """Stage, key, seconds, and the number that tells most."""
    if not artifact.readable:
        return [f"{artifact.run}/{artifact.stage}", artifact.key, "cannot be read" if artifact.done else "missing"]
    told = [f"{artifact.run}/{artifact.stage}", artifact.key, f"{artifact.manifest['seconds']:,.0f} s"]
    metrics = artifact.manifest["metrics"]
    number = next((name for name in TELLING if isinstance(metrics.get(name), float)), None)
    return told if number is None else [*told, f"{number} {metrics[number]:.4g}"]


def drawn(artifacts: Sequence[Artifact], form: Literal["dot", "mermaid"]) -> Iterator[str]:
    graph = graph_of(artifacts)
    return dot(graph) if form == "dot" else mermaid(graph)


def dot(graph: Graph) -> Iterator[str]:
    yield "digraph lineage {"
    yield "  rankdir=LR;"
    yield '  node [shape=box, fontname="sans-serif"];'
    for node, lines in graph.nodes.items():
        shape = ", shape=ellipse" if node.startswith("input") else ""
        yield f"  {node} [label={json.dumps(chr(10).join(lines), ensure_ascii=False)}{shape}];"
    yield from (f"  {used} -> {made};" for used, made in graph.edges)
    yield "}"


def mermaid(graph: Graph) -> Iterator[str]:
    yield "flowchart LR"
    for node, lines in graph.nodes.items():
        text = "<br/>".join(map(_escaped, lines))
        yield f'  {node}(["{text}"])' if node.startswith("input") else f'  {node}["{text}"]'
    yield from (f"  {used} --> {made}" for used, made in graph.edges)


def _escaped(text: str) -> str:
    """Mermaid has entities by name or number between # and ;, and reads HTML and Markdown in a text."""
    return "".join(f"#{ord(letter)};" if letter in '#"<>&`\\' else letter for letter in text)
