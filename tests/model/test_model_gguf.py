"""GGUF files: llama.cpp splits text as the tokenizer does, and answers with the model's own tokens."""

from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("gguf", reason="GGUF files are written by the package gguf")
pytest.importorskip("xllamacpp", reason="llama.cpp comes with the package xllamacpp")

from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM, Qwen3Config, Qwen3ForCausalLM

from llmctl.errors import UserError
from llmctl.model.build import ModelShape, build_model
from llmctl.model.gguf.check import ODD_TEXTS, Agreement, LlamaCpp, compare, compare_texts, continuation
from llmctl.model.gguf.write import About, Export
from llmctl.model.load import load_model, save_model
from llmctl.model.rope import RopeScaling, extend_context
from llmctl.recipe.gguf_header import read_header
from llmctl.tokens.tokenizer import load_tokenizer

WINDOW, ORIGINAL, LONG = 32, 128, 512
SHAPE: dict[str, Any] = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
                         "num_key_value_heads": 2, "max_position_embeddings": LONG, "tie_word_embeddings": True}  # fmt: skip
LLAMA3 = {"rope_type": "llama3", "rope_theta": 1e4, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": ORIGINAL}  # fmt: skip
YARN = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": ORIGINAL}


def sharp(model: Any) -> Any:
    """Weights large enough for logits that no rounding turns over, and norms that are not all one."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0, parameter.shape[1] ** -0.5, generator=generator)
            else:
                parameter.uniform_(0.5, 1.5, generator=generator)
    return model.eval()


def llama(rows: int, **changes: Any) -> Any:
    return sharp(LlamaForCausalLM(LlamaConfig(vocab_size=rows, **SHAPE | changes)))


def olmo(rows: int, depth: int = 4, **scaling: Any) -> Any:
    shape = ModelShape(64, depth, 4, 2, 16, 96, WINDOW, rows, ORIGINAL if scaling else LONG, tie_embeddings=False)
    model = sharp(build_model(shape, 1))
    if scaling:
        extend_context(model, RopeScaling(factor=4.0, original_length=ORIGINAL, **scaling), LONG)
    return model


MODELS = {
    "llama": lambda rows: llama(rows),
    "llama, heads of their own size": lambda rows: llama(rows, head_dim=32, tie_word_embeddings=False),
    "llama, biases": lambda rows: llama(rows, attention_bias=True),
    "llama, llama3": lambda rows: llama(rows, rope_parameters=LLAMA3),
    "llama, linear": lambda rows: llama(rows, rope_parameters={"rope_type": "linear", "rope_theta": 1e4, "factor": 4.0}),
    "llama, yarn": lambda rows: llama(rows, rope_parameters=YARN),
    "olmo3": lambda rows: olmo(rows),
    "olmo3, yarn": lambda rows: olmo(rows, method="yarn", yarn_attention_factor=1.3),
    "olmo3, base": lambda rows: based(rows),
    "qwen2": lambda rows: sharp(Qwen2ForCausalLM(Qwen2Config(vocab_size=rows, **SHAPE))),
    "qwen3": lambda rows: sharp(Qwen3ForCausalLM(Qwen3Config(vocab_size=rows, head_dim=32, **SHAPE))),
}


def based(rows: int) -> Any:
    model = olmo(rows)
    extend_context(model, RopeScaling("base", 4.0, ORIGINAL, layers="all", theta=2e6), LONG)
    return model


@pytest.fixture
def exported(tmp_path, tokenizer):
    """A model's folder and its GGUF file of a type."""

    def export(model: Any, kind: Any = "f32") -> Path:
        save_model(model, tokenizer, tmp_path / "model")
        Export(tmp_path / "model").write(tmp_path / f"{kind}.gguf", kind, About("tiny", author="me", lineage={"run": "r1"}))
        return tmp_path / f"{kind}.gguf"

    return export


@pytest.mark.parametrize("name", MODELS)
def test_llama_cpp_answers_with_the_same_tokens(exported, tokenizer, name):
    """Prompts are longer than the window, and than the context before its extension."""
    model = MODELS[name](len(tokenizer) + 5)  # rows that no token has
    found = compare(model, tokenizer, exported(model))
    assert found.longest > ORIGINAL
    assert found.split_wrong is None
    assert found.next_tokens > 64
    assert found.right("f32")
    assert len(found.gaps) <= 1, found.gaps  # a tie, of less than a thousandth of a nat


@pytest.mark.parametrize(("kind", "share"), [("f16", 0.99), ("bf16", 0.95), ("q8_0", 0.9)])
@pytest.mark.parametrize("name", ["llama", "olmo3, yarn"])
def test_smaller_types_answer_nearly_alike(exported, tokenizer, name, kind, share):
    model = MODELS[name](len(tokenizer))
    found = compare(model, tokenizer, exported(model, kind))
    assert found.equal >= share * found.next_tokens, str(found)


def test_a_continuation_of_a_long_prompt_runs_on_alike(exported, tokenizer):
    model = MODELS["olmo3, yarn"](len(tokenizer))
    prompt = torch.randint(300, 500, (300,), generator=torch.Generator().manual_seed(1)).tolist()
    tokens, _ = continuation(model, prompt, ending=set())
    assert len(set(tokens)) > 8  # no loop of a few tokens
    assert LlamaCpp(exported(model), 400).greedy(prompt, len(tokens)) == tokens


def test_a_file_that_is_wrong_is_seen(exported, tokenizer):
    """The comparison can fail: a window that is left out, and a split that is another tokenizer's."""
    model = MODELS["olmo3"](len(tokenizer))
    file = exported(model)
    model.config.sliding_window = 8
    for layer in model.model.layers:
        layer.self_attn.sliding_window = 8
    found = compare(model, tokenizer, file)
    assert found.gaps
    assert not found.right("f32")
    wrong = Agreement()
    plain = load_tokenizer(str(file.parent / "model"))
    plain.backend_tokenizer.pre_tokenizer = type(plain.backend_tokenizer.pre_tokenizer)([])
    compare_texts(LlamaCpp(file, 64), plain, wrong)
    assert wrong.split_wrong is not None


def test_the_file_says_what_it_is(exported, tokenizer):
    file = exported(MODELS["olmo3, yarn"](len(tokenizer) + 5), "q8_0")
    keys, tensors = read_header(file)
    assert keys["general.file_type"] == 7
    assert (keys["general.name"], keys["general.author"], keys["llmctl.run"]) == ("tiny", "me", "r1")
    assert keys["olmo2.context_length"] == LONG
    assert keys["olmo2.attention.sliding_window"] == WINDOW
    assert keys["tokenizer.ggml.eos_token_id"] == tokenizer.eos_token_id
    assert keys["tokenizer.chat_template"] == tokenizer.chat_template
    assert "blk.3.post_ffw_norm.weight" in tensors


@pytest.mark.parametrize("changes", [{}, {"tie_word_embeddings": False}, {"head_dim": 32}])
def test_our_file_comes_back_as_the_same_model(exported, tokenizer, changes):
    model = llama(len(tokenizer), **changes)
    file = exported(model)
    again = load_model(str(file))
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(again.state_dict()[name], tensor, rtol=0, atol=0)
    back = load_tokenizer(str(file))
    for text in ODD_TEXTS:
        assert back(text)["input_ids"] == tokenizer(text)["input_ids"]


@pytest.mark.parametrize(
    ("name", "words"),
    [("olmo3", "sliding window"), ("llama, llama3", "positions are scaled"), ("llama, linear", "positions are scaled")],
)
def test_what_transformers_would_read_wrongly_is_no_parent(exported, tokenizer, name, words):
    file = exported(MODELS[name](len(tokenizer)))
    with pytest.raises(UserError, match=words):
        load_model(str(file))


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda rows: olmo(rows, depth=6), "layer 5 is full_attention"),
        (lambda rows: olmo(rows, method="ntk"), "rope_theta = .* on full layers"),
        (lambda rows: olmo(rows, method="yarn", layers="all"), "yarn on sliding layers"),
        (lambda rows: olmo(rows, method="llama3"), "llama3, which"),
        (lambda rows: llama(rows, hidden_act="gelu"), "activation is gelu"),
    ],
)
def test_what_llama_cpp_cannot_compute_is_refused(exported, tokenizer, build, words):
    with pytest.raises(UserError, match=words):
        exported(build(len(tokenizer)))


