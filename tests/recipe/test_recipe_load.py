"""Recipes: quantities, merging, and every mistake at once with its place."""

import sys
from pathlib import Path

import pytest

from llmctl.recipe.graph import identity, stage_order
from llmctl.recipe.load import RecipeError, dump_recipe, load_recipe, restore_recipe
from llmctl.recipe.positions import lines_of_keys
from llmctl.recipe.schema import PretrainTable

SOUND = """
[corpus.sources.code]
path = "builtin:python-stdlib"
[corpus.sources.talk]
path = "builtin:python-docstrings"
[tokenizer]
vocab_size = 1024
[model]
hidden_size = 64
layers = 4
heads = 4
ffn_size = 128
window = 32
[pretrain]
tokens = "1.5M"
seq_len = 64
batch_tokens = 256
mix = { code = 1.0 }
[sft]
epochs = 2
seq_len = 64
batch_tokens = 256
mix = { talk = 1.0 }
"""


def errors(file: Path, *overrides: str) -> str:
    with pytest.raises(RecipeError) as caught:
        load_recipe(file, overrides)
    return str(caught.value)


def test_a_sound_recipe(write_recipe):
    recipe = load_recipe(write_recipe(SOUND))
    assert [stage.name for stage in stage_order(recipe)] == ["pretrain", "sft"]
    assert recipe.stages["sft"].from_ == "pretrain"
    assert recipe.stages["pretrain"].tokens == 1_500_000
    assert recipe.name == "recipe"  # of the file


def test_quantities(write_recipe):
    recipe = load_recipe(write_recipe(SOUND), ["pretrain.seq_len=4k", "pretrain.batch_tokens=8192", "pretrain.tokens=2B"])
    stage = recipe.stages["pretrain"]
    assert (stage.seq_len, stage.batch_tokens, stage.tokens) == (4096, 8192, 2_000_000_000)
    # 5.63 x 10^9 is no whole number in floating point.
    stage = load_recipe(write_recipe(SOUND), ["pretrain.tokens=5.63B"]).stages["pretrain"]
    assert stage.tokens == 5_630_000_000


def test_all_mistakes_come_at_once_with_file_line_and_a_suggestion(write_recipe):
    file = write_recipe(
        SOUND.replace("tokens = \"1.5M\"", 'tokens = "many"\nlearning_rate = 3e-4')
        .replace("heads = 4", "heads = 5")
        .replace("vocab_size = 1024", "vocab_sise = 1024")
    )  # fmt: skip
    message = errors(file)
    line = lines_of_keys(file.read_text())
    assert f"{file}:{line['pretrain', 'tokens']}: pretrain.tokens = 'many': expected a number of tokens" in message
    assert f"{file}:{line['pretrain', 'learning_rate']}: pretrain.learning_rate = 0.0003: unknown key" in message
    assert (
        f"{file}:{line['tokenizer', 'vocab_sise']}: tokenizer.vocab_sise = 1024: unknown key; did you mean 'vocab_size'?"
        in message
    )
    assert "heads = 5 does not divide hidden_size = 64" in message
    assert message.startswith("4 mistakes in the recipe")


