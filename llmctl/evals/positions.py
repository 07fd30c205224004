"""Loss by position: whether a model uses the context it is given."""

import math
from collections.abc import Iterable
from itertools import pairwise
from typing import Any

import numpy as np

from llmctl import events
from llmctl.evals.score import token_log_probabilities

CURVE_BINS, CURVE_FIRST = 32, 16  # the first range has so many positions, or a 64th of all: of fewer the mean is noise


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


def position_losses(model: Any, sequences: list[list[int]]) -> np.ndarray:
    """Loss (nats) of every token from the second on, [S, T], of S sequences of T + 1 tokens."""
    found = []
    for done, ids in enumerate(sequences, 1):
        found.append(-token_log_probabilities(model, [ids])[0])
        events.progress("loss by position", done, len(sequences), "documents")
    return np.stack(found)


def by_range(losses: np.ndarray, edges: list[int]) -> dict[tuple[int, int], tuple[float, float]]:
    """Mean of losses [S, T] over position ranges [edge, next edge), and its standard error over the S documents."""
    ranges = {}
    for low, high in pairwise(edges):
        of_documents = losses[:, low:high].mean(axis=1)
        error = float(of_documents.std(ddof=1)) / math.sqrt(len(losses)) if len(losses) > 1 else math.nan
        ranges[low, high] = float(of_documents.mean()), error
    return ranges


def curve_edges(length: int) -> list[int]:
    """Edges of the position ranges of a curve: up to `CURVE_BINS`, ever longer, the first of `CURVE_FIRST` positions or more."""
    first = min(max(CURVE_FIRST, length // 64), length)
    return [0, *sorted({round(edge) for edge in np.geomspace(first, length, CURVE_BINS)})]
