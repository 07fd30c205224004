"""`llmctl reproduce`: what it writes makes the very same bits, and what stands in the way is named."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import in_process

from llmctl.recipe.load import load_recipe
from llmctl.runs.store import RunStore
from llmctl.stages.planned import planned


@pytest.fixture
def runs(pretrained_runs, tmp_path):
    return shutil.copytree(pretrained_runs, tmp_path / "runs")


def keys(runs: Path) -> dict[str, str]:
    return {artifact.stage: artifact.key for artifact in RunStore(runs).runs()[0].artifacts}


def test_the_recipe_gives_the_keys_and_the_commands_the_bits(runs, tmp_path):
    out = tmp_path / "again"
    told = in_process("reproduce", "small/pretrain", "--runs", runs, "--out", out)
    assert told.returncode == 0, told.stdout + told.stderr
    assert "code (" in told.stdout
    recipe = load_recipe(out / "recipe.toml")
    assert {name: artifact.key for name, artifact in planned(recipe, RunStore(runs)).items()}.items() >= keys(runs).items()
    assert "torch==" in (out / "requirements.txt").read_text()
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    made = subprocess.run(
        ["bash", out / "commands.sh"], capture_output=True, text=True, env=os.environ | {"PATH": path}, timeout=300
    )
    assert made.returncode == 0, made.stdout + made.stderr
    assert "the output hash is the expected one" in made.stdout
    assert keys(out / "runs") == keys(runs)


def test_a_source_that_has_changed_is_named_and_the_files_are_written_all_the_same(runs, text_folder, tmp_path):
    texts = shutil.copytree(text_folder, tmp_path / "texts")
    for file in [*runs.glob("small/*/manifest.json"), runs / "small" / "recipe.json", *runs.glob("small/.recipes/*")]:
        file.write_text(file.read_text().replace(str(text_folder), str(texts)))
    (texts / "00.txt").write_text("other text")
    out = tmp_path / "again"
    told = in_process("reproduce", "--runs", runs, "--out", out)
    assert told.returncode == 1
    assert f"code ({texts}): changed since it was read" in told.stdout
    assert "not all is as it was" in told.stdout
    assert {path.name for path in out.iterdir()} == {"recipe.toml", "commands.sh", "requirements.txt"}
    values = json.loads(in_process("reproduce", "--runs", runs, "--out", out, "--json").stdout)
    assert [one["standing"] for one in values["inputs"]] == ["changed"]
    assert "corpus" in values["other_keys"]


def test_a_recipe_that_was_changed_since_is_found_among_those_on_record(runs, tmp_path):
    store = RunStore(runs)
    first = store.recorded_recipe("small")
    changed = json.loads(json.dumps(first))
    changed["resolved"]["stages"]["pretrain"]["lr"] = 0.001
    store.record_recipe("small", changed)
    assert store.recorded_recipes("small") == [changed, first]
    assert in_process("reproduce", "small/pretrain", "--runs", runs, "--out", tmp_path / "again").returncode == 0
    assert load_recipe(tmp_path / "again" / "recipe.toml").stages["pretrain"].lr != 0.001
    shutil.rmtree(runs / "small" / ".recipes")  # a run of an older version: its manifests tell
    assert in_process("reproduce", "small/pretrain", "--runs", runs, "--out", tmp_path / "older").returncode == 0
    assert (tmp_path / "older" / "recipe.toml").read_text() == (tmp_path / "again" / "recipe.toml").read_text()


def test_averages_and_merges_are_made_again_by_their_commands(runs, tmp_path):
    made = in_process("average", "small/pretrain", "small/pretrain", "--weights", "1,3", "--name", "soup", "--runs", runs)
    assert made.returncode == 0, made.stderr
    assert in_process("reproduce", "small/soup", "--runs", runs, "--out", tmp_path / "again").returncode == 0
    script = (tmp_path / "again" / "commands.sh").read_text()
    name = next((runs / "small").glob("pretrain-*")).name
    assert script.count('llmctl pretrain "$here/recipe.toml" --processes 1') == 1
    place = f'"$LLMCTL_RUNS"/small/{name}/model'
    assert f"llmctl average {place} {place} --weights 0.25,0.75 --name soup --run small" in script


def test_versions_and_machines_that_differ_are_told(runs, tmp_path):
    file = next((runs / "small").glob("pretrain-*/manifest.json"))
    manifest = json.loads(file.read_text())
    manifest["versions"]["torch"] = "1.0"
    manifest["hardware"]["gpus"] = ["A GPU"]
    file.write_text(json.dumps(manifest))
    told = in_process("reproduce", "small/pretrain", "--runs", runs, "--out", tmp_path / "again")
    assert "; was 1.0" in told.stdout
    assert "was A GPU" in told.stdout
    assert "--gpus 1" in (tmp_path / "again" / "commands.sh").read_text()


def test_a_folder_with_something_else_in_it_is_left_alone(runs, tmp_path):
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "thesis.txt").write_text("text")
    refused = in_process("reproduce", "--runs", runs, "--out", tmp_path / "own")
    assert refused.returncode == 2
    assert "thesis.txt" in refused.stderr


def test_what_cannot_be_written_to_is_named(runs, tmp_path):
    (tmp_path / "file").write_text("text")
    for place in ("file", "file/sub"):
        refused = in_process("reproduce", "--runs", runs, "--out", tmp_path / place)
        assert refused.returncode == 2
        assert f"{tmp_path / 'file'} is a file" in refused.stderr


def test_what_only_run_makes_is_made_alone(runs, tmp_path):
    assert in_process("reproduce", "small/tokens", "--runs", runs, "--out", tmp_path / "again").returncode == 0
    script = (tmp_path / "again" / "commands.sh").read_text()
    assert 'llmctl run "$here/recipe.toml" --stage tokens\n' in script
    made = in_process("run", tmp_path / "again" / "recipe.toml", "--stage", "tokens", "--runs", tmp_path / "alone")
    assert made.returncode == 0, made.stderr
    assert keys(tmp_path / "alone") == {
        name: key for name, key in keys(runs).items() if name in ("corpus", "tokenizer", "tokens")
    }
    unknown = in_process("run", tmp_path / "again" / "recipe.toml", "--stage", "soup", "--runs", tmp_path / "alone")
    assert unknown.returncode == 2
    assert "no stage 'soup'" in unknown.stderr


def test_text_of_a_manifest_is_no_command(runs, tmp_path):
    file = next((runs / "small").glob("pretrain-*/manifest.json"))
    manifest = json.loads(file.read_text())
    evil = f"a\ntouch {tmp_path}/evil\n"
    manifest["hardware"] |= {"processor": evil, "system": evil, "gpus": [evil]}
    manifest["versions"] |= {"python": f"3; touch {tmp_path}/evil #", "llmctl": evil, "torch": evil}
    manifest["output_hash"] = f"$(touch {tmp_path}/evil)"
    manifest["kind"] = f"pretrain; touch {tmp_path}/evil"
    file.write_text(json.dumps(manifest))
    told = in_process("reproduce", "small/pretrain", "--runs", runs, "--out", tmp_path / "again")
    assert (tmp_path / "again" / "commands.sh").is_file(), told.stderr
    (tmp_path / "bin").mkdir()
    for name in ("llmctl", "pip"):
        (tmp_path / "bin" / name).write_text("#!/bin/sh\n")
        (tmp_path / "bin" / name).chmod(0o755)
    path = f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}"
    made = subprocess.run(["bash", tmp_path / "again" / "commands.sh"], env=os.environ | {"PATH": path}, timeout=60, check=False)
    assert made.returncode == 0
    assert not (tmp_path / "evil").exists()
    assert len((tmp_path / "again" / "requirements.txt").read_text().splitlines()) == len(manifest["versions"]) - 2
