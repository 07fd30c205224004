"""From a recipe to a job of random rows, for every kind of stage and every origin of its weights."""

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from llmctl.errors import UserError
from llmctl.recipe.graph import training_stage
from llmctl.recipe.load import load_recipe
from llmctl.stages.bench import job_of_random_rows, write_random_shards
from llmctl.tokens.shards import TokenShards
from llmctl.train.data import TrainingRows
from llmctl.train.job import TrainJob
from llmctl.train.run import assemble_model

RECIPE = """
[corpus.sources.code]
path = "/no/corpus/here"
[tokenizer]
vocab_size = 500
[model]
hidden_size = 32
layers = 4
heads = 2
ffn_size = 64
window = 32
[pretrain]
tokens = 5120
seq_len = 64
batch_tokens = 256
mix = { code = 1.0 }
[longctx]
tokens = 5120
seq_len = 512
batch_tokens = 1024
long_share = 0.5
mix = { code = 1.0 }
[lora]
tokens = 5120
seq_len = 256
batch_tokens = 1024
rank = 4
mix = { talk = 1.0 }
"""


@pytest.fixture
def job_of(write_recipe, tmp_path):
    def make(stage: str | None, *overrides: str, text: str = RECIPE) -> TrainJob:
        recipe = load_recipe(write_recipe(text), overrides, corpus=False)
        folder = Path(tempfile.mkdtemp(dir=tmp_path))
        return job_of_random_rows(recipe, training_stage(recipe, stage), 4, 1, folder)

    return make


def test_the_first_stage_that_trains_on_rows_that_end_nowhere(job_of):
    job = job_of(None)
    assert job.stage == "pretrain"
    assert job.shape["vocab_size"] == 512  # padded to a multiple of 128
    rows = TrainingRows(job)
    batch = next(rows.micro_batches(0, 4, 0, 1))
    assert batch.lengths == (64,) * 4
    assert len(batch.tokens.unique()) > 150
    assert batch.tokens.max() < 512


def test_document_boundaries_are_those_of_the_stage(job_of):
    rows = TrainingRows(job_of("pretrain", "pretrain.document_boundaries=true"))
    lengths = [length for source, row in rows.of_step(0) for length in rows.sources[source].row(row).lengths]
    assert len(lengths) > 4
    assert sum(lengths) == 256


def test_longctx_has_long_documents_in_its_share_and_scaled_positions(job_of):
    job = job_of("longctx")
    assert [(part.share, part.packing, part.label) for part in job.parts] == [(0.5, "best_fit", "long"), (0.5, "best_fit", "")]
    long, every = TrainingRows(job).sources
    assert long.documents < every.documents
    assert min(length for row in range(len(long)) for _, _, length in long.pieces(row)) >= 64  # an eighth of a row
    assert (job.shape["max_length"], job.rope["original_length"], job.rope["method"]) == (64, 64, "yarn")
    model: Any = assemble_model(job)
    assert model.config.max_position_embeddings == 512
    assert model.config.rope_parameters["full_attention"]["rope_type"] == "yarn"
    TrainingRows(job)


def test_lora_adds_its_adapter_to_the_shape_of_its_line(job_of):
    job = job_of("lora")
    assert job.shape["max_length"] == 512  # the context that longctx left
    model = assemble_model(job)
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert trained
    assert all("lora_" in name for name in trained)


SMALL = ("sft.seq_len=64", "sft.batch_tokens=256", "sft.tokens=1024")


