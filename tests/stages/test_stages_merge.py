"""`llmctl merge` through the command line: what it writes, what it refuses, and what is known of it afterwards."""

import json
import shutil
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import in_process, stage
from safetensors.torch import load_file, save_file

ADAPTER_FILE = "adapter_model.safetensors"


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def stronger(adapter: Path, folder: Path, seed: int) -> Path:
    """A copy of an adapter whose update is about as large as the weights."""
    shutil.copytree(adapter, folder)
    generator = torch.Generator().manual_seed(seed)
    tensors = load_file(adapter / ADAPTER_FILE)
    save_file({n: 0.03 * torch.randn(t.shape, generator=generator) for n, t in tensors.items()}, folder / ADAPTER_FILE)
    return folder


def updates(adapter: Path) -> dict[str, torch.Tensor]:
    """scale * B A of each weight, by the weight's name."""
    settings, tensors = json.loads((adapter / "adapter_config.json").read_text()), load_file(adapter / ADAPTER_FILE)
    found = {}
    for name, first in tensors.items():
        if name.endswith("lora_A.weight"):
            second = tensors[name.replace("lora_A", "lora_B")]
            place = name.removeprefix("base_model.model.").replace("lora_A.", "")
            found[place] = settings["lora_alpha"] / settings["r"] * second @ first
    return found


def test_a_lora_stage_is_merged_again_and_its_lineage_is_known(llmctl, runs):
    result = llmctl("merge", "tiny/lora", "--runs", runs)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "largest logit difference between adapter and merged model" in result.stdout
    assert "the adapter itself moves the base's logits by up to" in result.stdout
    made, lora = stage(runs, "merged"), stage(runs, "lora")
    for name, tensor in weights(made / "model").items():
        torch.testing.assert_close(tensor, weights(lora / "model")[name])
    told: dict[str, Any] = json.loads(llmctl("lineage", "tiny/merged", "--json", "--runs", runs).stdout)
    assert [parent["stage"] for parent in told["parents"]] == ["sft", "lora"]
    assert [line.split("  sha256 ")[0] for line in told["merged"]] == [
        f"tiny/{stage(runs, 'sft').name}/model", f"1 x tiny/{lora.name}/adapter"
    ]  # fmt: skip
    assert f"1 x tiny/{lora.name}/adapter" in llmctl("lineage", "tiny/merged", "--runs", runs).stdout
    again = in_process("merge", "tiny/lora", "--runs", runs)
    assert f"merged: done before, {made}" in again.stdout
    assert in_process("generate", "tiny/merged", "hello", "--tokens", 2, "--runs", runs).returncode == 0


def test_another_tolerance_is_another_merge(runs, tmp_path):
    loose = ("merge", "tiny/lora", "--tolerance", "10", "--runs", runs)
    assert in_process(*loose).returncode == 0
    strict = in_process("merge", "tiny/lora", "--tolerance", "1e-12", "--runs", runs)
    assert strict.returncode == 1, strict.stdout
    assert "is not base and adapter" in strict.stderr
    assert "done before" in in_process(*loose).stdout


def test_the_card_of_a_merge_names_base_and_adapters(runs, tmp_path):
    snapshot = tmp_path / "models--somebody--base" / "snapshots" / "0123abc"
    snapshot = shutil.copytree(stage(runs, "sft") / "model", snapshot)
    adapters = [stronger(stage(runs, "lora") / "adapter", tmp_path / name, seed) for seed, name in enumerate(("one", "other"))]
    outside = ("merge", snapshot, *adapters, "--weights", "1,0.5", "--run", "tiny", "--name", "both", "--runs", runs)
    for command, name in ((outside, "both"), (("merge", "tiny/lora", "--runs", runs), "merged")):
        made = in_process(*command)
        assert made.returncode == 0, made.stdout + made.stderr
        exported = in_process("export", f"tiny/{name}", tmp_path / f"{name}-out", "--runs", runs)
        assert exported.returncode == 0, exported.stderr
    readme = (tmp_path / "both-out" / "README.md").read_text()
    assert 'base_model:\n- "somebody/base"\n' in readme
    assert "| both | somebody/base; 1 x one; 0.5 x other" in readme
    assert str(tmp_path) not in readme
    readme = (tmp_path / "merged-out" / "README.md").read_text()
    assert "base_model" not in readme
    assert f"| merged | tiny/{stage(runs, 'sft').name}/model; 1 x tiny/{stage(runs, 'lora').name}/adapter" in readme


