"""Bits per byte: how well a model predicts text, whatever its tokenizer."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from llmctl import events
from llmctl.evals.score import TOKENS_PER_PASS, token_log_probabilities


@dataclass(frozen=True, slots=True)
class BitsResult:
    bits_per_byte: float
    bytes: int
    """UTF-8 bytes of the text."""
    tokens: int
    loss: float
    """Nats per token."""


def bits_per_byte(model: Any, tokenizer: Any, texts: list[str], seq_len: int) -> BitsResult:
    """Bits that the model needs for each raw UTF-8 byte of `texts`, in windows of `seq_len` tokens."""
    bits, tokens = document_bits(model, tokenizer, texts, seq_len)
    total, size = float(bits.sum()), sum(len(text.encode()) for text in texts)
    return BitsResult(total / max(1, size), size, tokens, total * math.log(2) / max(1, tokens))


def document_bits(model: Any, tokenizer: Any, texts: list[str], seq_len: int) -> tuple[np.ndarray, int]:
    """Bits that the model needs for each of `texts` [n], and how many tokens they are.

    Each document begins after an end-of-text token; documents longer than `seq_len` are cut into windows, which see
    nothing of the window before but its last token. Every token of the text is scored once.
    """
    begin = tokenizer.eos_token_id
    sequences, owners = [], []
    for number, text in enumerate(texts):
        ids = [begin, *tokenizer(text, add_special_tokens=False)["input_ids"]]
        windows = [ids[start : start + seq_len + 1] for start in range(0, len(ids) - 1, seq_len)]
        sequences += windows
        owners += [number] * len(windows)
    bits, tokens = np.zeros(len(texts)), 0
    group = max(1, TOKENS_PER_PASS // seq_len)
    for start in range(0, len(sequences), group):
        scored = token_log_probabilities(model, sequences[start : start + group])
        for owner, scores in zip(owners[start : start + group], scored, strict=True):
            bits[owner] -= float(scores.sum()) / math.log(2)
            tokens += len(scores)
        events.progress("bits per byte", min(start + group, len(sequences)), len(sequences), "windows")
    return bits, tokens
