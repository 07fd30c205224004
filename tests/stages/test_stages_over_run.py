"""The checkpoints of a run in the order of training, their curves, and what tells tasks apart."""

import json
import time
from pathlib import Path

import pytest

from llmctl import events
from llmctl.errors import UserError
from llmctl.evals.curve_plots import TaskCurve
from llmctl.evals.result import TaskResult
from llmctl.runs.artifact import Artifact
from llmctl.runs.store import RunStore
from llmctl.stages.over_run import checkpoints_of, curve_points, curves_of, measure_over_run
from llmctl.stages.scoring import Line, Request, Scores
from llmctl.suites.task import Question, Task


def made(store: RunStore, name: str, parents: dict[str, Artifact], begun: str | None, steps: int = 0, kept: tuple[int, ...] = ()):
    """A stage of `steps` steps of 100 tokens."""
    artifact = store.artifact("r", name, "0" * 12)
    for step in kept:
        (artifact.folder / "kept" / f"step-{step:08d}").mkdir(parents=True)
    (artifact.folder / "model").mkdir(parents=True, exist_ok=True)
    lines = [json.dumps({"step": step, "tokens": 100 * step}) for step in range(1, steps + 1)]
    artifact.metrics_path.write_text("\n".join([*lines, '{"validation": 1.0}', '{"step": 99, "tok']) + "\n")
    artifact.commit(name, parents, {"stage": {"from": begun}}, ["model"], ["kept"], {}, time.time())
    return artifact


@pytest.fixture
def store(tmp_path) -> RunStore:
    store = RunStore(tmp_path / "runs")
    corpus = store.artifact("r", "corpus", "0" * 12)
    corpus.create()
    corpus.commit("corpus", {}, {}, [], [], {}, time.time())
    pretrain = made(store, "pretrain", {"corpus": corpus}, None, steps=12, kept=(3, 6, 9, 12))
    (pretrain.folder / "kept" / "best").mkdir()
    sft = made(store, "sft", {"corpus": corpus, "pretrain": pretrain}, "pretrain", steps=5, kept=(2,))
    lora = made(store, "lora", {"corpus": corpus, "sft": sft}, "sft", steps=4)
    made(store, "merged", {"sft": sft, "lora": lora}, None)
    return store


def artifact(store: RunStore, stage: str) -> Artifact:
    return store.artifact("r", stage, "0" * 12)


def test_points_follow_the_lineage_and_tokens_add_up(store):
    points = curve_points(store, artifact(store, "merged"))
    assert [(point.name, point.tokens) for point in points] == [
        ("pretrain/step-00000003", 300),
        ("pretrain/step-00000006", 600),
        ("pretrain/step-00000009", 900),
        ("pretrain", 1200),
        ("sft/step-00000002", 1400),
        ("sft", 1700),
        ("lora", 2100),
        ("merged", 2100),
    ]
    assert all(Path(point.model).is_dir() for point in points)
    assert curve_points(store, artifact(store, "sft")) == points[:6]
    checkpoints = checkpoints_of(points)
    assert [one.parent for one in checkpoints] == [None, *(one.name for one in checkpoints[:-1])]


def test_a_run_that_began_with_a_model_from_outside_begins_there(store, tmp_path):
    begun = made(store, "begun", {"corpus": artifact(store, "corpus")}, "owner/model", steps=2)
    assert [(point.model, point.tokens) for point in curve_points(store, begun)] == [
        ("owner/model", 0),
        (begun.folder / "model", 200),
    ]


def test_a_stage_that_is_gone_is_named(store):
    (artifact(store, "sft").folder / "manifest.json").unlink()
    with pytest.raises(UserError, match=r"sft-0+: not there or not finished"):
        curve_points(store, artifact(store, "lora"))


def test_the_table_the_pictures_and_the_values_are_of_the_same_scores(store, tmp_path):
    asked = []

    def score(checkpoints):
        asked.extend(checkpoints)
        rising = tuple(0.3 + 0.05 * place for place in range(len(checkpoints)))
        return [
            TaskCurve("rising", rising, (0.01,) * len(rising), 0.25),
            TaskCurve("bits", rising, (float("nan"),) * len(rising), percent=False, higher_is_better=False),
        ]

    heard: list[events.Table] = []
    with events.listening(lambda event: heard.append(event) if isinstance(event, events.Table) else None):
        values = measure_over_run(store, artifact(store, "lora"), score, tmp_path / "plots")
    assert [one.name for one in asked] == [row["name"] for row in values["checkpoints"]] == [row[0] for row in heard[0].rows]
    assert heard[0].rows[0][1:3] == ("300", "30.0 ± 1.0")
    rising, bits = values["tasks"]
    assert rising["values"][-1] == pytest.approx(0.6)
    assert rising["signal_to_noise_over"] == {"stage": "pretrain", "checkpoints": 4, "last": 2}
    assert rising["signal"] == pytest.approx(0.1 / 0.375)
    assert bits["stderrs"] == [None] * 7
    assert (tmp_path / "plots" / "over_run.png").read_bytes().startswith(b"\x89PNG")
    assert "<svg" in (tmp_path / "plots" / "over_run.svg").read_text()
    json.dumps(values, allow_nan=False)


def test_too_few_checkpoints_have_no_noise(store):
    (curve,) = [TaskCurve("t", (0.3,), (0.1,))]
    only = made(store, "only", {}, None, steps=3)
    values = measure_over_run(store, only, lambda checkpoints: [curve], None)
    assert values["tasks"][0]["signal_to_noise"] is None


def test_scores_become_a_curve_for_each_task_and_number_of_examples(store):
    points = curve_points(store, artifact(store, "sft"))
    checkpoints = checkpoints_of(points)
    questions = (Question("a", ("b", "c"), 0, "q0"), Question("d", ("e", "f"), 1, "q1"))
    tasks = [Task("t", 1, "", questions), Task("t", 1, "", questions), Task("u", 1, "", questions, measure="bits_per_byte")]
    lines = []
    for number, task in enumerate(tasks):
        results = {
            one.name: TaskResult(
                task.name, task.measure, "byte", number, (place / 10, place / 5), (0.5, 0.5), ("", ""), ("q0", "q1")
            )
            for place, one in enumerate(checkpoints)
        }
        lines.append(Line(task.name, 1, "rc", "here", task.measure, "accuracy/byte", task.chance, number, 2, results))
    curves = curves_of(Scores(Request(("t", "u")), checkpoints, lines, []))
    assert [curve.name for curve in curves] == ["t, 0 shots", "t, 1 shots", "u"]
    assert curves[0].values == pytest.approx([0.15 * place for place in range(6)])
    assert (curves[0].chance, curves[0].unit, curves[2].unit, curves[2].higher_is_better) == (0.5, "%", "bits per byte", False)
