"""Rate and batch by the model's size: the numbers of Olmo 3's ladder."""

import pytest
from helpers import REPOSITORY, run_llmctl

from llmctl.preflight.ladder import batch_tokens, filled_in, peak_rate
from llmctl.recipe.load import load_recipe
from llmctl.recipe.schema import STAGE_TABLES, TrainTable

BODY_190M = 190_354_176  # without the input embedding


def table(kind: str, **keys) -> TrainTable:
    made = STAGE_TABLES[kind].model_validate({"name": kind, "kind": kind, "seq_len": 8192, **keys})
    assert isinstance(made, TrainTable)
    return made


def test_the_rules_at_the_size_they_were_fitted_at():
    assert peak_rate(108_000_000) == pytest.approx(0.00235)
    assert batch_tokens(108_000_000) == pytest.approx(327_680)
    assert peak_rate(8 * 108_000_000) == pytest.approx(0.00235 / 2)
    assert peak_rate(1000) == peak_rate(14_000_000)
    assert batch_tokens(8 * 108_000_000) == pytest.approx(4 * 327_680)


def test_the_shipped_190m_recipe_follows_them():
    shipped = load_recipe(REPOSITORY / "recipes" / "olmo_190m.toml").stages["pretrain"]
    assert isinstance(shipped, TrainTable)
    filled = filled_in(table("pretrain"), BODY_190M, budget=3_800_000_000)
    assert filled.batch_tokens == shipped.batch_tokens == 524_288
    assert filled.lr == pytest.approx(shipped.lr, rel=0.01)


def test_what_the_recipe_says_stays():
    filled = filled_in(table("sft", lr=1e-5), BODY_190M, budget=10**9)
    assert filled.lr == 1e-5
    assert filled.batch_tokens == 131_072
    assert filled_in(table("sft", batch_tokens=8192), BODY_190M, budget=10**9).batch_tokens == 8192


def test_a_short_stage_has_steps_all_the_same():
    assert filled_in(table("pretrain", seq_len=128), BODY_190M, budget=128 * 800).batch_tokens == 128 * 8
    assert filled_in(table("pretrain", seq_len=128), BODY_190M, budget=128).batch_tokens == 128


def test_it_is_said_aloud(small_recipe, tmp_path):
    text = small_recipe.read_text().replace("batch_tokens = 256\nmicro_batch = 2\n", "")
    assert text != small_recipe.read_text()
    small_recipe.write_text(text)
    made = run_llmctl("pretrain", small_recipe, "--runs", tmp_path / "runs")
    assert made.returncode == 0, made.stderr
    weights = 512 * 32 + 4 * (4 * 32 * 32 + 3 * 32 * 64 + 4 * 32) + 32  # head; attention, MLP and norms of each block; last norm
    rate = f"{peak_rate(weights):.3g}"
    told = f"lr = {rate} and batch_tokens = 64 by Olmo 3's model ladder, for {weights:,} weights without the input embedding"
    assert told in made.stdout
    assert "5,120 tokens in 80 steps of 1 x 64" in made.stdout