OWN = '[corpus.sources.own]\npath = "."\n'


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (("heads = 4", "heads = 5"), "heads = 5 does not divide hidden_size = 64"),
        (("heads = 4", "heads = 4\nkv_heads = 3"), "kv_heads = 3 does not divide heads = 4"),
        (("mix = { code = 1.0 }", "mix = { code = 0.7 }"), "sum to 0.7; they must be positive and sum to 1"),
        (("mix = { code = 1.0 }", "mix = { cod = 1.0 }"), "'cod' is no source"),
        (("mix = { code = 1.0 }", "mix = { talk = 1.0 }"), "source 'talk' holds conversations, and [pretrain] trains on text"),
        (("batch_tokens = 256\nmix = { code", "batch_tokens = 200\nmix = { code"), "no multiple of seq_len = 64; nearest is 192"),
        (("[sft]\nepochs = 2", '[sft]\nepochs = 2\ntokens = "1M"'), "set either tokens or epochs, not both"),
        (("[sft]", '[sft]\nfrom = "midtrian"'), "from = 'midtrian': no such stage (there are: pretrain)"),
        (('path = "builtin:python-stdlib"', 'path = "no/such/folder"'), "path = 'no/such/folder': no such file or folder"),
        (("window = 32", "window = 32\nvocab_size = 512"), "vocab_size = 512 is less than the tokenizer's 1,024"),
        (("layers = 4\n", ""), "[model] lacks layers"),
        (("[pretrain]", "[pretrain]\nwarmup_steps = 99999"), "warmup_steps = 99999 is longer than the stage's 5859 steps"),
        (("[pretrain]", '[pretrain]\noptimizer = "muon"\nzero_stage = 2'), "Muon needs whole matrices"),
        (
            ("[tokenizer]", "[deepspeed]\ngradient_clipping = 1\n[tokenizer]"),
            "gradient_clipping is decided by a stage's own keys: max_grad",
        ),
        (
            ("[tokenizer]", "[deepspeed]\nzero_optimization = { stage = 3 }\n[tokenizer]"),
            "decided by a stage's own keys: zero_stage",
        ),
        (("[pretrain]", "[pretrain]\nactivation_checkpointing = -1"), "pretrain.activation_checkpointing"),
        (
            ("[tokenizer]", '[corpus.sources.far]\npath = "s3://a/b"\nkind = "tokens"\n[tokenizer]'),
            "copy them to a folder of this machine",
        ),
        (
            ("[tokenizer]", OWN + 'heldout = "."\n[tokenizer]'),
            'heldout is for conversations, and this source holds text; did you mean kind = "chat"?',
        ),
        (("[tokenizer]", OWN + 'shape = "messages"\n[tokenizer]'), "shape is for conversations, and this source holds text"),
        (
            ("[tokenizer]", OWN + 'fields = { prompt = "q" }\n[tokenizer]'),
            "fields is for conversations, and this source holds text",
        ),
        (
            ("[tokenizer]", OWN + 'kind = "chat"\nheldout = "no/such/file"\n[tokenizer]'),
            "heldout = 'no/such/file': no such file or folder",
        ),
        (
            ("[tokenizer]", OWN + 'kind = "chat"\nheldout = "builtin:python-errors"\n[tokenizer]'),
            "expected a file or folder of conversations",
        ),
        (
            ("[tokenizer]", OWN + 'kind = "chat"\nshape = "prompt"\nfields = { messages = "m" }\n[tokenizer]'),
            "rows of shape = 'prompt' have no messages; expected prompt, response",
        ),
        (("[tokenizer]", OWN + 'kind = "chat"\nfields = { question = "q" }\n[tokenizer]'), "corpus.sources.own.fields.question"),
        (("[tokenizer]", OWN + 'kind = "chat"\nshape = "sharegpt"\n[tokenizer]'), "corpus.sources.own.shape"),
        (("[pretrain]", "[pretrain]\nmicro_batch = 3"), "3 rows on 1 ranks do not divide the batch of 4 rows"),
        (("[pretrain]", "[pretrain]\nprocesses = 3"), "3 ranks do not divide the batch of 4 rows"),
        (
            ("seq_len = 64\nbatch_tokens = 256\nmix = { code", "seq_len = 0\nbatch_tokens = 256\nmix = { code"),
            "greater than or equal to 8",
        ),
        (("batch_tokens = 256\nmix = { code", "batch_tokens = 0\nmix = { code"), "pretrain.batch_tokens = 0"),
        (('tokens = "1.5M"', "tokens = inf"), "expected a number of tokens"),
        (("[pretrain]", "[pretrain]\nbetas = [0.9, 1.0]"), "pretrain.betas"),
        (("[tokenizer]", '[tokenizer]\npath = "no-such"'), "path = 'no-such': no such folder"),
        (("[sft]", '[stage.tokens]\nkind = "sft"'), "'tokens' is taken"),
        (("[sft]", '[stage."a/b"]\nkind = "sft"'), "should match pattern"),
        (
            ("[sft]", "[sft]\ncarry_optimizer = true\noptimizer = 'muon'"),
            "cannot take over the moments of [pretrain], which has 'adamw'",
        ),
    ],
)
def test_mistakes_across_tables(write_recipe, change, expected):
    assert change[0] in SOUND
    assert expected in errors(write_recipe(SOUND.replace(*change)))


