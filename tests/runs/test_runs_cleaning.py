"""`llmctl clean`: what may go, and what never does."""

import json
import os
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from helpers import in_process

from llmctl.errors import StageFailed
from llmctl.runs.artifact import Artifact
from llmctl.runs.cleaning import removable, remove
from llmctl.runs.state import running, status
from llmctl.runs.store import RunStore


@pytest.fixture
def store(tmp_path) -> RunStore:
    return RunStore(tmp_path / "runs")


def made(store: RunStore, stage: str, key: str, parents: Sequence[Artifact] = (), run: str = "r", recipe=None) -> Artifact:
    artifact = store.artifact(run, stage, key * 12)
    (artifact.folder / "model").mkdir(parents=True)
    (artifact.folder / "model" / "weights").write_text(stage + key)
    (artifact.folder / "trainer").mkdir()
    (artifact.folder / "trainer" / "shard").write_text("moments")
    artifact.set_state(status="done")
    artifact.commit(stage, {p.stage: p for p in parents}, recipe or {}, ["model"], ["trainer"], {}, time.time())
    return artifact


def names(found) -> list[str]:
    return [str(one.path.relative_to(one.artifact.folder.parent)) for one in found]


def test_superseded_chains_go_children_first_and_the_current_one_stays(store):
    corpus = made(store, "corpus", "0")
    old, new = made(store, "pretrain", "1", [corpus]), made(store, "pretrain", "2", [corpus])
    old_child, new_child = made(store, "sft", "3", [old]), made(store, "sft", "4", [new])
    current = {"r": {"corpus": corpus, "pretrain": new, "sft": new_child}}
    found = removable(store, store.runs(), current)
    assert names(found) == [old_child.name, old.name]
    assert removable(store, store.runs(), {}) == []
    for one in found:
        remove(one)
    assert sorted(path.name for path in corpus.folder.parent.iterdir()) == sorted([corpus.name, new.name, new_child.name])


@pytest.mark.parametrize("how", ["parent", "path", "relative", "kept", "recipe", "to go on"])
def test_what_something_else_needs_stays(store, how):
    old, new = made(store, "pretrain", "1"), made(store, "pretrain", "2")
    if how == "parent":
        made(store, "soup", "3", [old], run="other", recipe={"checkpoints": []})
    elif how == "path":
        made(store, "sft", "3", run="other", recipe={"outside": {str(old.folder / "model"): "0"}})
    elif how == "relative":
        store.record_recipe("other", {"resolved": {"about": "~5/10 of people", "from": f"../seen/from/r/{old.name}/model"}})
    elif how == "to go on":
        begun = store.artifact("other", "sft", "3" * 12)
        begun.create()
        begun.set_state(status="stopped", parents=[f"r/{old.name}"])
    elif how == "kept":
        (old.folder / "kept" / "step-00000001").mkdir(parents=True)
    else:
        store.record_recipe("other", {"resolved": {"stages": {"sft": {"from": str(old.folder / "model")}}}})
    assert removable(store, store.runs(), {"r": {"pretrain": new}}) == []


def test_nothing_finished_goes_while_a_process_works_or_a_manifest_cannot_be_read(store):
    old, new = made(store, "pretrain", "1"), made(store, "pretrain", "2")
    working = store.artifact("r", "sft", "3" * 12)
    working.create()
    working.set_state(status="running")
    assert removable(store, store.runs(), {"r": {"pretrain": new}}) == []
    working.set_state(status="stopped")
    assert names(removable(store, store.runs(), {"r": {"pretrain": new}})) == [old.name]
    broken = made(store, "lora", "4")
    (broken.folder / "manifest.json").write_text("{")
    assert removable(store, store.runs(), {"r": {"pretrain": new}}) == []


def test_a_stage_that_another_machine_works_on_is_at_work(store):
    old, new = made(store, "pretrain", "1"), made(store, "pretrain", "2")
    there = store.artifact("r", "sft", "3" * 12)
    there.create()
    there.set_state(status="running", pid=4194305, host="another-machine", step=2, steps=8, parents=[f"r/{old.name}"])
    assert status(there) == "running on another-machine at step 2 of 8"
    assert removable(store, store.runs(), {"r": {"pretrain": new}}) == []
    there.set_state(pid=4194305)  # above the highest process id there is
    assert status(there) == "killed at step 2 of 8"
    with Artifact(there.folder).lock():
        assert running(there)
    time.sleep(0.01)
    made(store, "sft", "4")
    assert names(removable(store, store.runs(), {"r": {"pretrain": new}})) == [there.name, old.name]


