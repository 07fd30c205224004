"""`llmctl plan` through its entry point."""

import json
import os
from typing import Any

import pytest
from helpers import REPOSITORY, in_process, run_llmctl

from llmctl.recipe.schema import LongContextTable
from llmctl.stages import planning

SEVEN = REPOSITORY / "recipes" / "olmo3_7b.toml"
OFFLINE = os.environ | {"HF_HUB_OFFLINE": "1"}


@pytest.fixture(scope="module")
def seven(tmp_path_factory):
    """The plan of Olmo 3 7B on eight H100, and the folder that it was made in."""
    folder = tmp_path_factory.mktemp("plan")
    told = run_llmctl("plan", SEVEN, "--gpus", 8, "--gpu", "h100", "--json", cwd=folder, env=OFFLINE)
    return told, json.loads(told.stdout), folder


def test_a_recipe_that_does_not_fit_says_what_would(seven):
    told, found, folder = seven
    assert told.returncode == 1
    assert not list(folder.iterdir())
    stages = {stage["stage"]: stage for stage in found["stages"]}
    assert list(stages) == ["pretrain", "midtrain", "longctx", "think", "sft"]
    pretrain = stages["pretrain"]
    assert not pretrain["fits"]
    assert pretrain["needs"] > pretrain["usable"]
    assert (pretrain["parameters"], pretrain["steps"]) == (7_298_617_344, 1_413_822)
    assert pretrain["remedy"]["fits"]
    options = [f"pretrain.{key}={json.dumps(value)}" for key, value in pretrain["remedy"]["keys"].items()]
    better = in_process("plan", SEVEN, "--gpus", 8, "--gpu", "h100", "--json", "--set", *options)
    assert json.loads(better.stdout)["stages"][0]["needs"] == pretrain["remedy"]["needs"]
    assert better.returncode == 0, better.stderr


def test_the_context_and_the_vocabulary_are_told(seven):
    _, found, _ = seven
    assert found["stages"][2]["context"] == "context 8,192 -> 65,536 tokens by yarn x 8 on the full-attention layers"
    assert found["notes"] == ["vocabulary: 100,352 as published with olmo3_7b; --set model.vocab_size=N for another"]
    assert [stage["steps"] for stage in found["stages"][3:]] == [None, None]


@pytest.mark.parametrize(
    ("rope", "told"),
    [
        ({"layers": "all"}, "yarn x 8 on all layers"),
        ({"method": "base", "theta": 5e5}, "a base of 500,000 on the full-attention layers"),
        ({"method": "none"}, "no scaling"),
        ({"factor": 4}, "yarn x 4 on the full-attention layers; factor = 4 x 512 tokens reaches 2,048, "
         "and seq_len = 4,096 needs a factor of 8"),
    ],
)  # fmt: skip
def test_the_context_is_told_by_its_method_and_where_it_does_not_reach(monkeypatch, rope, told):
    monkeypatch.setattr(planning, "lengths_before", lambda *_: [512])
    table = LongContextTable.model_validate({"name": "longctx", "kind": "longctx", "seq_len": 4096, "rope": rope})
    recipe: Any = None
    assert planning.context_line(recipe, table) == f"context 512 -> 4,096 tokens by {told}"


def test_people_get_a_table_and_exit_code_zero_where_all_fits(small_recipe):
    told = run_llmctl("plan", small_recipe)
    assert told.returncode == 0, told.stderr
    for part in ("small on 1 rank", "trained", "20", "4 x 64", "1 x 2", "longest row, micro-batch 1", "yes"):
        assert part in told.stdout


def test_what_does_not_fit_is_shown_with_what_would(small_recipe):
    told = in_process("plan", small_recipe, "--memory", "1200MB", "--set", "pretrain.seq_len=16384",
                      "--set", "pretrain.batch_tokens=65536", "--set", "pretrain.tokens=131072")  # fmt: skip
    assert told.returncode == 1, told.stdout
    assert "pretrain needs " in told.stdout
    assert "micro_batch = 1" in told.stdout


def test_mistakes_are_told_with_exit_code_two(small_recipe):
    for arguments, message in {
        ("--gpu", "h1000"): "--gpu h1000: not known; known are b200, ",
        ("--memory", "much"): "--memory much: expected a size in bytes",
        ("--gpus", 3, "--gpu", "h100"): "cannot be shared by 3 ranks",
        ("--set", "pretrain.sequence=3"): "unknown key",
    }.items():
        told = in_process("plan", small_recipe, *arguments)
        assert told.returncode == 2
        assert message in told.stderr
        assert not told.stdout


def test_time_money_and_disk_are_told(seven):
    _, found, _ = seven
    pretrain, midtrain, sft = (found["stages"][number]["cost"] for number in (0, 1, 4))
    assert pretrain["basis"] == "expected"
    assert 0.2 < midtrain["mfu"] < 0.45
    assert midtrain["seconds"] == pytest.approx(99_998_498_816 / midtrain["tokens_per_second"])
    assert midtrain["dollars"] == pytest.approx(midtrain["seconds"] / 3600 * 8 * found["price"])
    assert sft["seconds"] is None  # by epochs
    assert sft["tokens_per_second"] > 0
    assert found["dollars"] > midtrain["dollars"]
    assert found["disk_peak"] > 5 * pretrain["disk_left"]
    assert found["disk_free"] > 0


def test_fit_prints_options_that_fit(seven):
    searched = in_process("plan", SEVEN, "--gpus", 8, "--gpu", "h100", "--fit", "--price", 2)
    assert searched.returncode == 0, searched.stdout
    assert "dollars at 2 for a rank's hour" in searched.stdout
    assert "what clouds asked" not in searched.stdout
    assert " GiB, where it did not fit before" in searched.stdout
    (line,) = [line for line in searched.stdout.splitlines() if line.startswith("as options: ")]
    options = line.removeprefix("as options: ").split()
    again = in_process("plan", SEVEN, "--gpus", 8, "--gpu", "h100", "--fit", *options)
    assert again.returncode == 0
    assert again.stdout.count("no change needed") == 5


def test_this_machine_is_timed(small_recipe):
    told = in_process("plan", small_recipe, "--json")
    found = json.loads(told.stdout)
    (stage,) = found["stages"]
    assert stage["cost"]["basis"] == "timed here"
    assert stage["cost"]["seconds"] == pytest.approx(5120 / stage["cost"]["tokens_per_second"])
    assert stage["cost"]["dollars"] is None


def test_a_search_needs_rates(small_recipe):
    told = in_process("plan", small_recipe, "--memory", "80GB", "--fit")
    assert told.returncode == 2
    assert "--fit: no rate of bf16 products is known of GPU; name a GPU with --gpu" in told.stderr