def test_another_architecture_is_refused_by_name(exported, tokenizer):
    from transformers import GPT2Config, GPT2LMHeadModel

    with pytest.raises(UserError, match=r"a gpt2 model cannot be exported.*llama, olmo2, olmo3, qwen2, qwen3"):
        exported(GPT2LMHeadModel(GPT2Config(vocab_size=len(tokenizer), n_embd=32, n_layer=1, n_head=2)))


def splits() -> dict[str, tuple[str, Any]]:
    from tokenizers import Regex, pre_tokenizers

    from llmctl.model.gguf.vocabulary import BY_DIGIT, QWEN_35

    def by(pattern: str) -> Any:
        split = pre_tokenizers.Split(Regex(pattern), behavior="isolated")
        return pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])

    plain = pre_tokenizers.ByteLevel(add_prefix_space=False)
    digits = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), plain])
    return {"gpt-2": ("gpt-2", plain), "smollm": ("smollm", digits), "qwen2": ("qwen2", by(BY_DIGIT)),
            "qwen35": ("qwen35", by(QWEN_35))}  # fmt: skip


@pytest.mark.parametrize("name", ["gpt-2", "smollm", "qwen2", "qwen35"])
def test_splits_of_other_tokenizers_are_named_right(tmp_path, tokenizer_folder, name):
    named, split = splits()[name]
    other = load_tokenizer(str(tokenizer_folder))
    other.backend_tokenizer.pre_tokenizer = split
    save_model(llama(len(other)), other, tmp_path / "model")
    export = Export(tmp_path / "model")
    assert export.vocabulary.pre == named
    export.write(tmp_path / "model.gguf", "f32", About("tiny"))
    found = Agreement()
    compare_texts(LlamaCpp(tmp_path / "model.gguf", 64), other, found)
    assert found.split_wrong is None
    back = load_tokenizer(str(tmp_path / "model.gguf"))
    for text in ODD_TEXTS:
        assert back(text)["input_ids"] == other(text)["input_ids"]


def test_a_split_that_is_not_known_is_refused(tmp_path, tokenizer_folder):
    from tokenizers import pre_tokenizers

    other = load_tokenizer(str(tokenizer_folder))
    other.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Punctuation(), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    save_model(llama(len(other)), other, tmp_path / "model")
    with pytest.raises(UserError, match="splits text in a way that is none of those"):
        Export(tmp_path / "model")


def test_a_beginning_token_is_added_as_the_tokenizer_does(tmp_path, tokenizer_folder):
    from tokenizers.processors import TemplateProcessing

    other = load_tokenizer(str(tokenizer_folder))
    other.bos_token = "<|im_start|>"
    start = other.bos_token_id
    other.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|im_start|> $A", special_tokens=[("<|im_start|>", start)]
    )
    other.add_tokens(["<think>"])
    save_model(llama(len(other)), other, tmp_path / "model")
    export = Export(tmp_path / "model")
    export.write(tmp_path / "model.gguf", "f32", About("tiny"))
    assert LlamaCpp(tmp_path / "model.gguf", 64).tokens_of("a <think> b") == export.tokenizer("a <think> b")["input_ids"]
    assert export.tokenizer("a")["input_ids"][0] == start
