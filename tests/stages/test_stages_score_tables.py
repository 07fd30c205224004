"""Scores as tables and plain values: numbers beside chance, differences, what several tasks make together, what was left out."""

import json
import math

import pytest

from llmctl import events
from llmctl.evals.result import TaskResult
from llmctl.stages.score_tables import plain, show
from llmctl.stages.scoring import Checkpoint, Line, Request, Scores
from llmctl.suites.task import Aggregate, Measure


def result(task: str, values: tuple[float, ...], measure: Measure = "accuracy", fewer=(), cut=()) -> TaskResult:
    count, also = len(values), {f"{measure}/none" if measure == "accuracy" else measure: values}
    ids = tuple(f"q{n}" for n in range(count))
    return TaskResult(task, measure, "none", 5, values, (1 / count,) * count, ("",) * count, ids, also, fewer, cut)


def line(name: str, before: TaskResult, after: TaskResult, chance: float = 0.25) -> Line:
    results = {"parent": before, "child": after}
    return Line(name, "1", "rc", "here", before.measure, "accuracy/none", chance, 5, 10, results)


@pytest.fixture
def scores() -> Scores:
    rc = line("arc:rc", result("arc:rc", (1, 0, 0, 0), fewer=("q1",)), result("arc:rc", (1, 1, 0, 0), cut=("q0",), fewer=("q0",)))
    mc = line("arc:mc", result("arc:mc", (0, 0, 0, 0)), result("arc:mc", (1, 1, 1, 0)))
    bits = line(
        "code:bpb", result("code:bpb", (1.5, 2.5), "bits_per_byte"), result("code:bpb", (1.0, 2.2), "bits_per_byte"), math.nan
    )
    checkpoints = [Checkpoint("parent", "p"), Checkpoint("child", "c", "parent")]
    aggregates = [Aggregate("arc", ("arc:rc", "arc:mc"), "best"), Aggregate("all", ("arc",))]
    return Scores(Request(("arc",)), checkpoints, [rc, mc, bits], aggregates)


@pytest.fixture
def told(monkeypatch):
    found: dict[str, list] = {"tables": [], "lines": []}
    monkeypatch.setattr(events, "emit", lambda event: found["tables"].append(event))
    monkeypatch.setattr(events, "say", lambda text: found["lines"].append(text))
    return found


def test_tables_say_how_each_number_came_about(scores, told):
    show(scores)
    first, second = told["tables"]
    rows = {row[0]: dict(zip(first.columns, row, strict=True)) for row in first.rows}
    assert rows["arc:rc"]["questions"] == "4 of 10"
    assert rows["arc:rc"]["scored by"] == "rc, accuracy/none"
    assert rows["arc:rc"]["chance"] == "25.0"
    assert rows["arc:rc"]["parent"] == "25.0 ± 25.0*"
    assert rows["arc:rc"]["child"] == "50.0 ± 28.9†"
    assert rows["code:bpb"]["chance"] == "-"
    assert rows["code:bpb"]["child"].startswith("1.600 ± 0.600")
    assert rows["arc"]["child"].startswith("75.0 ± 25.0")
    differences = {row[0]: row[-1] for row in second.rows}
    assert differences["arc:rc"].startswith("+25.0 [-54.6, +104.6] p 1")
    assert differences["arc"].startswith("+50.0 [")  # the best before was another form than the best after
    assert differences["code:bpb"].startswith("-0.400 [")
    assert any("* parent: examples were left out" in text and "q1" in text for text in told["lines"])
    assert any("† child: all examples and the beginning of the question" in text and "q0" in text for text in told["lines"])


def test_plain_values_are_json_without_nan(scores):
    found = plain(scores)
    json.dumps(found, allow_nan=False)
    rows = {(row["checkpoint"], row["task"]): row for row in found["results"]}
    assert rows["child", "arc:mc"]["difference"] == 0.75
    assert rows["child", "arc:mc"]["better"] == 3
    assert rows["child", "code:bpb"]["better"] == 2  # fewer bits are better
    assert rows["child", "code:bpb"]["chance"] is None
    assert "compared_with" not in rows["parent", "arc:rc"]
    made = {(row["checkpoint"], row["aggregate"]): row for row in found["aggregates"]}
    assert made["child", "arc"]["value"] == 0.75
    assert made["child", "all"]["difference"] == pytest.approx(0.5)


def test_a_checkpoint_alone_has_no_differences(scores, told):
    alone = Scores(scores.request, [Checkpoint("child", "c", "parent")], scores.lines, scores.aggregates)
    show(alone)
    assert len(told["tables"]) == 1
    assert all("compared_with" not in row for row in plain(alone)["results"])
