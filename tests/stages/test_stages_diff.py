"""`llmctl diff`: in what recipes, runs and checkpoints differ, the verdict first."""

import json
import math
import shutil

import pytest
import torch
from helpers import in_process
from safetensors.torch import save_file

from llmctl.runs.store import RunStore
from llmctl.stages.weight_difference import compare_weights
from llmctl.views.tables import print_json


@pytest.fixture
def runs(pretrained_runs, tmp_path):
    return shutil.copytree(pretrained_runs, tmp_path / "runs")


def verdict(*arguments) -> tuple[int, str]:
    result = in_process("diff", *arguments)
    return result.returncode, result.stdout.partition("\n")[0]


def test_the_same_bits_and_the_same_recipe(runs, pretrained_runs):
    copy = next(pretrained_runs.glob("small/pretrain-*"))
    assert verdict("small/pretrain", copy, "--runs", runs) == (0, "the same bits")
    recipe = pretrained_runs.parent / "small.toml"
    assert verdict("small/pretrain", recipe, "--runs", runs) == (0, "the same recipe")
    assert verdict("small", recipe, "--runs", runs) == (0, "the same recipe")


def test_keys_that_decide_the_outcome_and_keys_that_do_not(runs, pretrained_runs, tmp_path):
    text = (pretrained_runs.parent / "small.toml").read_text()
    (tmp_path / "ranks.toml").write_text(text.replace("micro_batch = 2", "micro_batch = 1"))
    (tmp_path / "other.toml").write_text(text.replace("warmup_steps = 2", "warmup_steps = 3").replace("layers = 4", "layers = 8"))
    same = in_process("diff", "small/pretrain", tmp_path / "ranks.toml", "--runs", runs)
    assert same.returncode == 0
    assert "changes nothing of the outcome" in same.stdout
    assert "pretrain.micro_batch" in same.stdout
    other = in_process("diff", tmp_path / "ranks.toml", tmp_path / "other.toml", "--json", "--runs", runs)
    assert other.returncode == 1
    told = json.loads(other.stdout)
    assert told["verdict"] == "another recipe: 2 keys that decide the outcome differ"
    decides = {row["key"]: row["decides"] for row in told["recipe"]}
    assert decides == {"model.layers": True, "pretrain.warmup_steps": True, "pretrain.micro_batch": False}


def test_checkpoints_differ_in_stages_weights_and_scores(finished):
    result = in_process("diff", "tiny/sft", "tiny/lora", "--json", "--runs", finished.runs)
    assert result.returncode == 1
    told = json.loads(result.stdout)
    assert told["verdict"] == "another recipe: stage lora is in tiny/lora alone"
    assert told["weights"]["embed_tokens"] == 0.0
    assert told["weights"]["layers.*.self_attn.q_proj"] > 0.0
    asked = [row for row in told["scores"] if row["paired"]]
    assert asked
    for row in asked:
        low, high = row["interval"]
        assert low <= row["second"] - row["first"] <= high
    turned = json.loads(in_process("diff", "tiny/lora", "tiny/sft", "--json", "--runs", finished.runs).stdout)
    mirrored = {row["name"]: row["interval"] for row in turned["scores"] if row["paired"]}
    assert mirrored == {row["name"]: [-row["interval"][1], -row["interval"][0]] for row in asked}


def test_the_same_recipe_on_other_data(runs, pretrained_runs):
    store = RunStore(runs)
    for artifact in store.runs()[0].artifacts:
        file = artifact.folder / "manifest.json"
        manifest = json.loads(file.read_text())
        manifest["output_hash"] = "0" * 64
        if artifact.stage == "corpus":
            manifest["metrics"]["code"]["train_documents"] += 1
        file.write_text(json.dumps(manifest))
    copy = next(pretrained_runs.glob("small/pretrain-*"))
    result = in_process("diff", "small/pretrain", copy, "--runs", runs)
    assert result.returncode == 1
    assert result.stdout.startswith("the same recipe, other data\n")
    assert "corpus.code.train_documents" in result.stdout


def test_trouble_is_exit_code_two(runs, tmp_path):
    for name in ("nowhere", tmp_path / "none.toml"):
        result = in_process("diff", "small", name, "--runs", runs)
        assert result.returncode == 2
        assert "Traceback" not in result.stderr


def test_of_weights_that_were_all_zero_json_has_no_infinity(tmp_path, capsys):
    for name, moved in (("a", 0.0), ("b", 1.0)):
        (tmp_path / name).mkdir()
        tensors = {"model.still.weight": torch.zeros(2), "model.moved.weight": torch.full((2,), moved)}
        save_file(tensors, tmp_path / name / "model.safetensors")
    apart = compare_weights(tmp_path / "a", tmp_path / "b")
    assert apart == {"still": 0.0, "moved": math.inf}
    print_json({"weights": apart, "metrics": [math.nan, 1.5]})
    assert json.loads(capsys.readouterr().out) == {"weights": {"still": 0.0, "moved": None}, "metrics": [None, 1.5]}
