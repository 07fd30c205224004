"""Rows of the embedding for tokens that a tokenizer was given after the model was trained."""

from typing import Any

import torch

MULTIPLE = 128
"""Matrix products on GPUs are fastest where the number of rows is a multiple of it."""


def padded(vocabulary: int, multiple: int = MULTIPLE) -> int:
    """Rows of an embedding for `vocabulary` tokens."""
    return -(-vocabulary // multiple) * multiple


def resize_embeddings(model: Any, vocabulary: int, multiple: int = MULTIPLE) -> None:
    """Give `model` an embedding [V, D], and an output head unless it is tied, for `vocabulary` tokens: its rows are as many as a
    multiple of `multiple`, and new ones begin as the mean of the old. A model that has rows enough stays as it is."""
    before = model.get_input_embeddings().weight.shape[0]
    if vocabulary <= before:
        return
    model.resize_token_embeddings(padded(vocabulary, multiple), mean_resizing=False)
    with torch.no_grad():
        for weight in embedding_weights(model):
            weight[before:] = weight[:before].mean(0)


def embedding_weights(model: Any) -> list[torch.nn.Parameter]:
    """The input embedding, and the output head's weight where it is another."""
    weight, head = model.get_input_embeddings().weight, model.get_output_embeddings()
    return [weight] if head is None or head.weight is weight else [weight, head.weight]
