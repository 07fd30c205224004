"""Models from files of other tools, and from strangers."""

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from gguf.quants import dequantize, quantize
from helpers import run_llmctl

from llmctl.errors import UserError
from llmctl.model.load import load_model, save_model
from llmctl.tokens.template import render
from llmctl.tokens.tokenizer import load_tokenizer

HIDDEN, FFN, HEADS, LAYERS = 32, 64, 2, 1
Q8 = gguf.GGMLQuantizationType.Q8_0


def write_gguf(file: Path, tokenizer: Path, template: str | None = None) -> dict[str, np.ndarray]:
    """A Qwen 2 of one layer in 8-bit blocks; returns its weights as they read."""
    vocabulary = json.loads((tokenizer / "tokenizer.json").read_text())["model"]
    tokens = sorted(vocabulary["vocab"], key=vocabulary["vocab"].__getitem__)
    writer = gguf.GGUFWriter(file, "qwen2")
    writer.add_context_length(64)
    writer.add_block_count(LAYERS)
    writer.add_embedding_length(HIDDEN)
    writer.add_feed_forward_length(FFN)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokens)
    writer.add_token_merges([" ".join(pair) for pair in vocabulary["merges"]])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(0)
    if template is not None:
        writer.add_chat_template(template)
    shapes = {"token_embd": (len(tokens), HIDDEN), "output": (len(tokens), HIDDEN), "output_norm": (HIDDEN,)}
    for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
        shapes[f"blk.0.{name}"] = (HIDDEN, HIDDEN)
    shapes |= {"blk.0.ffn_gate": (FFN, HIDDEN), "blk.0.ffn_up": (FFN, HIDDEN), "blk.0.ffn_down": (HIDDEN, FFN)}
    shapes |= {"blk.0.attn_norm": (HIDDEN,), "blk.0.ffn_norm": (HIDDEN,)}
    generator, weights = np.random.default_rng(0), {}
    for name, shape in shapes.items():
        values = generator.normal(0, 0.1, shape).astype(np.float32)
        if len(shape) == 2:
            blocks = quantize(values, Q8)
            writer.add_tensor(f"{name}.weight", blocks, raw_dtype=Q8)
            values = dequantize(blocks, Q8)
        else:
            writer.add_tensor(f"{name}.weight", values)
        weights[name] = values
    for name in ("attn_q", "attn_k", "attn_v"):
        writer.add_tensor(f"blk.0.{name}.bias", np.zeros(HIDDEN, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return weights


def test_a_quantised_gguf_is_read_whole_and_saved_plain(tmp_path, tokenizer_folder, tokenizer, capfd):
    weights = write_gguf(tmp_path / "tiny.gguf", tokenizer_folder)
    model = load_model(str(tmp_path / "tiny.gguf"))
    layer = model.model.layers[0]
    assert layer.self_attn.q_proj.weight.requires_grad
    for read, name in (
        (layer.self_attn.q_proj, "blk.0.attn_q"),
        (layer.mlp.down_proj, "blk.0.ffn_down"),
        (model.lm_head, "output"),
    ):
        np.testing.assert_allclose(read.weight.detach().numpy(), weights[name], atol=1e-6)
    save_model(model, tokenizer, tmp_path / "saved")
    assert "quantization_config" not in json.loads((tmp_path / "saved" / "config.json").read_text())
    again = load_model(str(tmp_path / "saved"))
    ids = torch.arange(12)[None]
    torch.testing.assert_close(again(ids).logits, model(ids).logits)
    assert capfd.readouterr().err == ""  # no bar of another tool tears the panel


def test_a_gguf_brings_its_tokenizer(tmp_path, tokenizer_folder, tokenizer):
    write_gguf(tmp_path / "tiny.gguf", tokenizer_folder)
    text = "def f(x):\n    return x"
    read = load_tokenizer(str(tmp_path / "tiny.gguf"))
    assert read.decode(read(text, add_special_tokens=False)["input_ids"]) == text


class Bomb:
    """Unpickled, it writes a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (str(self.marker), "w")


@pytest.fixture
def marker(tmp_path) -> Path:
    """A file that is there once code of the stranger has run."""
    return tmp_path / "marker"


@pytest.fixture
def stranger(tmp_path, tokenizer, marker) -> Path:
    """A sound model, with code beside it that nothing asks for."""
    from transformers import Qwen3Config, Qwen3ForCausalLM

    folder = tmp_path / "stranger"
    shape: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "head_dim": 16}
    Qwen3ForCausalLM(Qwen3Config(**shape, num_attention_heads=2, num_key_value_heads=1, vocab_size=512)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    code = f"open({str(marker)!r}, 'w')\nfrom transformers import *\nclass Own(Qwen3ForCausalLM): pass\n"
    (folder / "own.py").write_text(
        code + "class OwnConfig(Qwen3Config): pass\nclass OwnTokenizer(PreTrainedTokenizerFast): pass\n"
    )
    (folder / "custom_generate").mkdir()
    (folder / "custom_generate" / "generate.py").write_text(code)
    for name in ("pytorch_model.bin", "adapter_model.bin"):
        (folder / name).write_bytes(pickle.dumps(Bomb(marker)))
    return folder


def rewrite(file: Path, **changes: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


OWN_CLASSES = {"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.Own"}
ADAPTER = {"peft_type": "LORA", "r": 2, "target_modules": ["q_proj"], "base_model_name_or_path": "some/base"}
REFUSED: dict[str, tuple[Callable[[Path], Any], str]] = {
    "weights in a pickle": (
        lambda folder: (folder / "model.safetensors").unlink(),
        "reads weights from safetensors alone; where you trust the file, convert it",
    ),
    "a pickle by name": (
        lambda folder: rewrite(folder / "config.json", transformers_weights="adapter_model.bin"),
        "its config.json names adapter_model.bin as its weights",
    ),
    "an adapter in a pickle": (
        lambda folder: (folder / "adapter_config.json").write_text(json.dumps(ADAPTER)),
        "it holds an adapter (adapter_config.json)",
    ),
    "code for a kind that is known": (
        lambda folder: rewrite(folder / "config.json", auto_map=OWN_CLASSES),
        "its config.json asks for Python code that comes with the checkpoint (auto_map), and llmctl runs no code of a checkpoint",
    ),
    "code for a kind of its own": (
        lambda folder: rewrite(folder / "config.json", auto_map=OWN_CLASSES, model_type="own"),
        "its config.json asks for Python code",
    ),
}


def test_a_sound_model_is_loaded_and_nothing_beside_it_is_run(stranger, marker):
    """Kernels of the hub are code, too: which attention computes is llmctl's choice."""
    rewrite(stranger / "config.json", attn_implementation="some/kernel", experts_implementation="some/kernel")
    assert load_model(str(stranger)).config._attn_implementation == "sdpa"
    assert load_tokenizer(str(stranger)).is_fast
    assert not marker.exists()


@pytest.mark.parametrize("how", REFUSED)
def test_code_and_pickles_of_a_stranger_are_refused(stranger, marker, how):
    change, message = REFUSED[how]
    change(stranger)
    with pytest.raises(UserError) as told:
        load_model(str(stranger))
    assert str(told.value).startswith(f"{stranger}: ")
    assert message in str(told.value)
    assert not marker.exists()


@pytest.mark.parametrize("classes", [["own.OwnTokenizer", None], [None, "own.OwnTokenizer"]])
def test_code_of_a_strangers_tokenizer_is_refused(stranger, marker, classes):
    rewrite(stranger / "tokenizer_config.json", auto_map={"AutoTokenizer": classes}, tokenizer_class="OwnTokenizer")
    with pytest.raises(UserError, match=r"its tokenizer_config\.json asks for Python code"):
        load_tokenizer(str(stranger))
    assert not marker.exists()


@pytest.mark.parametrize("how", REFUSED)
def test_a_recipe_that_starts_from_it_is_refused_before_any_work(stranger, marker, how, write_recipe, tmp_path):
    change, message = REFUSED[how]
    change(stranger)
    (tmp_path / "talk.jsonl").write_text(
        '{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}\n'
    )
    table = "tokens = 1024\nseq_len = 64\nbatch_tokens = 128\nmix = { talk = 1.0 }\n"
    source = f'[corpus.sources.talk]\npath = "{tmp_path / "talk.jsonl"}"\nkind = "chat"\n'
    recipe = write_recipe(f'{source}[sft]\nfrom = "{stranger}"\n{table}')
    result = run_llmctl("run", recipe, "--runs", tmp_path / "runs")
    assert result.returncode == 2
    assert f"{recipe}:5: from = '{stranger}': " in result.stderr
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert not marker.exists()
    assert not (tmp_path / "runs").exists()


def test_what_lies_beside_a_gguf_is_not_run_either(stranger, marker, tokenizer_folder, tmp_path):
    file = stranger / "tiny.gguf"
    write_gguf(file, tokenizer_folder, "{{ cycler.__init__.__globals__.os.mkdir('" + str(marker) + "') }}")
    (stranger / "model.safetensors").unlink()
    rewrite(stranger / "config.json", auto_map=OWN_CLASSES)
    alone = shutil.copy(file, tmp_path / "alone.gguf")
    for place in (file, alone):  # all that it needs is in the file itself
        assert load_model(str(place)).config.model_type == "qwen2"
        with pytest.raises(UserError, match="tries to reach Python itself and was stopped"):
            render(load_tokenizer(str(place)), [{"role": "user", "content": "a"}])
    (stranger / "adapter_config.json").write_text(json.dumps(ADAPTER))
    with pytest.raises(UserError, match="it holds an adapter"):
        load_model(str(file))
    rewrite(stranger / "tokenizer_config.json", auto_map={"AutoTokenizer": ["own.OwnTokenizer", None]})
    with pytest.raises(UserError, match="asks for Python code"):
        load_tokenizer(str(file))
    assert not marker.exists()
