"""Kernels that a recipe asks for: the same training with them as without, and what cannot run is said."""

from typing import Any

import pytest
import torch
from engines import SHAPE, rows_of_step, table

from llmctl import events
from llmctl.model.build import build_model
from llmctl.model.lora import AdapterSettings, add_adapter
from llmctl.model.lora_linear import quicken
from llmctl.tokens.batch import Batch, collate, of_sequences
from llmctl.train.fused import kernels_of
from llmctl.train.objective import CausalObjective
from llmctl.train.prepare import layers_of, prepare_for_training
from llmctl_kernels import runtime
from llmctl_kernels.choice import usable
from llmctl_kernels.names import KERNELS


@pytest.fixture
def said(monkeypatch) -> list[str]:
    """What the stage tells."""
    lines: list[str] = []
    monkeypatch.setattr(events, "say", lines.append)
    monkeypatch.setattr(events, "warn", lines.append)
    return lines


def trained(device, kernels: Any, adapter: bool = False, **keys: Any) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Loss and gradients of one batch."""
    options = table(kernels=kernels, **keys)
    model = build_model(SHAPE, seed=3)
    names = kernels_of(options, device.type)
    if adapter:
        model = add_adapter(model, AdapterSettings(rank=4, alpha=8.0), seed=1)
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.1, generator=torch.Generator().manual_seed(1))
        quicken(model, AdapterSettings(rank=4, alpha=8.0), options.zero_stage, False, False, "lora_linear" in names)
    prepared = prepare_for_training(model.to(device), options, names)
    total, z_total = CausalObjective(prepared, 1e-2, False, device.type)(collate(rows_of_step(0)[:2]).to(device))
    total.backward()
    return torch.stack([total.detach(), z_total]), {n: p.grad for n, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize(
    ("kernels", "keys"),
    [([name], {}) for name in KERNELS] + [(list(KERNELS), {"activation_checkpointing": True}), (["swiglu"], {"tiled_mlp": True})],
    ids=[*KERNELS, "all, computed again", "swiglu in tiles"],
)
def test_loss_and_gradients_are_those_of_torch(device, said, kernels, keys):
    adapter = "lora_linear" in kernels
    expected, gradients = trained(device, "torch", adapter, **keys)
    found, theirs = trained(device, kernels, adapter, **keys)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-4)
    assert theirs.keys() == gradients.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(theirs[name], gradient, rtol=1e-3, atol=1e-4, msg=name)
    assert not any("left out" in line for line in said)


def test_what_computes_attention_and_loss_is_said(device, said):
    trained(device, ["packed_attention", "linear_cross_entropy", "swiglu"])
    assert said == ["attention by our Triton kernel; cross entropy in chunks, by our Triton kernel; fused: swiglu"]


def test_one_compiled_graph_serves_batches_of_other_documents(device, said):
    """Boundaries have one length, and the longest document is a power of two: no kernel call is compiled anew."""
    compiled = 0

    def count(graph, inputs):
        nonlocal compiled
        compiled += 1
        return graph.forward

    model = prepare_for_training(
        build_model(SHAPE, seed=3).to(device), table(kernels=["packed_attention"]), ("packed_attention",)
    )
    for layer in layers_of(model):
        layer.forward = torch.compile(layer.forward, backend=count, fullgraph=True)
    objective = CausalObjective(model, 0.0, False, device.type)

    def loss(lengths: list[int]) -> torch.Tensor:
        return objective(of_lengths(lengths).to(device))[0]

    torch._dynamo.reset()
    loss([20, 12])
    first = compiled
    for lengths in ([17, 15], [32], [1, 30, 1], [2] * 7 + [18]):
        loss(lengths)
    assert compiled == first == len(layers_of(model))


def of_lengths(lengths: list[int]) -> Batch:
    return of_sequences([[(7 * at) % 64 for at in range(length)] for length in lengths])


def test_weights_that_zero_stage_3_shares_out_are_not_read(device, said):
    assert kernels_of(table(kernels=["qk_norm_rope", "lora_linear", "swiglu"], zero_stage=3), device.type) == ("swiglu",)
    assert said == ["kernels: qk_norm_rope, lora_linear cannot read weights that ZeRO stage 3 has shared out: left out"]


def test_blocks_that_are_not_known_stay_and_it_is_said(device, said):
    from transformers import AutoModelForCausalLM, Gemma3TextConfig

    config = Gemma3TextConfig(vocab_size=64, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
                              num_key_value_heads=1, head_dim=8)  # fmt: skip
    names = ("qk_norm_rope", "rms_norm", "swiglu")
    prepare_for_training(AutoModelForCausalLM.from_config(config).to(device), table(kernels=list(names)), names)
    assert sum("left out" in line for line in said) == 3
    assert said[-1].startswith("attention by torch") or device.type == "cuda"


def test_auto_uses_none_of_ours_on_a_cpu_and_says_nothing():
    assert usable("auto", "cpu") == ((), None)
    assert usable("torch", "cuda") == ((), None)


@pytest.mark.parametrize("setting", ["auto", ["linear_cross_entropy"]])
def test_a_gpu_without_triton_falls_back_and_it_is_said(monkeypatch, setting):
    monkeypatch.setattr(runtime, "missing", lambda device_type: "triton is not installed")
    names, why = usable(setting, "cuda")
    assert names == ()
    assert why == "triton is not installed: torch's own operations serve instead of linear_cross_entropy"


def test_kernels_that_are_asked_for_without_a_gpu_fall_back_and_it_is_said(monkeypatch, said):
    monkeypatch.setattr(runtime, "missing", lambda device_type: f"Triton has no kernels for a {device_type.upper()}")
    expected, _ = trained(torch.device("cpu"), "torch")
    found, _ = trained(torch.device("cpu"), list(KERNELS))
    assert torch.equal(found, expected)
    assert any(line.startswith("kernels: Triton has no kernels for a CPU: torch's own operations serve instead") for line in said)
