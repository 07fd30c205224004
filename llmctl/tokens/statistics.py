"""What a tokenizer makes of texts: how far it compresses them, how much of its vocabulary it uses."""

from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np

from llmctl.tokens.encoder import Encoder

LONGEST = 8  # tokens that are named


@dataclass(frozen=True, slots=True)
class Compression:
    """Of texts of one kind."""

    bytes_per_token: float
    """UTF-8 bytes."""
    characters_per_token: float
    """Code points."""
    tokens: int


@dataclass(frozen=True, slots=True)
class Statistics:
    """Of a tokenizer over texts of several kinds."""

    vocabulary: int
    used: int
    """Different tokens that the texts have."""
    longest: list[str]
    """The longest tokens of the vocabulary that have a letter and are no special ones, as text."""
    kinds: dict[str, Compression]


def measure(tokenizer: Any, texts: dict[str, list[str]]) -> Statistics:
    """Statistics over `texts` by kind; a kind without text is left out."""
    encode = Encoder(tokenizer)
    used: set[int] = set()
    kinds = {}
    for kind, mine in texts.items():
        if not any(mine):
            continue
        ids, _ = encode(mine)
        used |= set(np.unique(ids).tolist())
        size, characters = sum(len(text.encode()) for text in mine), sum(map(len, mine))
        kinds[kind] = Compression(size / max(1, len(ids)), characters / max(1, len(ids)), len(ids))
    return Statistics(len(tokenizer), len(used), longest_tokens(tokenizer), kinds)


def longest_tokens(tokenizer: Any) -> list[str]:
    special = set(tokenizer.all_special_tokens)
    by_length = sorted((t for t in tokenizer.get_vocab() if t not in special), key=lambda token: (-len(token), token))
    texts = (tokenizer.convert_tokens_to_string([token]) for token in by_length)
    return list(islice((text for text in texts if any(map(str.isalpha, text))), LONGEST))