def test_the_first_conversation_of_shards_is_compared_up_to_512_tokens(tmp_path):
    from llmctl.stages.bench import write_random_shards
    from llmctl.stages.lora import beginning
    from llmctl.tokens.shards import TokenShards

    for name, longest in (("short", 40), ("long", 2000)):
        lengths = write_random_shards(tmp_path / name, 512, 5000, longest)
        ids = TokenShards(tmp_path / name).stream[0 : min(512, int(lengths[0]))]
        assert beginning(tmp_path / name).tolist() == [ids.tolist()]


def test_the_tokenizer_is_the_adapters(runs, tmp_path):
    from llmctl.errors import UserError
    from llmctl.model.adapter_files import read_adapter
    from llmctl.model.merge import tokenizer_for
    from llmctl.tokens.tokenizer import load_tokenizer

    base, adapter = stage(runs, "sft") / "model", stage(runs, "lora") / "adapter"
    folders = [shutil.copytree(adapter, tmp_path / name) for name in ("one", "other", "without")]
    one, other, without = folders
    for folder, template in ((one, "{{ 1 }}"), (other, "{{ 2 }}")):
        tokenizer = load_tokenizer(str(folder))
        tokenizer.chat_template = template
        tokenizer.save_pretrained(folder)
    for file in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        (without / file).unlink()
    files = [read_adapter(folder) for folder in folders]
    assert tokenizer_for(str(base), files).chat_template == "{{ 2 }}"
    assert tokenizer_for(str(base), files[2:]).chat_template == load_tokenizer(str(base)).chat_template
    tokenizer.add_tokens(["<|more|>"], special_tokens=True)
    tokenizer.save_pretrained(other)
    with pytest.raises(UserError, match=f"{one} and {other} have tokenizers of different vocabularies"):
        tokenizer_for(str(base), files)


def test_two_adapters_with_weights_are_added_up_in_a_plain_folder(runs, tmp_path):
    base, adapter = stage(runs, "sft") / "model", stage(runs, "lora") / "adapter"
    one, other = (stronger(adapter, tmp_path / name, seed) for seed, name in enumerate(("one", "other")))
    command = ("merge", base, one, other, "--weights", "1,0.5", "--out", tmp_path / "both", "--runs", runs)
    result = in_process(*command)
    assert result.returncode == 0, result.stdout + result.stderr
    assert f"the tokenizer and its chat template are those of {other}" in " ".join(result.stdout.split())
    first, second, before, after = updates(one), updates(other), weights(base), weights(tmp_path / "both")
    assert after.keys() == before.keys()
    assert len(first) == 28
    for name, tensor in after.items():
        expected = before[name] + (first[name] + 0.5 * second[name] if name in first else 0)
        torch.testing.assert_close(tensor, expected)
    record = json.loads((tmp_path / "both" / "merge.json").read_text())
    assert record["base"]["checkpoint"] == f"tiny/{stage(runs, 'sft').name}/model"
    assert [(row["adapter"], row["weight"]) for row in record["adapters"]] == [(str(one), 1.0), (str(other), 0.5)]
    assert all(len(row["sha256"]) == 64 for row in (record["base"], *record["adapters"]))
    assert "done before" in in_process(*command).stdout
    changed = in_process(*command[:5], "2,0.5", *command[6:])
    assert changed.returncode == 2
    assert "is there already" in changed.stderr


@pytest.mark.parametrize(("asked", "kind"), [("keep", torch.bfloat16), ("fp32", torch.float32), ("fp16", torch.float16)])
def test_the_type_of_the_base_is_kept_or_the_one_asked_for_written(runs, tmp_path, asked, kind):
    from llmctl.model.load import load_model

    base = shutil.copytree(stage(runs, "sft") / "model", tmp_path / "base")
    tensors = {name: t.bfloat16() for name, t in weights(base).items()}
    tensors["model.norm.weight"] = tensors["model.norm.weight"].float()
    save_file(tensors, base / "model.safetensors", {"format": "pt"})
    adapter = stronger(stage(runs, "lora") / "adapter", tmp_path / "adapter", 1)
    result = in_process("merge", base, adapter, "--dtype", asked, "--out", tmp_path / "out", "--runs", runs)
    assert result.returncode == 0, result.stdout + result.stderr
    written = weights(tmp_path / "out")
    assert written["model.layers.0.mlp.up_proj.weight"].dtype == kind
    assert written["model.norm.weight"].dtype == (torch.float32 if asked == "keep" else kind)
    assert json.loads((tmp_path / "out" / "config.json").read_text())["dtype"] == str(kind).removeprefix("torch.")
    exact = tensors["model.layers.0.mlp.up_proj.weight"].float() + updates(adapter)["model.layers.0.mlp.up_proj.weight"]
    assert torch.equal(written["model.layers.0.mlp.up_proj.weight"], exact.to(kind))
    assert load_model(str(tmp_path / "out")).dtype == torch.float32


