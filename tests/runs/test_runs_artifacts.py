"""Artifacts: keys, manifests, verification, what is found by name."""

import contextlib
import os
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmctl.errors import UserError
from llmctl.runs.artifact import LOCK, Artifact
from llmctl.runs.files import staged_folder, write_json
from llmctl.runs.keys import content_key, fingerprint_path
from llmctl.runs.locks import lock
from llmctl.runs.state import status
from llmctl.runs.store import RunStore

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@given(st.dictionaries(st.text(), values, max_size=4), st.dictionaries(st.text(), st.text(), max_size=3))
def test_a_key_depends_on_what_is_in_it_and_not_on_the_order(identity, parents):
    key = content_key("pretrain", 1, identity, parents)
    assert key == content_key("pretrain", 1, dict(reversed(identity.items())), dict(reversed(parents.items())))
    assert key != content_key("pretrain", 2, identity, parents)
    assert key != content_key("midtrain", 1, identity, parents)
    assert key != content_key("pretrain", 1, identity | {"one more": 1}, parents)


def artifact(store: RunStore, run: str = "r", stage: str = "pretrain", key: str = "0" * 12, parents=None, text: str = "{}"):
    made = store.artifact(run, stage, key)
    (made.folder / "model").mkdir(parents=True)
    (made.folder / "model" / "config.json").write_text(text)
    made.commit(stage, parents or {}, {}, ["model"], [], {"loss": 1.0}, time.time())
    return made


def test_an_artifact_is_done_once_its_manifest_is_there_and_verifies(tmp_path):
    made = artifact(RunStore(tmp_path))
    assert made.done
    assert made.problems() == []
    assert made.manifest["versions"]["torch"]
    assert made.manifest["hardware"]["cores"] >= 1
    (made.folder / "model" / "config.json").write_text("[]")
    (problem,) = made.problems()
    assert "sha256 differs" in problem.what
    (made.folder / "model" / "config.json").unlink()
    assert made.problems()[0].what == "missing"


def test_the_output_hash_is_of_the_outputs_alone(tmp_path):
    store = RunStore(tmp_path)
    assert artifact(store, key="1" * 12).output_hash == artifact(store, key="2" * 12).output_hash
    assert artifact(store, key="3" * 12, text="{ }").output_hash != store.artifact("r", "pretrain", "1" * 12).output_hash


def test_checkpoints_are_found_by_folder_run_and_stage(tmp_path):
    store = RunStore(tmp_path)
    first = artifact(store)
    second = artifact(store, stage="sft", parents={"pretrain": first})
    assert store.find_checkpoint("r/pretrain") == first.folder / "model"
    assert store.find_checkpoint("sft") == second.folder / "model"
    assert store.find_checkpoint(str(second.folder)) == second.folder / "model"
    assert store.find_checkpoint(str(second.folder / "model")) == second.folder / "model"
    assert store.newest_checkpoint().folder == second.folder
    assert store.parents(second)["pretrain"].folder == first.folder
    with pytest.raises(UserError, match=r"there are: r/sft, r/pretrain"):
        store.find_checkpoint("r/lora")


def test_the_root_comes_from_the_option_then_the_environment_then_here(tmp_path, llmctl):
    elsewhere = tmp_path / "elsewhere"
    artifact(RunStore(elsewhere), run="there")
    artifact(RunStore(tmp_path / "runs"), run="here")
    assert "here" in llmctl("runs", cwd=tmp_path).stdout
    assert "there" in llmctl("runs", cwd=tmp_path, env=os.environ | {"LLMCTL_RUNS": str(elsewhere)}).stdout
    assert "here" in llmctl("runs", "--runs", tmp_path / "runs", env=os.environ | {"LLMCTL_RUNS": str(elsewhere)}).stdout


def test_a_folder_is_written_whole_or_not_at_all(tmp_path):
    with contextlib.suppress(ZeroDivisionError), staged_folder(tmp_path / "out") as aside:
        write_json(aside / "a.json", {"broken": 1 / 0})
    assert list(tmp_path.iterdir()) == []
    with staged_folder(tmp_path / "out") as aside:
        write_json(aside / "a.json", {})
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_fingerprint_changes_with_any_byte(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "a").write_bytes(b"123")
    (folder / "b").write_bytes(b"456")
    before = fingerprint_path(folder)
    assert before == fingerprint_path(folder)
    (folder / "b").write_bytes(b"457")
    os.utime(folder / "b", ns=(1, 1))
    assert fingerprint_path(folder) != before


def test_a_file_that_was_hashed_before_is_hashed_again_when_it_has_changed(tmp_path):
    file = tmp_path / "a"
    file.write_bytes(b"123")
    before = file.stat()
    time.sleep(2.1)  # from then on its hash is kept
    first = fingerprint_path(file)
    assert fingerprint_path(file) == first
    file.write_bytes(b"124")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert fingerprint_path(file) != first


def test_what_a_living_process_writes_is_left_when_the_artifact_is_taken(tmp_path):
    made = artifact(RunStore(tmp_path))
    living, killed = made.folder / f".manifest.json.tmp-{os.getppid()}", made.folder / ".manifest.json.tmp-4194305"
    for file in (living, killed):
        file.write_text("half")
    with made.lock():
        assert living.exists()
        assert not killed.exists()


def test_a_state_alone_does_not_make_an_artifact_a_finished_one(tmp_path):
    made = artifact(RunStore(tmp_path))
    made.set_state(status="done")
    assert status(made) == "done"
    (made.folder / "manifest.json").unlink()
    assert status(made) == "not whole: its manifest is not there"


def test_of_all_that_an_artifact_is_made_of_none_comes_after_its_parents(tmp_path):
    store = RunStore(tmp_path)
    first = artifact(store)
    second = artifact(store, stage="midtrain", parents={"pretrain": first})
    soup = artifact(store, stage="soup", parents={"pretrain": first, "midtrain": second})
    last = artifact(store, stage="sft", parents={"pretrain": first, "midtrain": second, "soup": soup})
    assert [one.stage for one in store.ancestry(last)] == ["sft", "soup", "midtrain", "pretrain"]


def test_whoever_only_asks_whether_a_stage_is_held_stops_nobody(tmp_path):
    artifact = Artifact(tmp_path / "run" / "pretrain-1234")
    artifact.create()
    asking = (artifact.folder / LOCK).open("a")
    lock(asking, wait=False)
    threading.Timer(0.2, asking.close).start()
    with artifact.lock():
        assert artifact.held
    assert not artifact.held
