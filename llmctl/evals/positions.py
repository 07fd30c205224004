"""Loss by position: whether a model uses the context it is given."""

from itertools import pairwise
from typing import Any

import numpy as np

from llmctl import events
from llmctl.errors import StageFailed
from llmctl.evals.score import token_log_probabilities


def loss_by_position(
    model: Any, tokenizer: Any, texts: list[str], length: int, edges: list[int], limit: int | None = None
) -> dict[tuple[int, int], float]:
    """Mean loss (nats per token) over position ranges [edge, next edge) of the first `length` tokens of documents.

    Only documents of at least `length` tokens count, the first `limit` of them.

    Raises:
        StageFailed: no document is that long.
    """
    chosen = []
    for text in texts:
        ids = [tokenizer.eos_token_id, *tokenizer(text, add_special_tokens=False)["input_ids"]][: length + 1]
        if len(ids) == length + 1:
            chosen.append(ids)
        if limit is not None and len(chosen) == limit:
            break
    if not chosen:
        raise StageFailed(f"no held-out document has {length:,} tokens; the loss by position cannot be measured")
    total = np.zeros(length)
    for done, ids in enumerate(chosen, 1):
        total -= token_log_probabilities(model, [ids])[0]
        events.progress("loss by position", done, len(chosen), "documents")
    mean = total / len(chosen)
    return {(low, high): float(mean[low:high].mean()) for low, high in pairwise(edges)}
