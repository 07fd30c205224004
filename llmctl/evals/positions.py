"""Loss by position: whether a model uses the context it is given."""

from collections.abc import Iterable
from itertools import pairwise
from typing import Any

import numpy as np

from llmctl import events
from llmctl.evals.score import token_log_probabilities


def long_enough(tokenizer: Any, texts: Iterable[str], length: int, limit: int) -> list[list[int]]:
    """The first `length` + 1 tokens, the end-of-text token before them, of the first `limit` texts that have so many."""
    found: list[list[int]] = []
    for text in texts:
        ids = [tokenizer.eos_token_id, *tokenizer(text, add_special_tokens=False)["input_ids"]][: length + 1]
        if len(ids) == length + 1:
            found.append(ids)
        if len(found) == limit:
            break
    return found


def loss_by_position(model: Any, sequences: list[list[int]], edges: list[int]) -> dict[tuple[int, int], float]:
    """Mean loss (nats per token) over position ranges [edge, next edge) of sequences of one length."""
    total = np.zeros(len(sequences[0]) - 1)
    for done, ids in enumerate(sequences, 1):
        total -= token_log_probabilities(model, [ids])[0]
        events.progress("loss by position", done, len(sequences), "documents")
    mean = total / len(sequences)
    return {(low, high): float(mean[low:high].mean()) for low, high in pairwise(edges)}
