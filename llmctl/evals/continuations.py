"""Log-probabilities of many continuations of one prefix, which goes through the model once.

The examples of a few-shot prompt are the same for every question and choice: with three of them, four fifths of the tokens.
"""

import copy
from typing import Any

import numpy as np
import torch

from llmctl.evals.score import TOKENS_PER_PASS
from llmctl.model.attention import standard_attention
from llmctl.model.loss import base_model


@torch.no_grad()
def continuation_log_probabilities(
    model: Any, prefix: list[int], sequences: list[list[int]], scored: list[int], tokens_per_pass: int = TOKENS_PER_PASS
) -> list[np.ndarray]:
    """For each sequence, the log-probabilities (nats) of its last `scored` tokens, given the prefix and those before.

    A sequence is longer than what is scored of it, or the prefix is not empty.
    """
    base = base_model(model)
    body, head = getattr(base, base.base_model_prefix), base.get_output_embeddings()
    device = next(model.parameters()).device
    scores: list[np.ndarray] = [np.empty(0)] * len(sequences)
    with standard_attention(model):
        seen, last = None, None
        if prefix:
            out = body(input_ids=torch.tensor([prefix], device=device), use_cache=True)
            seen, last = out.past_key_values, out.last_hidden_state[0, -1:]
        for batch in batches(sequences, len(prefix), tokens_per_pass):
            # Padding stands at the end, where no token that counts can see it.
            longest = max(len(sequences[index]) for index in batch)
            rows = [sequences[index] + [0] * (longest - len(sequences[index])) for index in batch]
            past = copy.deepcopy(seen)
            if past is not None:
                past.batch_repeat_interleave(len(batch))
            tokens = torch.tensor(rows, device=device)
            hidden = body(input_ids=tokens, past_key_values=past, use_cache=past is not None).last_hidden_state
            for row, index in enumerate(batch):
                size, count = len(sequences[index]), scored[index]
                states = hidden[row, max(0, size - count - 1) : size - 1]
                if count == size:
                    assert last is not None
                    states = torch.cat([last, states])
                wanted = tokens[row, size - count : size]
                chances = head(states).float().log_softmax(-1)
                scores[index] = chances.gather(1, wanted[:, None])[:, 0].cpu().double().numpy()
    return scores


def batches(sequences: list[list[int]], prefix: int, tokens_per_pass: int) -> list[list[int]]:
    """Indices of sequences of like length that go through the model together, the prefix counted with each."""
    found: list[list[int]] = []
    for index in sorted(range(len(sequences)), key=lambda i: len(sequences[i])):
        size = prefix + len(sequences[index])  # the longest so far, and so the width of the batch
        if found and (len(found[-1]) + 1) * size <= tokens_per_pass:
            found[-1].append(index)
        else:
            found.append([index])
    return found
