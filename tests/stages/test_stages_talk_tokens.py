"""The shards and tokens of a stage on conversations: no name of a source is in the way, and every token has its embedding."""

import json

import pytest

from llmctl.corpus.documents import Conversation, conversations_file, writing
from llmctl.recipe.chat_schema import ChatTable
from llmctl.recipe.load import load_recipe
from llmctl.runs.artifact import Artifact
from llmctl.stages.node import Context
from llmctl.stages.talks import added_tokens, needs_embeddings, prepare
from llmctl.stages.training import Stage
from llmctl.tokens.shards import TokenShards

TABLES = """
name = "talks"
[sft]
from = "{model}"
epochs = 1
seq_len = 128
batch_tokens = 256
lr = 1e-3
mix = {mix}
"""


@pytest.fixture
def stage(tmp_path, tokenizer, tokenizer_folder):
    """A stage of these sources on a model that embeds `embedded` tokens."""

    def made(sources=("talk",), embedded=None, keys="", tokenizer=tokenizer):
        from transformers import Qwen3Config

        model, rows = tmp_path / "model", tmp_path / "talk.jsonl"
        Qwen3Config(vocab_size=embedded or len(tokenizer), max_position_embeddings=128).save_pretrained(model)
        tokenizer.save_pretrained(tmp_path / "made" / "tokenizer")
        rows.write_text(json.dumps({"messages": []}))
        tables = TABLES.format(model=model, mix="{" + ", ".join(f"{name} = {1 / len(sources)}" for name in sources) + "}") + keys
        tables += "".join(f'\n[corpus.sources.{name}]\npath = "{rows}"\nkind = "chat"\n' for name in sources)
        (tmp_path / "talks.toml").write_text(tables)
        recipe = load_recipe(tmp_path / "talks.toml")
        for name in sources:
            for number, split in enumerate(("train", "heldout")):
                with writing(conversations_file(tmp_path / "corpus", name, split)) as write:
                    turns = [("user", f"{name} {number}?"), ("assistant", f"{split} of {name}.")]
                    messages = [{"role": role, "content": text} for role, text in turns]
                    write(Conversation(messages, name, name, f"{name}.jsonl:{number}"))
        parents = {"corpus": Artifact(tmp_path / "corpus"), "tokenizer": Artifact(tmp_path / "made")}
        table = recipe.stages["sft"]
        assert isinstance(table, ChatTable)
        return Stage(Context(recipe, Artifact(tmp_path / "stage"), parents, None), table, "sft")

    return made


def test_a_source_may_have_any_name(stage):
    sources = ("tokenizer", "heldout", "train", "talk")
    made = stage(sources, keys='template = "olmo"\nadd_tokens = ["<|more|>"]\n')
    talks = prepare(made)
    assert talks.findings == []
    for name in sources:
        for split, shards in (("train", talks.train[name]), ("heldout", talks.heldout[name])):
            found = TokenShards(shards)
            assert found.documents == 1
            assert found.names({0})[0][0] == name
            assert shards == made.folder / "data" / split / name  # where the measures in the loop look for them
    assert made.own_tokenizer.is_dir()
    assert prepare(made) == talks


@pytest.mark.parametrize(
    ("embedded", "names", "added"),
    [
        (512, [], 0),
        (512, ["<|im_end|>"], 0),  # which it has, and the model embeds
        (512, ["<|more|>", "<|most|>"], 2),
        (576, ["<|more|>"], 1),
        (513, ["<|extra|>"], 1),  # which the tokenizer has and the model does not embed
        (513, ["<|extra|>", "<|more|>", "<|im_end|>"], 2),
    ],
)
def test_a_token_that_is_named_has_an_embedding_or_is_given_one(stage, tokenizer, embedded, names, added):
    import copy

    own = copy.deepcopy(tokenizer)
    if embedded == 513:
        own.add_tokens(["<|other|>", "<|extra|>"], special_tokens=True)
    made = stage(embedded=embedded, keys=f"add_tokens = {json.dumps(names)}\n", tokenizer=own)
    assert added_tokens(made) == added
    assert needs_embeddings(made) == bool(added)
    assert prepare(made).findings == []


def test_tokens_that_the_model_has_no_embedding_for_are_refused_until_they_are_named(stage, tokenizer):
    import copy

    own = copy.deepcopy(tokenizer)
    own.add_tokens(["<|extra|>"], special_tokens=True)
    for names in ([], ["<|im_end|>"]):  # a name that changes nothing is no remedy
        (found,) = prepare(stage(embedded=512, keys=f"add_tokens = {json.dumps(names)}\n", tokenizer=own)).findings
        assert found.dead
        assert found.what == "the tokenizer has 513 tokens and the model embeds 512."
        assert "add_tokens" in found.remedy


def test_a_template_that_cannot_tell_the_end_of_an_answer_is_found_before_training(stage, tmp_path):
    file = tmp_path / "strict.jinja"
    file.write_text(
        "{% if 'of' not in messages[-1].content and not add_generation_prompt %}{{ raise_exception('no answer') }}{% endif %}"
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    (found,) = prepare(stage(keys=f'template = "{file}"\n')).findings
    assert found.dead
    assert "no answer" in found.what
    assert "chatml" in found.remedy
