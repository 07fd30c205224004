"""Evaluations in the manifest: noted without changing what an artifact is."""

import json
import multiprocessing
import os
import shutil
import time
from pathlib import Path

import pytest

from llmctl.runs.artifact import Artifact
from llmctl.runs.store import RunStore


def entry(task: str, value: float, **asked) -> dict:
    return {"asked": {"task": task, "shots": 0, **asked}, "found": {"value": value, "stderr": 0.01}}


@pytest.fixture
def made(tmp_path) -> Artifact:
    made = RunStore(tmp_path / "runs").artifact("r", "pretrain", "0" * 12)
    (made.folder / "model").mkdir(parents=True)
    (made.folder / "model" / "config.json").write_text("{}")
    made.commit("pretrain", {}, {}, ["model"], [], {"loss": 1.0}, time.time())
    return made


def noted(artifact: Artifact) -> list[tuple[str, float]]:
    return [(one["asked"]["task"], one["found"]["value"]) for one in Artifact(artifact.folder).manifest["evaluations"]]


def test_the_newest_of_what_is_asked_alike_stays_beside_all_others(made):
    assert made.note_evaluations([entry("a", 0.1), entry("b", 0.2, groups=("x",))])
    assert made.note_evaluations([entry("b", 0.3, groups=("x",)), entry("a", 0.4, shots=5)])
    assert noted(made) == [("a", 0.1), ("b", 0.3), ("a", 0.4)]
    assert made.manifest == Artifact(made.folder).manifest


def test_nothing_else_of_the_artifact_changes(made):
    before, changed = dict(Artifact(made.folder).manifest), RunStore(made.folder.parent.parent).runs()[0].changed
    time.sleep(0.01)
    assert made.note_evaluations([entry("a", 0.1)])
    after = dict(Artifact(made.folder).manifest)
    assert after.pop("evaluations")
    assert after == before
    assert made.problems() == []
    assert RunStore(made.folder.parent.parent).runs()[0].changed == changed


def note_many(folder: Path, process: int) -> None:
    for number in range(20):
        Artifact(folder).note_evaluations([entry(f"{process}/{number}", 0.5)])


def test_processes_that_note_at_once_lose_nothing(made):
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=note_many, args=(made.folder, number)) for number in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert {task for task, _ in noted(made)} == {f"{process}/{number}" for process in range(3) for number in range(20)}


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_run_that_may_not_be_written_is_left_as_it_is(made):
    made.folder.chmod(0o500)
    try:
        assert not made.note_evaluations([entry("a", 0.1)])
    finally:
        made.folder.chmod(0o700)
    assert "evaluations" not in Artifact(made.folder).manifest


def test_what_cannot_be_written_is_told_by_false(made):
    (made.folder / ".evaluations.lock").mkdir()
    assert not made.note_evaluations([entry("a", 0.1)])
    assert "evaluations" not in Artifact(made.folder).manifest


def test_lineage_shows_them_verify_passes_and_no_stage_is_made_again(llmctl, pretrained_runs, tmp_path):
    runs = shutil.copytree(pretrained_runs, tmp_path / "runs")
    artifacts = {artifact.stage: artifact for artifact in RunStore(runs).runs()[0].artifacts}
    pretrain = artifacts["pretrain"]
    artifacts["tokenizer"].note_evaluations([entry("t", 0.5)])
    pretrain.note_evaluations([entry(f"task{number}", number / 10) for number in range(5)])
    pretrain.note_evaluations([entry("bits", 1.25, measure="bits_per_byte", model="kept/step-00000003", shots=5)])
    shown = llmctl("lineage", "small/pretrain", "--runs", runs).stdout
    line = next(line for line in shown.splitlines() if "evaluated: bits" in line)
    assert "bits 5-shot of kept/step-00000003 1.250 ± 0.010, task4 0-shot 40.0 ± 1.0" in line
    assert line.endswith("and 2 more (--json has all)")
    told = json.loads(llmctl("lineage", "small/pretrain", "--json", "--runs", runs).stdout)
    assert [one["asked"]["task"] for one in told["evaluations"]] == [*(f"task{number}" for number in range(5)), "bits"]
    assert llmctl("verify", "small/pretrain", "--runs", runs).returncode == 0
    before = sorted(path.name for path in (runs / "small").iterdir())
    again = llmctl("pretrain", pretrained_runs.parent / "small.toml", "--runs", runs)
    assert again.returncode == 0, again.stderr
    assert f"pretrain: done before, {pretrain.folder}" in again.stdout + again.stderr
    assert sorted(path.name for path in (runs / "small").iterdir()) == before
