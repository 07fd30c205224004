"""Models from files of other tools."""

import json
from pathlib import Path

import gguf
import numpy as np
import torch
from gguf.quants import dequantize, quantize

from llmctl.model.load import load_model, save_model
from llmctl.tokens.tokenizer import load_tokenizer

HIDDEN, FFN, HEADS, LAYERS = 32, 64, 2, 1
Q8 = gguf.GGMLQuantizationType.Q8_0


def write_gguf(file: Path, tokenizer: Path) -> dict[str, np.ndarray]:
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
