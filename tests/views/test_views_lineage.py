"""A lineage as a tree and as graphs."""

import json
import re
import time

import pytest
from helpers import in_process

from llmctl.runs.store import RunStore
from llmctl.views.lineage_graph import Graph, dot, mermaid


def test_a_graph_has_every_artifact_once_and_its_inputs(pretrained_runs, text_folder):
    told = in_process("lineage", "small/pretrain", "--format", "dot", "--runs", pretrained_runs).stdout
    nodes = dict(re.findall(r"^  (\w+) \[label=(\".*?\")[^\"]*\];$", told, re.MULTILINE))
    labels = {node: json.loads(text) for node, text in nodes.items()}
    stages = sorted(text.split("\n")[0] for node, text in labels.items() if node.startswith("n"))
    assert stages == ["small/corpus", "small/pretrain", "small/tokenizer", "small/tokens"]
    assert [text for node, text in labels.items() if node.startswith("input")] == [f"code\n{text_folder}"]
    edges = re.findall(r"^  (\w+) -> (\w+);$", told, re.MULTILINE)
    assert len(edges) == len(set(edges)) == 7
    assert {end for edge in edges for end in edge} == set(nodes)
    drawn = in_process("lineage", "small/pretrain", "--format", "mermaid", "--runs", pretrained_runs).stdout
    assert drawn.startswith("flowchart LR\n")
    assert re.findall(r"^  (\w+) --> (\w+)$", drawn, re.MULTILINE) == edges


def test_the_tree_names_what_was_read(pretrained_runs, text_folder):
    told = in_process("lineage", "small/pretrain", "--runs", pretrained_runs).stdout
    assert re.search(r"^  pretrain-\w+  \d+ s  bits_per_byte \d", told, re.MULTILINE)  # and no number of speed or memory
    assert f"< code: {text_folder}" in told
    assert told.count("corpus-") == 1
    assert json.loads(in_process("lineage", "--json", "--runs", pretrained_runs).stdout)["stage"] == "pretrain"
    assert "corpus-" in in_process("lineage", "small/corpus", "--runs", pretrained_runs).stdout


def test_a_missing_parent_is_told(tmp_path):
    store = RunStore(tmp_path)
    parent, child = (store.artifact("r", stage, "0" * 12) for stage in ("pretrain", "sft"))
    for artifact, parents in ((parent, {}), (child, {"pretrain": parent})):
        (artifact.folder / "model").mkdir(parents=True)
        artifact.commit(artifact.stage, parents, {}, ["model"], [], {}, time.time())
    (parent.folder / "manifest.json").unlink()
    told = in_process("lineage", "r/sft", "--runs", tmp_path)
    assert told.returncode == 0
    assert "pretrain-000000000000: missing" in told.stdout


@pytest.mark.parametrize("text", ['a "b" <c> #1; & `d` \\e', "[x](y) {z} | end"])
def test_texts_cannot_break_out_of_a_label(text):
    graph = Graph({"n0": ["first", text]}, [("n0", "n0")])
    line = list(dot(graph))[3]
    assert json.loads(line.strip().removeprefix("n0 [label=").removesuffix("];")) == f"first\n{text}"
    line = list(mermaid(graph))[1]
    inside = line.strip().removeprefix('n0["').removesuffix('"]')
    assert '"' not in inside
    assert re.sub(r"#(\d+);", lambda found: chr(int(found[1])), inside) == f"first<br/>{text}"
