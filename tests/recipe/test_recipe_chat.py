"""Mistakes in the tables of stages on conversations, and what a smoke run makes of them."""

import json

import pytest
from helpers import SMALL_RECIPE

from llmctl.recipe.load import RecipeError, load_recipe

CHAT = """
[corpus.sources.talk]
path = "{talk}"
kind = "chat"
[{kind}]
tokens = 1024
seq_len = 64
batch_tokens = 128
mix = {{ talk = 1.0 }}
{keys}
"""

MISTAKES = [
    ("sft", "template = 'chatlm'", r"no chat template of that name and no such file; did you mean 'chatml'\?"),
    ("sft", "template = 'nothing.jinja'", "no such file; there are olmo, chatml"),
    ("sft", "packing = 'concat'", "conversations go into rows whole"),
    ("sft", "document_boundaries = false", "a conversation never sees another one"),
    ("sft", "early_stopping = 2", "set every_steps in the stage's eval table"),
    ("sft", "carry_optimizer = true\nadd_tokens = ['<a>']\noptimizer = 'muon'", "embeddings that the parent has no moments of"),
    ("sft", "most_untrained = 2.0", "less than or equal to 1"),
    ("sft", "too_long = 'cut'", "expected 'turns', 'truncate' or 'drop'"),
    ("lora", "rank = 128", "rank = 128 is larger than the model's width of 32"),
    ("lora", "targets = 'all'", "targets"),
    ("lora", "init = 'pisa'", "init"),
]


def load(tmp_path, text_folder, kind: str, keys: str, **options):
    talk = tmp_path / "talk.jsonl"
    talk.write_text(json.dumps({"prompt": "a", "response": "b"}) + "\n")
    file = tmp_path / "chat.toml"
    file.write_text((SMALL_RECIPE + CHAT).format(texts=text_folder, talk=talk, kind=kind, keys=keys))
    return load_recipe(file, **options)


@pytest.mark.parametrize(("kind", "keys", "told"), MISTAKES)
def test_it_is_told_with_its_line(tmp_path, text_folder, kind, keys, told):
    with pytest.raises(RecipeError, match=rf"chat\.toml:\d+: .*{told}"):
        load(tmp_path, text_folder, kind, keys)


def test_names_and_files_of_templates_and_both_spellings_of_all_linear_are_taken(tmp_path, text_folder):
    template = tmp_path / "own.jinja"
    template.write_text("{{ messages }}")
    for name in ("olmo", "simple", str(template)):
        assert load(tmp_path, text_folder, "sft", f"template = '{name}'").stages["sft"].template == name
    assert load(tmp_path, text_folder, "lora", "targets = 'all-linear'").stages["lora"].targets == "all_linear"


def test_a_smoke_run_takes_a_large_adapter_and_long_conversations(tmp_path, text_folder):
    keys = "rank = 32\nquantize = 'nf4'\nmost_untrained = 0.0"
    lora = load(tmp_path, text_folder, "lora", keys, smoke=True).stages["lora"]
    assert (lora.rank, lora.quantize, lora.most_untrained) == (8, "none", 1.0)