def test_a_difference_above_the_tolerance_fails_and_leaves_nothing(runs, tmp_path):
    adapter = stronger(stage(runs, "lora") / "adapter", tmp_path / "adapter", 1)
    arguments = ("merge", "tiny/sft", adapter, "--dtype", "bf16", "--tolerance", "1e-6", "--runs", runs)
    for place in ([], ["--out", tmp_path / "out"]):
        result = in_process(*arguments, *place)
        assert result.returncode == 1, result.stdout + result.stderr
        assert "is not base and adapter" in result.stderr
        assert "Traceback" not in result.stderr
    assert not (tmp_path / "out").exists()
    assert not list((runs / "tiny").glob("merged-*/model"))


@pytest.mark.parametrize("where", ["merge", "round_weights"])
def test_a_wrong_merge_is_found(runs, tmp_path, monkeypatch, where):
    from llmctl.errors import StageFailed
    from llmctl.model import merge

    right = getattr(merge, where)

    def wrong(model: Any, *rest: Any) -> Any:
        made = right(model, *rest) or model
        with torch.no_grad():
            made.model.layers[1].mlp.up_proj.weight[:16].mul_(1.2)
        return made

    monkeypatch.setattr(merge, where, wrong)
    adapter = stronger(stage(runs, "lora") / "adapter", tmp_path / "adapter", 1)
    with pytest.raises(StageFailed, match="is not base and adapter: logits differ by"):
        merge.write_merged(str(stage(runs, "sft") / "model"), [adapter], [1.0], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_does_not_belong_together_is_refused(runs, tmp_path):
    from llmctl.errors import UserError
    from llmctl.stages.merging import merge_adapters

    adapter, base = stage(runs, "lora") / "adapter", stage(runs, "sft") / "model"

    def changed(name: str, file: str, change: Any) -> Path:
        folder = shutil.copytree(adapter, tmp_path / name)
        if file == ADAPTER_FILE:
            save_file(change(load_file(folder / file)), folder / file)
        else:
            (folder / file).write_text(json.dumps(json.loads((folder / file).read_text()) | change))
        return folder

    def renamed(tensors: dict[str, Any]) -> dict[str, Any]:
        return {name.replace("q_proj", "query"): tensor for name, tensor in tensors.items()}

    def wider(tensors: dict[str, Any]) -> dict[str, Any]:
        return {n: torch.zeros(t.shape[0], 48) if n.endswith("q_proj.lora_A.weight") else t for n, t in tensors.items()}

    def with_head(tensors: dict[str, Any]) -> dict[str, Any]:
        return tensors | {"base_model.model.lm_head.weight": torch.zeros(640, 32)}

    pickled = shutil.copytree(adapter, tmp_path / "pickled")
    (pickled / ADAPTER_FILE).rename(pickled / "adapter_model.bin")
    other = shutil.copytree(base, tmp_path / "other")
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps(config | {"vocab_size": 300}))
    foreign = changed("foreign", "adapter_config.json", {"base_model_name_or_path": str(other)})
    named = changed("named", ADAPTER_FILE, renamed)
    for arguments, messages in (
        ([base, named], (f"the adapter {named} does not fit {base}", "no layer 'query'")),
        ([base, changed("wide", ADAPTER_FILE, wider)], ("[2, 48]", "a layer from 32 to 32 wide takes [2, 32]")),
        ([base, changed("rank", "adapter_config.json", {"r": 4})], ("rank 4", "takes [4, 64]")),
        ([base, changed("head", ADAPTER_FILE, with_head)], ("its vocabulary is 640 (lm_head.weight), and the base's 512",)),
        ([base, foreign], (f"trained on {other}, of a vocabulary of 300, and this base has one of 512",)),
        ([base, pickled], ("its weights are in a pickle (adapter_model.bin)",)),
        ([base, changed("kind", "adapter_config.json", {"peft_type": "IA3"})], ("an adapter of the kind IA3",)),
        ([base, changed("dora", "adapter_config.json", {"use_dora": True}), adapter], ("it is merged alone",)),
        ([base, changed("code", "adapter_config.json", {"megatron_config": {"a": 1}})], ("megatron_core",)),
        ([base, base], ("no adapter in PEFT's format",)),
        ([base, "tiny/sft"], ("'tiny/sft' is no adapter", "there are: tiny/lora")),
        (["tiny/sft"], ("'tiny/sft' is no adapter", "llmctl merge BASE ADAPTER")),
        ([pickled], (f"llmctl merge BASE {pickled}",)),
    ):  # fmt: skip
        base_name, *names = [str(argument) for argument in arguments]
        with pytest.raises(UserError) as told:
            merge_adapters(base_name, names, None, "keep", None, ("merged", None), runs, lambda _: nullcontext())
        for message in messages:
            assert message in str(told.value)
    for arguments, message in (
        ([base, named], "no layer 'query'"),
        ([base, adapter, "--weights", "1,2"], "2 weights for 1 adapters"),
        ([base, adapter, "--weights", "nan"], "expected numbers"),
        ([base, adapter, "--name", "sft"], "tiny has something else of that name"),
    ):
        result = in_process("merge", *arguments, "--runs", runs)
        assert result.returncode == 2, result.stdout + result.stderr
        assert message in result.stderr
        assert "Traceback" not in result.stderr
    assert not list((runs / "tiny").glob("merged-*/model"))


