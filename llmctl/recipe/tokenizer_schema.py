"""[tokenizer]."""

from typing import Literal

from pydantic import Field

from llmctl.recipe.fields import Place, Table
from llmctl.recipe.quantities import Size

Trainer = Literal["tokenizers", "rustbpe"]


class TokenizerTable(Table):
    """[tokenizer]: a byte-level BPE trained on the corpus, or one that is there."""

    path: Place | None = None
    """Folder or hub name of an existing tokenizer; then none is trained."""
    vocab_size: int = Field(default=4096, ge=300)
    """Tokens, the 256 bytes and the special tokens included."""
    train_bytes: Size = 16_000_000
    """Bytes of text to train on, an equal share from each source."""
    sources: list[str] = []
    """Corpus sources to train on. Empty: all text sources."""
    trainer: Trainer = "tokenizers"
    """rustbpe (needs the `fast` extra) is some three times as fast; merges of equal counts come in another order."""