def test_what_became_needed_since_it_was_listed_stays(store):
    old, new = made(store, "pretrain", "1"), made(store, "pretrain", "2")
    (one,) = removable(store, store.runs(), {"r": {"pretrain": new}})
    child = made(store, "sft", "3", [old])
    with pytest.raises(StageFailed, match="something that is still there is made of it"):
        remove(one)
    shutil.rmtree(child.folder)
    working = store.artifact("r", "lora", "4" * 12)
    working.create()
    working.set_state(status="running")
    with pytest.raises(StageFailed, match="has begun to work"):
        remove(one)
    assert old.problems() == []


def test_the_moments_that_an_unfinished_stage_begins_with_stay(store):
    parent = made(store, "pretrain", "1")
    made(store, "sft", "2", [parent])
    (trainer,) = removable(store, store.runs(), {}, trainers=True)
    assert trainer.path == parent.folder / "trainer"
    begun = store.artifact("r", "midtrain", "3" * 12)
    begun.create()
    begun.set_state(status="stopped", parents=[f"r/{parent.name}"])
    assert removable(store, store.runs(), {}, trainers=True) == []
    with pytest.raises(StageFailed, match="a stage that is not finished begins with it"):
        remove(trainer)


def test_what_was_given_up_goes_once_the_stage_is_finished(store):
    dead = store.artifact("r", "sft", "1" * 12)
    dead.create()
    dead.set_state(status="failed", step=2, steps=8)
    assert removable(store, store.runs(), {}) == []
    time.sleep(0.01)
    finished = made(store, "sft", "2")
    (one,) = removable(store, store.runs(), {})
    assert one.why == f"failed at step 2 of 8; {finished.name} is finished since"
    assert removable(store, store.runs(), {"r": {"sft": dead}}) == []  # the recipe goes on with it


def test_a_locked_artifact_is_left(store):
    old, new = made(store, "pretrain", "1"), made(store, "pretrain", "2")
    (one,) = removable(store, store.runs(), {"r": {"pretrain": new}})
    with Artifact(old.folder).lock(), pytest.raises(StageFailed, match="another process"):
        remove(one)
    assert old.done


def test_trainers_and_leftovers_are_removed_and_not_missed(store):
    parent = made(store, "pretrain", "1")
    made(store, "sft", "2", [parent])
    (parent.folder / "model" / ".weights.tmp-4194305").write_text("half")  # above the highest process id there is
    (parent.folder / "model" / f".config.tmp-{os.getpid()}").write_text("being written")
    (parent.folder / "checkpoints").mkdir()
    assert names(removable(store, store.runs(), {})) == [
        f"{parent.name}/checkpoints",
        f"{parent.name}/model/.weights.tmp-4194305",
    ]
    for one in removable(store, store.runs(), {}, trainers=True):
        remove(one)
        assert not one.path.exists()
    assert sorted(path.name for path in parent.folder.iterdir() if path.is_dir()) == ["model"]
    assert parent.problems() == []
    assert parent.removed == ["trainer"]


def test_the_command_removes_nothing_unless_told_to(pretrained_runs, tmp_path):
    runs = shutil.copytree(pretrained_runs, tmp_path / "runs")
    nothing = in_process("clean", "--runs", runs)
    assert nothing.stdout.strip() == f"nothing of {runs} may go"
    pretrain = next(runs.glob("small/pretrain-*"))
    twin = shutil.copytree(pretrain, pretrain.with_name("pretrain-000000000000"))
    listed = in_process("clean", "small", "--runs", runs)
    assert f"the recipe makes {pretrain.name} now" in listed.stdout
    assert "nothing was removed; --yes removes" in listed.stdout
    assert twin.is_dir()
    told = json.loads(in_process("clean", "--json", "--yes", "--runs", runs).stdout)
    assert [Path(one["path"]).name for one in told["entries"]] == [twin.name]
    assert told["freed"] == told["bytes"] > 0
    assert [one["removed"] for one in told["entries"]] == [True]
    assert not twin.exists()
    assert in_process("verify", "--runs", runs).returncode == 0
    shutil.copytree(pretrain, twin)
    with Artifact(twin).lock():
        told = json.loads(in_process("clean", "--json", "--yes", "--runs", runs).stdout)
        assert (told["removed"], told["freed"], told["entries"][0]["removed"]) == (False, 0, False)
        refused = in_process("clean", "--yes", "--runs", runs)
    assert refused.returncode == 1
    assert f"{twin}: not removed: " in refused.stderr
    assert refused.stdout.strip() == "0 bytes were removed"
    unknown = in_process("clean", "nowhere", "--runs", runs)
    assert unknown.returncode == 2
    assert "no such run" in unknown.stderr
