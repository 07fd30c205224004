"""Log-probabilities of tokens: many sequences at a time, packed without padding."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from llmctl.model.loss import label_log_probabilities
from llmctl.tokens.batch import of_sequences

TOKENS_PER_PASS = 8192


def packs(sequences: list[list[int]], tokens_per_pass: int) -> Iterator[list[int]]:
    """Indices of sequences that go through the model together."""
    pack: list[int] = []
    used = 0
    for index, sequence in enumerate(sequences):
        if pack and used + len(sequence) > tokens_per_pass:
            yield pack
            pack, used = [], 0
        pack.append(index)
        used += len(sequence)
    if pack:
        yield pack


def token_log_probabilities(model: Any, sequences: list[list[int]], tokens_per_pass: int = TOKENS_PER_PASS) -> list[np.ndarray]:
    """For each sequence of n tokens, n - 1 log-probabilities (nats): of each token from the second on, given those before.

    `model` attends to packed documents (`use_packed_attention`).
    """
    device = next(model.parameters()).device
    scores: list[np.ndarray] = []
    for pack in packs(sequences, tokens_per_pass):
        chosen = [sequences[index] for index in pack]
        with torch.no_grad():
            flat = label_log_probabilities(model, of_sequences(chosen).to(device)).cpu().numpy()
        at = 0
        for sequence in chosen:
            scores.append(flat[at : at + len(sequence) - 1].astype(np.float64))
            at += len(sequence)
    return scores