def test_stage_that_is_no_table(write_recipe):
    assert "stage = 3: expected tables [stage.NAME]" in errors(write_recipe("stage = 3\n" + SOUND))


def test_a_factor_too_small_for_the_length_is_refused(write_recipe):
    text = SOUND + '[longctx]\ntokens = "1M"\nseq_len = 1024\nbatch_tokens = 1024\nmix = { code = 1.0 }\nrope = { factor = 8 }'
    assert "factor = 8 x 64 tokens reaches 512, and seq_len = 1,024 needs a factor of 16" in errors(write_recipe(text))


def test_questions_longer_than_any_context_of_the_recipe_are_refused(write_recipe):
    longctx = '[longctx]\ntokens = "1M"\nseq_len = 512\nbatch_tokens = 1024\nmix = { code = 1.0 }\n'
    asked = "[eval.long]\nlengths = [64, 512, '1k', '2k']\n"
    told = errors(write_recipe(SOUND + longctx + asked))
    line = (SOUND + longctx + asked).splitlines().index("lengths = [64, 512, '1k', '2k']") + 1
    assert f"recipe.toml:{line}: lengths = 1,024, 2,048: longer than the longest seq_len of the stages, 512 of [longctx]" in told
    assert load_recipe(write_recipe(SOUND + longctx + asked.replace(", '1k', '2k'", "")))
    # Without a long-context stage nothing is asked at these lengths.
    assert load_recipe(write_recipe(SOUND + asked))
    # The length of a stage that cannot be read is not known.
    assert "longer than" not in errors(write_recipe(SOUND.replace('"1.5M"', "inf") + longctx + asked))


def test_stages_in_a_circle_and_without_a_parent(write_recipe):
    table = '[stage.a]\nkind = "midtrain"\nfrom = "b"\ntokens = 256\nseq_len = 64\nbatch_tokens = 64\n'
    text = SOUND + table + "mix = { code = 1.0 }\n"
    text += text[text.index("[stage.a]") :].replace("stage.a", "stage.b").replace('from = "b"', 'from = "a"')
    assert "in a circle: a, b" in errors(write_recipe(text))


def test_syntax_errors_and_missing_files_name_the_place(write_recipe, tmp_path):
    assert "line 2" in errors(write_recipe("[pretrain]\ntokens = = 3"))
    assert "no such recipe" in errors(tmp_path / "missing.toml")


def test_extends_merges_tables_and_false_removes_a_stage(write_recipe, tmp_path):
    (tmp_path / "base.toml").write_text(SOUND)
    recipe = load_recipe(write_recipe('extends = "base.toml"\nsft = false\n[pretrain]\nlr = 1e-3\n'))
    assert list(recipe.stages) == ["pretrain"]
    assert recipe.stages["pretrain"].lr == 1e-3
    assert recipe.stages["pretrain"].tokens == 1_500_000
    (tmp_path / "base.toml").write_text('extends = "recipe.toml"')
    assert "in a circle" in errors(tmp_path / "recipe.toml")


def test_buckets_of_a_recipe_take_the_place_of_those_that_it_extends(write_recipe, tmp_path):
    long = '[longctx]\ntokens = 65536\nseq_len = "1k"\nbatch_tokens = 1024\nmix = { code = 1.0 }\nrope = { factor = 64 }\n'
    (tmp_path / "base.toml").write_text(SOUND + long + "buckets = { 64 = 1, 128 = 2 }\n")
    recipe = load_recipe(write_recipe('extends = "base.toml"\n[longctx.buckets]\n256 = 1\n1k = 3\n'))
    assert recipe.stages["longctx"].buckets == {256: 1.0, 1024: 3.0}
    assert recipe.stages["longctx"].rope.factor == 64


