"""Mistakes in how a stage's tokens are made into steps, each told at its key."""

import pytest
from helpers import SMALL_RECIPE

from llmctl.recipe.load import RecipeError, load_recipe
from llmctl.recipe.schema import PretrainTable

MISTAKES = {
    "batch_warmup_from = 64": "the batch grows from there, and needs batch_tokens and batch_warmup_tokens beside it",
    "batch_warmup_tokens = 1000\nbatch_warmup_from = 192": "first batch of 192 tokens .* batch_tokens = 256 halved some times",
    "batch_warmup_tokens = 1000\nbatch_warmup_from = 64": "2 rows on 1 ranks do not divide the first batch of 1 rows",
    "batch_warmup_tokens = 1000": "first batch of 32 tokens is no multiple of seq_len = 64",
    "batch_warmup_tokens = 6000\nbatch_warmup_from = 128": "batch_warmup_tokens = 6,000 is more than the stage's tokens = 5,120",
    "length_warmup_tokens = 1000": "length_warmup_from = 512 does not reach seq_len = 64 by doubling",
    "warmup_tokens = 512": "set either warmup_steps or warmup_tokens, not both",
    "stretch_from = 1000": "planned for schedule_tokens, which must be more than it",
    "stretch_from = 6000\nschedule_tokens = 9000": "stretch_from = 6,000 is more than the stage's tokens = 5,120",
    "offload_optimizer = true": "set zero_stage = 1, too",
    "ema_decay = 1.0": "less than 1",
    "sequence_parallel = 3": "3 ranks cannot share a row of seq_len = 64 tokens evenly",
    "sequence_parallel = 2\nprocesses = 3": "processes = 3 is no multiple of sequence_parallel = 2",
    "sequence_parallel = 2\nprocesses = 8": "2 rows on 8 ranks, 2 to a row, do not divide the batch of 4 rows",
    "sequence_parallel = 4\nsequence_exchange = 'heads'": "4 ranks cannot share the model's 2 key and value heads",
    "kernels = ['swiglo']": "kernels = .*: no kernel 'swiglo'; did you mean 'swiglu'",
    "kernels = 'fast'": "expected 'auto', 'torch', or a list of linear_cross_entropy",
    "offload_activations = true": "set activation_checkpointing = true, too",
}  # fmt: skip


def load(tmp_path, text_folder, keys: str):
    file = tmp_path / "small.toml"
    file.write_text(SMALL_RECIPE.format(texts=text_folder).replace("warmup_steps = 2\n", f"warmup_steps = 2\n{keys}\n"))
    return load_recipe(file)


@pytest.mark.parametrize("keys", MISTAKES)
def test_it_is_told(tmp_path, text_folder, keys):
    with pytest.raises(RecipeError, match=rf"small\.toml:\d+: .*{MISTAKES[keys]}"):
        load(tmp_path, text_folder, keys)


def test_the_best_is_chosen_by_a_loss_that_is_measured(tmp_path, text_folder):
    file = tmp_path / "small.toml"
    file.write_text(SMALL_RECIPE.format(texts=text_folder).replace("every_steps = 3", "keep_best = true"))
    with pytest.raises(RecipeError, match=r"small.toml:\d+: .*set every_steps in the stage's eval table"):
        load_recipe(file)


def test_all_that_is_wrong_with_shared_rows_is_told_at_once(tmp_path, text_folder):
    with pytest.raises(RecipeError) as told:
        load(
            tmp_path, text_folder, "sequence_parallel = 3\nprocesses = 4\nsequence_exchange = 'heads'\noffload_activations = true"
        )
    for part in ("of seq_len = 64 tokens", "processes = 4 is no multiple", "2 key and value heads", "activation_checkpointing"):
        assert part in str(told.value)


@pytest.mark.parametrize(
    "keys",
    [
        "sequence_parallel = 2\nprocesses = 4",  # two groups of two, each with micro-batches of two rows
        "sequence_parallel = 2",  # how many ranks there are is said when the stage is made
        "sequence_parallel = 2\nsequence_exchange = 'heads'",
        "sequence_parallel = 4\nsequence_exchange = 'keys'",
        "offload_activations = true\nactivation_checkpointing = 2\ntiled_mlp = true",
    ],
)
def test_shared_rows_that_fit_are_taken(tmp_path, text_folder, keys):
    assert load(tmp_path, text_folder, keys)


def test_of_a_model_from_outside_the_heads_are_not_known_yet(tmp_path, text_folder):
    keys = "sequence_parallel = 4\nsequence_exchange = 'heads'\nfrom = 'someone/a-model'"
    assert load(tmp_path, text_folder, keys)


def test_what_fits_is_taken(tmp_path, text_folder):
    keys = "batch_warmup_tokens = 1000\nbatch_warmup_from = 128\nlength_warmup_tokens = '2k'\nlength_warmup_from = 16"
    table = load(tmp_path, text_folder, keys).stages["pretrain"]
    assert isinstance(table, PretrainTable)
    assert table.steps.phases == [(0, 0, 2), (8, 16, 4)]
    assert [table.reach.at(tokens) for tokens in (0, 1_000, 2_000)] == [16, 32, 64]
