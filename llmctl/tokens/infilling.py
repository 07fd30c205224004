"""Fill in the middle: a document as prefix, suffix and middle, so that a model learns to write what stands between.

Bavarian et al. 2022 (arXiv 2207.14255): a document is cut at two places; PSM shows prefix, suffix, middle, SPM suffix, prefix,
middle. Olmo 3 transforms half of its code for midtraining, half of that by SPM.
"""

import hashlib
from typing import Any

from llmctl.errors import UserError
from llmctl.recipe.train_schema import InfillingTable

PREFIX, MIDDLE, SUFFIX = "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>"
Piece = str | int
"""Text, or the id of a special token."""


def marks(tokenizer: Any) -> tuple[int, int, int]:
    """Ids of the prefix, the middle and the suffix token.

    Raises:
        UserError: the vocabulary has none.
    """
    vocabulary = tokenizer.get_vocab()
    if missing := [token for token in (PREFIX, MIDDLE, SUFFIX) if token not in vocabulary]:
        raise UserError(f"infilling needs tokens that the tokenizer does not have: {', '.join(missing)}")
    return vocabulary[PREFIX], vocabulary[MIDDLE], vocabulary[SUFFIX]


def pieces(name: str, text: str, table: InfillingTable, ids: tuple[int, int, int]) -> list[Piece]:
    """A document in the order in which it is written; the text itself where it is not chosen. What happens to a document
    depends on its name alone."""
    digest = hashlib.sha256(f"infilling/{name}".encode()).digest()
    chosen, order, first, second = (int.from_bytes(digest[8 * i : 8 * i + 8], "big") / 2**64 for i in range(4))
    if chosen >= table.rate or len(text) < table.min_characters:
        return [text]
    low, high = sorted(round(place * len(text)) for place in (first, second))
    prefix, middle, suffix = text[:low], text[low:high], text[high:]
    begin, fill, end = ids
    if order < table.spm_rate:
        # The prefix and the middle stand together, so that the middle goes on where the prefix ends.
        return [begin, end, suffix, fill, prefix, middle]
    return [begin, prefix, end, suffix, fill, middle]
