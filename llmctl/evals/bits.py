"""Bits per byte: how well a model predicts text, whatever its tokenizer."""

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from llmctl import events
from llmctl.evals.guard import ratio_difference
from llmctl.evals.score import TOKENS_PER_PASS, token_log_probabilities


@dataclass(frozen=True, slots=True)
class BitsResult:
    bits_per_byte: float
    bytes: int
    """UTF-8 bytes of the text."""
    tokens: int
    loss: float
    """Nats per token."""


def bits_per_byte(model: Any, tokenizer: Any, texts: list[str], seq_len: int, stride: int | None = None) -> BitsResult:
    """Bits that the model needs for each raw UTF-8 byte of `texts`, in windows of `seq_len` tokens."""
    bits, tokens = document_bits(model, tokenizer, texts, seq_len, stride)
    total, size = float(bits.sum()), sum(len(text.encode()) for text in texts)
    return BitsResult(total / max(1, size), size, tokens, total * math.log(2) / max(1, tokens))


def document_bits(
    model: Any, tokenizer: Any, texts: list[str], seq_len: int, stride: int | None = None
) -> tuple[np.ndarray, int]:
    """Bits that the model needs for each of `texts` [n], and how many tokens they are; windows as in `document_losses`."""
    losses = document_losses(model, tokenizer, texts, seq_len, stride)
    return np.array([float(each.sum()) / math.log(2) for each in losses]), sum(map(len, losses))


def document_losses(model: Any, tokenizer: Any, texts: list[str], seq_len: int, stride: int | None = None) -> list[np.ndarray]:
    """For each text, the losses (nats) of its tokens [T], each scored once.

    Documents begin after the tokenizer's own first token, or an end-of-text token where it has none. Those longer than `seq_len`
    are cut into windows, `stride` tokens apart. By default they are `seq_len` apart, and see nothing of the window before but
    its last token; with a smaller stride each token of a later window has at least `seq_len - stride` tokens of its document
    before it, at a cost that grows by `seq_len / stride`.
    """
    first = first_token(tokenizer)
    sequences: list[list[int]] = []
    scored: list[int] = []
    owners: list[int] = []
    for number, text in enumerate(texts):
        ids = [first, *tokenizer(text, add_special_tokens=False)["input_ids"]]
        for window, count in windows(ids, seq_len, stride or seq_len):
            sequences.append(window)
            scored.append(count)
            owners.append(number)
    found: list[list[np.ndarray]] = [[] for _ in texts]
    group = max(1, TOKENS_PER_PASS // seq_len)
    for start in range(0, len(sequences), group):
        chosen = slice(start, start + group)
        scores = token_log_probabilities(model, sequences[chosen])
        for owner, count, each in zip(owners[chosen], scored[chosen], scores, strict=True):
            found[owner].append(-each[len(each) - count :])
        events.progress("bits per byte", min(start + group, len(sequences)), len(sequences), "windows")
    return [np.concatenate(parts) if parts else np.zeros(0) for parts in found]


def windows(ids: list[int], seq_len: int, stride: int) -> list[tuple[list[int], int]]:
    """Windows of up to `seq_len` + 1 tokens, and how many of the last tokens of each no window before has scored. The first
    token is never scored."""
    found, done = [], 0
    for start in range(0, len(ids) - 1, min(stride, seq_len)):
        end = min(start + seq_len, len(ids) - 1)
        if end > done:
            found.append((ids[start : end + 1], end - done))
        done = max(done, end)
    return found


def first_token(tokenizer: Any) -> int:
    """What the tokenizer itself puts before a text, where it puts something; Gemma, say, predicts nonsense without it."""
    ids, plain = (tokenizer("a", add_special_tokens=special)["input_ids"] for special in (True, False))
    return ids[0] if len(ids) > len(plain) and ids[0] != plain[0] else tokenizer.eos_token_id


def loss_by_range(losses: list[np.ndarray], edges: list[int]) -> dict[tuple[int, int], tuple[float, float, int]]:
    """Mean loss (nats per token) over position ranges [edge, next edge) of documents of any length, its standard error over the
    documents, and how many documents reach there. Ranges that none reaches are left out."""
    found = {}
    for low, high in pairwise(edges):
        parts = [each[low:high] for each in losses if len(each) > low]
        if parts:
            sums, sizes = np.array([part.sum() for part in parts]), np.array([len(part) for part in parts], dtype=float)
            found[low, high] = *ratio_difference(np.zeros(len(parts)), sums, sizes), len(parts)
    return found
