"""`llmctl average`, and the stage of that kind: the mean of checkpoints, and what is known of it afterwards."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from helpers import in_process, stage
from safetensors.numpy import load_file, save_file


def weights(folder: Path) -> dict[str, np.ndarray]:
    return load_file(folder / "model.safetensors")


def tree(runs: Path, name: str) -> dict[str, Any]:
    return json.loads(in_process("lineage", name, "--json", "--runs", runs).stdout)


def test_the_mean_is_the_mean_and_every_command_knows_it(llmctl, runs):
    command = ("average", "tiny/pretrain", "tiny/midtrain", "--weights", "1,3", "--runs", runs)
    result = llmctl(*command)
    assert result.returncode == 0, result.stderr
    made = stage(runs, "average")
    first, second, mean = (weights(folder / "model") for folder in (stage(runs, "pretrain"), stage(runs, "midtrain"), made))
    assert mean.keys() == first.keys()
    for name, tensor in mean.items():
        exact = 0.25 * first[name].astype(np.float64) + 0.75 * second[name].astype(np.float64)
        assert tensor.dtype == np.float32
        np.testing.assert_array_equal(tensor, exact.astype(np.float32))
    told = tree(runs, "tiny/average")
    assert [parent["stage"] for parent in told["parents"]] == ["pretrain", "midtrain"]
    shown = in_process("lineage", "tiny/average", "--runs", runs).stdout
    assert f"0.75 x tiny/{stage(runs, 'midtrain').name}/model" in shown
    assert "corpus" in shown
    assert f"{made.name}: as written" in in_process("verify", "tiny/average", "--runs", runs).stdout
    scored = in_process("eval", "tiny/average", "--runs", runs)
    assert scored.returncode == 0, scored.stderr
    assert "average - pretrain" in scored.stdout  # the first, as the recipe's own evaluation
    assert in_process("generate", "tiny/average", "def f", "--tokens", 2, "--runs", runs).returncode == 0
    before = (made / "manifest.json").stat().st_mtime_ns
    again = in_process(*command)
    assert f"average: done before, {made}" in again.stdout
    assert (made / "manifest.json").stat().st_mtime_ns == before
    assert len(list((runs / "tiny").glob("average-*"))) == 1


def test_models_that_a_stage_keeps_and_models_from_outside(runs, tmp_path):
    kept = stage(runs, "pretrain") / "kept"
    for step, model in (("step-00000008", stage(runs, "midtrain")), ("step-00000016", stage(runs, "pretrain"))):
        shutil.copytree(model / "model", kept / step)
    result = in_process("average", *sorted(kept.glob("*")), "--runs", runs)
    assert result.returncode == 0, result.stderr
    told = tree(runs, "tiny/average")
    assert [parent["stage"] for parent in told["parents"]] == ["pretrain"]
    assert [line.rpartition("/")[2] for line in told["averaged"]] == ["step-00000008", "step-00000016"]
    outside = shutil.copytree(stage(runs, "pretrain") / "model", tmp_path / "outside")
    alone = in_process("average", outside, outside, "--runs", runs)
    assert alone.returncode == 2
    assert "no checkpoint here belongs to a run" in alone.stderr
    named = in_process("average", outside, outside, outside, "--run", "tiny", "--name", "soup", "--runs", runs)
    assert named.returncode == 0, named.stderr
    assert tree(runs, "tiny/soup")["averaged"] == [f"0.3333 x {outside}"] * 3
    for name, tensor in weights(stage(runs, "soup") / "model").items():  # three thirds are the whole, to the bit
        np.testing.assert_array_equal(tensor, weights(outside)[name])


def test_the_stage_of_a_recipe_makes_the_same(llmctl, runs, finished, tmp_path):
    recipe = tmp_path / "mean.toml"
    table = '[stage.mean]\nkind = "average"\nof = ["pretrain", "midtrain"]\n'
    recipe.write_text(f'extends = "{finished.recipe}"\n[eval]\nsuites = []\n{table}')
    result = llmctl("run", recipe, "--runs", runs)
    assert result.returncode == 0, result.stderr
    assert in_process("average", "tiny/pretrain", "tiny/midtrain", "--runs", runs).returncode == 0
    mean, average = stage(runs, "mean") / "model", stage(runs, "average") / "model"
    files = sorted(path.name for path in mean.iterdir())
    assert files == sorted(path.name for path in average.iterdir())
    for name in files:
        assert (mean / name).read_bytes() == (average / name).read_bytes(), name


def test_weights_in_several_files(runs, tokenizer, monkeypatch, tmp_path):
    from llmctl.model import average
    from llmctl.model.load import load_model

    folders = [stage(runs, name) / "model" for name in ("pretrain", "midtrain")]
    average.write_average(folders, [1.0, 1.0], average.load_tokenizer(str(folders[0])), tmp_path / "one")
    monkeypatch.setattr(average, "SHARD_BYTES", 100_000)
    average.write_average(folders, [1.0, 1.0], average.load_tokenizer(str(folders[0])), tmp_path / "several")
    assert len(list((tmp_path / "several").glob("*.safetensors"))) > 1
    halves = [tmp_path / "several", tmp_path / "several"]
    average.write_average(halves, [1.0, 1.0], average.load_tokenizer(str(halves[0])), tmp_path / "again")
    for folder in (tmp_path / "several", tmp_path / "again"):
        loaded = load_model(str(folder)).state_dict()
        for name, tensor in weights(tmp_path / "one").items():
            np.testing.assert_array_equal(loaded[name].numpy(), tensor)


def test_what_does_not_fit_is_told_and_nothing_is_left(runs, tmp_path):
    model = stage(runs, "pretrain") / "model"
    wider = shutil.copytree(model, tmp_path / "wider")
    tensors = weights(model)
    save_file(tensors | {"lm_head.weight": np.zeros((512, 64), np.float32)}, wider / "model.safetensors", {"format": "pt"})
    other = shutil.copytree(model, tmp_path / "other")
    vocabulary = (other / "tokenizer.json").read_text().replace("<|fim_prefix|>", "<|fim_begin|>")
    (other / "tokenizer.json").write_text(vocabulary)
    packed = shutil.copytree(model, tmp_path / "packed")
    (packed / "model.safetensors").rename(packed / "pytorch_model.bin")
    for arguments, messages in (
        ([wider], (f"{wider} is of another shape than {model}", "lm_head.weight is [512, 64], and in the other [512, 32]")),
        ([other], (f"{other} has a tokenizer of another vocabulary than {model}",)),
        ([packed], (f"{packed}: no weights in safetensors",)),
        (["tiny/nowhere"], ("'tiny/nowhere' is no model folder and no checkpoint of a run",)),
        ([model, "--weights", "1,2,3"], ("--weights 1,2,3: 3 weights for 2 checkpoints",)),
        ([model, "--weights", "0,0"], ("expected numbers from 0 on that are not all 0",)),
        ([model, "--name", "sft"], ("--name sft: tiny has something else of that name",)),
        ([model, "--run", "large"], ("--run large: no such run",)),
        ([], ("two checkpoints or more",)),
    ):
        result = in_process("average", "tiny/pretrain", *arguments, "--runs", runs)
        assert result.returncode == 2, result.stdout + result.stderr
        for message in messages:
            assert message in result.stderr
        assert "Traceback" not in result.stderr
        assert not list((runs / "tiny").glob("average-*/model"))


def test_another_configuration_is_told_and_the_firsts_is_kept(runs):
    result = in_process("average", "tiny/longctx", "tiny/pretrain", "--runs", runs)
    assert result.returncode == 0, result.stderr
    assert "differs in max_position_embeddings, rope_extension, rope_parameters of its config.json" in result.stdout
    made = json.loads((stage(runs, "average") / "model" / "config.json").read_text())
    assert made["max_position_embeddings"] == 512
