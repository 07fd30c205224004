"""Runs that are cut, old, or go while they are read: what is wrong is named, and the others go on."""

import json
import shutil

import pytest
from helpers import in_process

from llmctl.runs.artifact import Artifact, BrokenManifest
from llmctl.runs.store import Run, RunStore, unfinished


@pytest.fixture
def runs(pretrained_runs, tmp_path):
    return shutil.copytree(pretrained_runs, tmp_path / "runs")


def of(runs, stage: str) -> Artifact:
    return next(artifact for artifact in RunStore(runs).runs()[0].artifacts if artifact.stage == stage)


def test_half_a_manifest_is_named_and_the_others_are_found(runs):
    pretrain = of(runs, "pretrain")
    shutil.copytree(pretrain.folder, pretrain.folder.with_name("pretrain-000000000000"))
    file = pretrain.folder / "manifest.json"
    file.write_text(file.read_text()[:300])
    assert [found.key for found in RunStore(runs).checkpoints()] == ["0" * 12]
    with pytest.raises(BrokenManifest, match="cannot be read"):
        _ = Artifact(pretrain.folder).manifest
    for command in (["verify", pretrain.folder], ["verify", "--all"], ["runs"]):
        result = in_process(*command, "--runs", runs)
        assert "manifest.json: cannot be read" in result.stderr or "its manifest cannot be read" in result.stdout, command
    assert in_process("verify", "--all", "--runs", runs).returncode == 1
    told = json.loads(in_process("verify", "--all", "--json", "--runs", runs).stdout)
    assert not told["whole"]
    assert sorted(one["standing"] for one in told["artifacts"])[:3] == ["1 problem", "1 problem", "as written"]


def test_half_a_manifest_of_a_parent_is_named_in_the_tree(runs):
    file = of(runs, "tokens").folder / "manifest.json"
    file.write_text("{")
    shown = in_process("lineage", "small/pretrain", "--runs", runs)
    assert shown.returncode == 0
    assert f"{file.parent.name}: its manifest cannot be read" in shown.stdout
    refused = in_process("reproduce", "small/pretrain", "--runs", runs, "--out", runs / "out")
    assert refused.returncode == 2
    assert "its manifest cannot be read" in refused.stderr


@pytest.mark.parametrize("left_out", ["versions", "hardware", "metrics", "recipe", "seconds", "ended", "kind"])
def test_a_manifest_of_an_older_version_is_read(runs, left_out):
    for artifact in RunStore(runs).runs()[0].artifacts:
        manifest = json.loads((artifact.folder / "manifest.json").read_text())
        del manifest[left_out]
        (artifact.folder / "manifest.json").write_text(json.dumps(manifest))
    for command in (["lineage"], ["lineage", "--format", "dot"], ["verify"], ["diff", "small", "small"], ["runs"], ["clean"]):
        result = in_process(*command, "--runs", runs)
        assert result.returncode == 0, (command, result.stderr)


@pytest.mark.parametrize(("part", "entry", "key"), [("parents", "corpus", "folder"), ("files", "model/config.json", "bytes")])
def test_a_manifest_that_lacks_a_part_of_an_entry_is_named(runs, part, entry, key):
    file = of(runs, "pretrain").folder / "manifest.json"
    manifest = json.loads(file.read_text())
    del manifest[part][entry][key]
    file.write_text(json.dumps(manifest))
    for command in (["lineage", "small/pretrain"], ["verify", "--all"], ["runs"], ["clean"]):
        result = in_process(*command, "--runs", runs)
        assert result.returncode in (0, 1), command
    assert "is no manifest" in in_process("verify", "--all", "--runs", runs).stderr


@pytest.mark.parametrize("command", ["report", "lineage", "diff", "export", "merge", "eval"])
def test_a_home_folder_that_there_is_not_is_a_name_like_another(runs, command):
    more = {"diff": ["small"], "export": ["out"], "merge": ["small/pretrain", "--name", "x"]}.get(command, [])
    result = in_process(command, "~nobody-at-all/sft", *more, "--runs", runs)
    assert result.returncode == 2
    assert "~nobody-at-all/sft" in result.stderr


def test_a_run_that_goes_while_it_is_listed_is_an_empty_one(tmp_path):
    assert Run(tmp_path / "gone").artifacts == []
    assert Run(tmp_path / "gone").changed == 0.0
    assert RunStore(tmp_path / "nowhere").runs() == []


def test_a_stage_that_is_not_done_says_how_far_it_is(runs):
    folder = runs / "small" / "sft-000000000000"
    folder.mkdir()
    Artifact(folder).set_state(status="running", step=3, steps=8)
    assert "running at step 3 of 8" in str(unfinished(Artifact(folder)))
    for name in ("small/sft", folder):
        result = in_process("verify", name, "--runs", runs)
        assert result.returncode == 2
        assert "not finished yet (running at step 3 of 8)" in result.stderr
    (folder / "state.json").write_text("[]")
    assert in_process("runs", "--runs", runs).returncode == 0


def test_verify_follows_hashes_and_keys_through_the_lineage(runs):
    assert in_process("verify", "--runs", runs).returncode == 0
    pretrain, tokens = of(runs, "pretrain"), of(runs, "tokens")
    assert in_process("verify", "small/pretrain", "--expect", pretrain.output_hash, "--runs", runs).returncode == 0
    other = in_process("verify", "small/pretrain", "--expect", "0" * 64, "--runs", runs)
    assert other.returncode == 1
    assert f"its output hash is {pretrain.output_hash}" in other.stderr

    def tampered(artifact: Artifact, **changes) -> str:
        file = artifact.folder / "manifest.json"
        before = file.read_text()
        file.write_text(json.dumps(json.loads(before) | changes))
        result = in_process("verify", "small/pretrain", "--runs", runs)
        file.write_text(before)
        assert result.returncode == 1
        return result.stderr

    assert "was made from another tokens than the one that is there" in tampered(tokens, output_hash="0" * 64)
    assert "output_hash is not that of its files" in tampered(pretrain, output_hash="0" * 64)
    assert "not those that the folder's key was made from" in tampered(pretrain, recipe=pretrain.manifest["recipe"] | {"seed": 7})


def test_a_source_that_has_changed_is_a_warning(runs, text_folder, tmp_path):
    texts = shutil.copytree(text_folder, tmp_path / "texts")
    file = of(runs, "corpus").folder / "manifest.json"
    file.write_text(file.read_text().replace(str(text_folder), str(texts)))
    (texts / "00.txt").write_text("other text")
    result = in_process("verify", "small/corpus", "--runs", runs)
    assert "warning: code" in result.stderr
    assert "changed since it was read" in result.stderr