def test_added_tokens_are_embedded_and_trained(job_of):
    text = RECIPE.replace("[lora]", '[sft]\nmix = { talk = 1.0 }\nadd_tokens = ["<|a|>", "<|b|>"]\n[lora]').replace(
        "rank = 4", 'rank = 4\nadd_tokens = ["<|b|>", "<|c|>"]'
    )
    sft, lora = (job_of(stage, *SMALL, text=text) for stage in ("sft", "lora"))
    assert (sft.vocabulary, lora.vocabulary) == (512, 512)  # 500 and what is added fit into the rows there are
    assert lora.lora["added_tokens"] == 1
    trained = {
        name.split(".")[-2] for name, p in assemble_model(lora).named_parameters() if p.requires_grad and "lora" not in name
    }
    assert trained == {"embed_tokens", "lm_head"}
    more = job_of("lora", "model.vocab_size=512", "lora.from=pretrain", *SMALL, text=text)
    assert (more.vocabulary, more.lora["added_tokens"]) == (514, 2)
    model: Any = assemble_model(more)
    assert model.get_input_embeddings().weight.shape[0] == 640


def test_a_model_from_outside_is_made_anew_from_its_config_alone(job_of, tmp_path):
    folder = tmp_path / "outside"
    folder.mkdir()
    config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 32, "intermediate_size": 64,
              "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": 300, "max_position_embeddings": 128}  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    text = RECIPE[: RECIPE.index("[model]")].replace("[tokenizer]\nvocab_size = 500\n", "") + RECIPE[RECIPE.index("[longctx]") :]
    job = job_of("longctx", f"longctx.from={folder}", "longctx.seq_len=512", text=text)
    assert (job.shape, job.parent, job.shape_of) == (None, None, str(folder))
    assert job.rope["original_length"] == 128
    model = assemble_model(job)
    assert model.config.model_type == "llama"
    assert model.config.max_position_embeddings == 512
    assert next(model.parameters()).dtype == torch.float32
    batch = next(TrainingRows(job).micro_batches(0, 2, 0, 1))
    assert batch.tokens.max() < 300
    assert job_of("lora", f"longctx.from={folder}", text=text).shape_of == str(folder)


def test_an_average_is_of_the_shape_of_its_first(job_of):
    text = RECIPE + '[stage.mean]\nkind = "average"\nof = ["pretrain"]\n'
    job = job_of("lora", "lora.from=mean", text=text)
    assert job.shape["max_length"] == 64


def test_a_vocabulary_that_is_nowhere_is_asked_for(job_of):
    text = RECIPE.replace("vocab_size = 500", 'path = "somebody/tokenizer"')
    with pytest.raises(UserError, match=r"--set model\.vocab_size=N"):
        job_of(None, text=text)
    assert job_of(None, "model.vocab_size=1000", text=text).shape["vocab_size"] == 1000


def test_a_tokenizer_of_this_machine_tells_its_vocabulary(job_of, tokenizer_folder, tokenizer):
    text = RECIPE.replace("vocab_size = 500", f'path = "{tokenizer_folder}"')
    assert job_of(None, text=text).shape["vocab_size"] == -(-len(tokenizer) // 128) * 128


def test_a_shape_that_the_hub_does_not_give_is_told(job_of):
    text = RECIPE.replace("vocab_size = 500", 'path = "somebody/tokenizer"')
    with pytest.raises(UserError, match=r"config\.json alone will do"):
        job_of("lora", "lora.from=somebody/model", text=text)


def test_the_same_shards_each_time_with_a_long_tail(tmp_path):
    lengths = write_random_shards(tmp_path / "one", 70_000, 2_000_000, 8192)
    again = write_random_shards(tmp_path / "other", 70_000, 2_000_000, 8192)
    assert np.array_equal(lengths, again)
    shards = TokenShards(tmp_path / "one")
    assert np.array_equal(shards.stream[0:1000], TokenShards(tmp_path / "other").stream[0:1000])
    assert 2_000_000 <= shards.tokens < 2_000_000 + 8192
    assert shards.kind == np.uint32
    assert shards.stream[0 : shards.tokens].max() > 2**16
    assert 350 < np.median(lengths) < 450
    assert lengths.max() == 8192  # cut there
    assert 0.15 < lengths[lengths == 8192].sum() / lengths.sum() < 0.25
