"""[corpus.classifiers.NAME] and what is made of their scores."""

from pydantic import Field

from llmctl.recipe.fields import Share, Table
from llmctl.recipe.quantities import Size


class ClassifierTable(Table):
    """[corpus.classifiers.NAME]: a fastText classifier, trained on labelled text and applied to every training document."""

    labels: dict[str, list[str]] = Field(min_length=2)
    """Text of each label: sources of the recipe, or files and folders."""
    target: str | None = None
    """Label whose probability is the score of a document (quality). Left out: its likeliest label is told (topics)."""
    sources: list[str] = []
    """Sources that are scored. Empty: all text sources."""
    drop_lowest: Share = 0.0
    """Share of each source's documents that goes, those of the lowest scores (needs `target`)."""
    examples: int = Field(default=20_000, ge=2)
    """Documents of a label to train on at most."""
    characters: int = Field(default=10_000, ge=1)
    """Characters of a document that are looked at, from its beginning."""
    word_ngrams: int = Field(default=2, ge=1)
    """Words in an n-gram."""
    dimensions: int = Field(default=32, ge=1)
    """Size of the vectors."""
    buckets: int = Field(default=200_000, ge=1)
    """Rows of the table that n-grams are hashed into."""
    epochs: int = Field(default=5, ge=1)
    """Passes over the examples."""
    lr: float = Field(default=0.5, gt=0)
    """Learning rate at the beginning; it falls to zero."""


class UpsampleTable(Table):
    """[corpus.sources.NAME.upsample]: the better a document, the more often it is there (Olmo 3, arXiv 2512.13961, A.2.4)."""

    classifier: str
    """Classifier whose score says what is good."""
    size: Size = Field(gt=0)
    """Bytes of text that the source is to have, repetitions included."""
    drop_lowest: Share = 0.4
    """Share of the text that is not taken, that of the lowest scores."""
    most: float = Field(default=7.0, ge=1)
    """How often the best twentieth is taken at most, on average."""