STAGES = """
extends = "{recipe}"
[eval]
suites = []
[stage.a]
kind = "lora"
from = "sft"
tokens = 1024
seq_len = 128
batch_tokens = 256
lr = 3e-3
rank = 2
init = "pissa"
mix = {{ more = 1.0 }}
[stage.b]
kind = "lora"
from = "sft"
tokens = 1024
seq_len = 128
batch_tokens = 256
lr = 3e-3
rank = 4
rslora = true
targets = ["q_proj", "up_proj"]
mix = {{ talk = 1.0 }}
"""


TALL = """
extends = "{recipe}"
[eval]
suites = []
generations = 1
[lora]
template = "olmo"
add_tokens = ["<|extra|>"]
[stage.mean]
kind = "average"
of = ["lora", "lora"]
"""


def test_a_template_of_the_adapters_own_is_that_of_what_is_merged_and_averaged(llmctl, runs, finished, tmp_path):
    from llmctl.tokens.template import end_of_turn_ids
    from llmctl.tokens.tokenizer import load_tokenizer

    recipe = tmp_path / "olmo.toml"
    recipe.write_text(TALL.format(recipe=finished.recipe))
    before = {path.name for path in (runs / "tiny").glob("lora-*")}
    result = llmctl("run", recipe, "--runs", runs)
    assert result.returncode == 0, result.stdout + result.stderr
    (lora,) = [path for path in (runs / "tiny").glob("lora-*") if path.name not in before]
    own, base = load_tokenizer(str(lora / "adapter")), load_tokenizer(str(stage(runs, "sft") / "model"))
    assert own.chat_template not in (None, base.chat_template)
    merged = in_process("merge", f"tiny/{lora.name}", "--runs", runs)
    assert merged.returncode == 0, merged.stdout + merged.stderr
    for folder in (stage(runs, "merged") / "model", stage(runs, "mean") / "model"):
        tokenizer = load_tokenizer(str(folder))
        assert tokenizer.chat_template == own.chat_template
        assert "<|extra|>" in tokenizer.get_vocab()
        stops = json.loads((folder / "generation_config.json").read_text())["eos_token_id"]
        assert stops == end_of_turn_ids(own)


def test_several_adapters_of_one_recipe_stand_each_on_the_same_base_and_are_merged(llmctl, runs, finished, tmp_path):
    recipe = tmp_path / "two.toml"
    recipe.write_text(STAGES.format(recipe=finished.recipe))
    result = llmctl("run", recipe, "--runs", runs)
    assert result.returncode == 0, result.stdout + result.stderr
    one, other = (stage(runs, name) / "adapter" for name in ("a", "b"))
    settings = [json.loads((folder / "adapter_config.json").read_text()) for folder in (one, other)]
    assert [each["r"] for each in settings] == [4, 4]  # of pissa's two, and two that take back what it began with
    assert {each["base_model_name_or_path"] for each in settings} == {str(stage(runs, "sft") / "model")}
    assert json.loads((stage(runs, "a") / "manifest.json").read_text())["metrics"]["largest_logit_difference"] < 1e-4
    merged = in_process("merge", "tiny/sft", "tiny/a", "tiny/b", "--name", "both", "--runs", runs)
    assert merged.returncode == 0, merged.stdout + merged.stderr
    told = json.loads(in_process("lineage", "tiny/both", "--json", "--runs", runs).stdout)
    assert [parent["stage"] for parent in told["parents"]] == ["sft", "a", "b"]
    first, second, before = updates(one), updates(other), weights(stage(runs, "sft") / "model")
    second = {name: update * 2 for name, update in second.items()}  # alpha / sqrt(4), not alpha / 4
    for name, tensor in weights(stage(runs, "both") / "model").items():
        expected = before[name] + first.get(name, 0) + second.get(name, 0)
        torch.testing.assert_close(tensor, expected)
