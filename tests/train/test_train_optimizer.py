"""Muon and AdamW."""

from typing import Any

import pytest
import torch
from torch import nn

from llmctl.recipe.schema import PretrainTable
from llmctl.train.optimizer import MuonAdamW, _by_gram, _by_products, build_optimizer, orthogonalise, parameter_groups


def tiny_model() -> Any:
    class Tiny(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed_tokens = nn.Embedding(16, 8)
            self.layer = nn.Linear(8, 8, bias=False)
            self.norm = nn.LayerNorm(8, bias=False)
            self.lm_head = nn.Linear(8, 16, bias=False)

        def forward(self, tokens):
            return self.lm_head(self.norm(self.layer(self.embed_tokens(tokens))))

    torch.manual_seed(0)
    return Tiny()


def table(optimizer: str) -> PretrainTable:
    return PretrainTable.model_validate(
        {"name": "pretrain", "kind": "pretrain", "tokens": 1000, "seq_len": 10, "batch_tokens": 10, "optimizer": optimizer,
         "lr": 0.01, "muon_lr": 0.02, "weight_decay": 0.1, "mix": {"a": 1.0}}
    )  # fmt: skip


@pytest.mark.parametrize("shape", [(3, 16, 64), (2, 24, 24), (1, 8, 40)])
def test_the_gram_matrix_gives_what_the_products_give(shape):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    x = x / x.norm(dim=(-2, -1), keepdim=True)
    torch.testing.assert_close(_by_gram(x, 5), _by_products(x, 5), rtol=1e-3, atol=1e-3)


def test_orthogonalise_brings_every_singular_value_near_one():
    torch.manual_seed(0)
    for shape in [(3, 32, 32), (2, 16, 64), (2, 64, 16)]:
        values = torch.linalg.svdvals(orthogonalise(torch.randn(shape)).float())
        assert values.min() > 0.3
        assert values.max() < 1.3


def test_groups_follow_olmo3():
    """Input embeddings are not decayed, everything else is; Muon takes the matrices of the blocks alone."""
    model = tiny_model()
    of = {id(p): group for group in parameter_groups(model, table("muon")) for p in group["params"]}
    assert of[id(model.embed_tokens.weight)]["weight_decay"] == 0.0
    assert of[id(model.layer.weight)]["muon"]
    for module in (model.norm, model.lm_head):
        assert not of[id(module.weight)]["muon"]
        assert of[id(module.weight)]["weight_decay"] == 0.1
    assert sum(len(g["params"]) for g in parameter_groups(model, table("muon"))) == 4


def test_the_adamw_half_equals_torch():
    ours, reference = tiny_model(), tiny_model()
    parameters = list(ours.parameters())
    optimizer = MuonAdamW([{"params": parameters, "lr": 0.01, "weight_decay": 0.1}], (0.9, 0.95), 1e-8)
    expected = torch.optim.AdamW(reference.parameters(), lr=0.01, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1)
    for seed in range(5):
        torch.manual_seed(seed)
        tokens = torch.randint(0, 16, (4, 6))
        for model, stepper in ((ours, optimizer), (reference, expected)):
            stepper.zero_grad()
            model(tokens).square().mean().backward()
            stepper.step()
    for mine, theirs in zip(ours.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-7)


def test_muon_step_has_the_length_of_its_rate_whatever_the_gradient():
    for scale in (1e-4, 1e4):
        weight = nn.Parameter(torch.zeros(32, 32))
        optimizer = MuonAdamW([{"params": [weight], "muon": True, "lr": 0.02, "weight_decay": 0.0}], (0.9, 0.95), 1e-8)
        torch.manual_seed(0)
        weight.grad = torch.randn(32, 32) * scale
        optimizer.step()
        root_mean_square = weight.detach().norm() / 32**0.5
        assert 0.5 * 0.02 < root_mean_square < 1.3 * 0.02


def test_frozen_parameters_are_left_out():
    model = tiny_model()
    model.layer.weight.requires_grad_(False)
    kept = [p for group in build_optimizer(model, table("adamw")).param_groups for p in group["params"]]
    assert all(p is not model.layer.weight for p in kept)
    assert len(kept) == 3
