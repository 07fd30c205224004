"""Keys of a stage that change what is left beside the model."""

import json

import pytest
import torch
from helpers import SMALL_RECIPE, in_process, run_llmctl

from llmctl.errors import UserError
from llmctl.recipe.graph import training_stage
from llmctl.recipe.load import load_recipe
from llmctl.runs.artifact import Artifact
from llmctl.stages.node import Context
from llmctl.stages.training import Stage, moments


@pytest.fixture(scope="module")
def folder(tmp_path_factory, text_folder):
    """A pretraining that keeps the model after every eight steps, with a key of DeepSpeed's."""
    place = tmp_path_factory.mktemp("kept")
    recipe = place / "small.toml"
    text = SMALL_RECIPE.format(texts=text_folder).replace("every_steps = 3", "keep_every = 8")
    recipe.write_text(text + "[deepspeed]\nwall_clock_breakdown = true\n")
    made = run_llmctl("pretrain", recipe, "--runs", place / "runs")
    assert made.returncode == 0, made.stderr
    (found,) = place.glob("runs/small/pretrain-*")
    return found


def test_models_are_kept_on_the_way(folder):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    kept = sorted(path.name for path in (folder / "kept").iterdir())
    assert kept == ["step-00000008", "step-00000016"]
    models = [AutoModelForCausalLM.from_pretrained(path) for path in (*sorted((folder / "kept").iterdir()), folder / "model")]
    weights = [model.lm_head.weight for model in models]
    assert not torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[1], weights[2])
    assert len(AutoTokenizer.from_pretrained(folder / "kept" / "step-00000008")) == 512
    files = json.loads((folder / "manifest.json").read_text())["files"]
    assert "kept/step-00000008/model.safetensors" in files
    assert not (folder / "checkpoints").exists()
    told = in_process("generate", folder / "kept" / "step-00000016", "def", "--tokens", 4)
    assert told.returncode == 0, told.stderr


def test_keys_of_deepspeed_reach_it(folder):
    assert json.loads((folder / "job.json").read_text())["deepspeed"] == {"wall_clock_breakdown": True}


def test_moments_that_were_removed_on_purpose_are_not_begun_without(write_recipe, tmp_path):
    more = '[midtrain]\ntokens = 1024\nseq_len = 64\nbatch_tokens = 256\noptimizer = "muon"\nmix = { code = 1.0 }\n'
    recipe = load_recipe(write_recipe(SMALL_RECIPE.format(texts=tmp_path) + more), corpus=False)
    parent, own = (Artifact(tmp_path / "runs" / "small" / name) for name in ("pretrain-000000000000", "midtrain-000000000000"))
    (parent.folder / "trainer").mkdir(parents=True)
    stage = Stage(Context(recipe, own, {"pretrain": parent}, None), training_stage(recipe, "midtrain"), "midtrain")
    assert moments(stage) == str(parent.folder / "trainer")
    (parent.folder / "trainer").rmdir()
    assert moments(stage) is None
    parent.note_removed("trainer")
    with pytest.raises(UserError, match=r"midtrain\.carry_optimizer = false"):
        moments(stage)