def test_overrides(write_recipe):
    file = write_recipe(SOUND)
    recipe = load_recipe(file, ["pretrain.lr=0.5", "model.tie_embeddings=true", "sft=false"])
    assert recipe.stages["pretrain"].lr == 0.5
    assert recipe.model.tie_embeddings
    assert "sft" not in recipe.stages
    assert "--set pretrain.lrr: pretrain.lrr = 1: unknown key; did you mean 'lr'?" in errors(file, "pretrain.lrr=1")
    assert "expected KEY=VALUE" in errors(file, "pretrain.lr")


def test_execution_keys_do_not_change_what_a_stage_is():
    def table(**keys):
        return identity(PretrainTable.model_validate({"name": "pretrain", "kind": "pretrain", "tokens": 1, **keys}))

    assert table() == table(micro_batch=4, zero_stage=3, checkpoint={"every_steps": 5}, compile=True)
    assert table() != table(lr=1.0)
    assert table() != table(tokens=2)


def test_lines_of_keys():
    text = '# [no]\na = 1\n[t]\n"b.c" = "x = 1 ["\nd = [\n  1, # e = 2\n]\ne.f = { g = 1, h = 2 }\n'
    text += '[stage.x]\nk = """\n[not]\n"""\nlast = 1\n'
    found = lines_of_keys(text)
    assert found[("a",)] == 2
    assert found[("t",)] == 3
    assert found[("t", "b.c")] == 4
    assert found[("t", "d")] == 5
    assert found[("t", "e", "f", "h")] == 8
    assert found[("stage", "x", "last")] == 13
    assert ("not",) not in found


def test_a_gguf_file_without_the_package_that_reads_it_is_a_mistake_of_the_recipe(write_recipe, tmp_path, monkeypatch):
    (tmp_path / "model.gguf").touch()
    monkeypatch.setitem(sys.modules, "gguf", None)
    file = write_recipe(SOUND.replace("[sft]\n", f'[sft]\nfrom = "{tmp_path / "model.gguf"}"\n'))
    assert "pip install gguf" in errors(file)


def test_a_mix_may_be_given_in_tokens(tmp_path):
    text = """
        [corpus.sources.a]
        path = "builtin:python-stdlib"
        [corpus.sources.b]
        path = "builtin:python-packages"
        [tokenizer]
        [model]
        hidden_size = 32
        layers = 4
        heads = 2
        ffn_size = 64
        window = 16
        [pretrain]
        seq_len = 64
        batch_tokens = 256
        max_repetition = {{ a = 2.5 }}
        mix = {{ a = "3M", b = {b} }}
    """
    file = tmp_path / "own.toml"
    file.write_text(text.format(b='"1M"'))
    stage = load_recipe(file).stages["pretrain"]
    assert (stage.tokens, stage.mix) == (4_000_000, {"a": 0.75, "b": 0.25})
    assert (stage.most_repetitions("a"), stage.most_repetitions("b")) == (2.5, 8.0)
    assert load_recipe(file, ["pretrain.tokens=1M"]).stages["pretrain"].tokens == 1_000_000
    assert restore_recipe(dump_recipe(load_recipe(file))) == load_recipe(file)
    file.write_text(text.format(b='"much"'))
    with pytest.raises(RecipeError, match="expected a share for every source, or tokens for every source"):
        load_recipe(file)


def test_mistakes_of_classifiers_are_told(write_recipe):
    file = write_recipe("""
        [corpus.sources.web]
        path = "builtin:python-stdlib"
        upsample = { classifier = "topic", size = "1MB" }
        [corpus.classifiers.topic]
        labels = { a = ["web"], b = ["nowhere"] }
        drop_lowest = 0.1
        [corpus.classifiers.quality]
        labels = { a = ["web"], b = ["web"] }
        target = "c"
        sources = ["other"]
    """)
    message = errors(file)
    assert "b: 'nowhere' is no text source (web), no file and no folder" in message
    assert "drop_lowest needs a target" in message
    assert "target = 'c' is no label; there are a, b" in message
    assert "'other' is no text source; there are web" in message
    assert "classifier = 'topic' gives 'web' no score; classifiers with a target are: quality" in message
