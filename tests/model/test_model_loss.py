"""Cross entropy from hidden states against the plain computation in float64."""

import pytest
import torch
import torch.nn.functional as F

from llmctl.errors import UserError
from llmctl.model import loss as module
from llmctl.model.loss import LinearCrossEntropyHead, use_linear_cross_entropy


def plain(hidden, weight, labels, z_loss):
    logits = hidden.double() @ weight.double().T
    kept = labels != -100
    cross_entropy = F.cross_entropy(logits, labels, ignore_index=-100, reduction="sum")
    z = z_loss * (logits.logsumexp(-1)[kept] ** 2).sum()
    return cross_entropy + z, z


def head_of(weight, trainable=True):
    head = LinearCrossEntropyHead(weight.shape[1], weight.shape[0], bias=False)
    head.weight = torch.nn.Parameter(weight.clone(), requires_grad=trainable)
    return head


@pytest.mark.parametrize("vocabulary", [7, 300, 1001])
@pytest.mark.parametrize("z_loss", [0.0, 1e-2])
def test_loss_and_gradients_equal_float64(monkeypatch, vocabulary, z_loss):
    monkeypatch.setattr(module, "chunk_length", lambda vocabulary, on_gpu: 13)  # several chunks, the last one short
    torch.manual_seed(0)
    hidden, weight = torch.randn(50, 16), torch.randn(vocabulary, 16)
    labels = torch.randint(0, vocabulary, (50,))
    labels[::7] = -100
    head = head_of(weight)
    mine = hidden.clone().requires_grad_()
    total, z = head(mine[None], labels=labels[None], z_loss=z_loss)
    (3.0 * total).backward()
    exact_hidden, exact_weight = hidden.double().requires_grad_(), weight.double().requires_grad_()
    expected, expected_z = plain(exact_hidden, exact_weight, labels, z_loss)
    (3.0 * expected).backward()
    torch.testing.assert_close(total.double(), expected, rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(z.double(), expected_z, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(mine.grad.double(), exact_hidden.grad, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(head.weight.grad.double(), exact_weight.grad, rtol=1e-4, atol=1e-4)


def test_a_frozen_weight_gets_no_gradient_and_hidden_states_still_do():
    hidden = torch.randn(1, 5, 4, requires_grad=True)
    head = head_of(torch.randn(9, 4), trainable=False)
    head(hidden, labels=torch.tensor([[1, 2, -100, 3, 4]]))[0].backward()
    assert head.weight.grad is None
    assert hidden.grad is not None
    assert hidden.grad[0, 2].abs().max() == 0


def test_nothing_supervised_is_zero_and_not_nan():
    hidden = torch.randn(1, 5, 4, requires_grad=True)
    total, z = head_of(torch.randn(9, 4))(hidden, labels=torch.full((1, 5), -100), z_loss=1e-3)
    total.backward()
    assert total == z == 0
    assert hidden.grad is not None
    assert not hidden.grad.any()


def test_logits_without_labels_are_those_of_a_linear_layer():
    hidden, weight = torch.randn(1, 5, 4), torch.randn(9, 4)
    torch.testing.assert_close(head_of(weight)(hidden), hidden @ weight.T)


def test_an_architecture_that_changes_its_logits_is_refused():
    from transformers import Gemma2Config, Gemma2ForCausalLM

    config = Gemma2Config(vocab_size=64, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
                          num_key_value_heads=1, head_dim=8)  # fmt: skip
    with pytest.raises(UserError, match="final_logit_softcapping"):
        use_linear_cross_entropy(Gemma2ForCausalLM(config))
