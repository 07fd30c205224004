"""fastText models: of languages (lid.176.bin and the like), of quality and topics.

Joulin et al. 2016 (arXiv 1607.01759), by the package `fasttext-community`, which goes on with the original.
"""

from functools import lru_cache
from pathlib import Path
from typing import Any

from llmctl.errors import UserError

PREFIX = "__label__"
MOST_LABELS = 10  # of a text that are looked at, the likeliest


@lru_cache(maxsize=4)
def load_model(file: str) -> Any:
    """Raises:
    UserError: there is no such file, or it is no fastText model.
    """
    import fasttext

    if not Path(file).is_file():
        raise UserError(f"{file}: no such file")
    try:
        return fasttext.load_model(file)
    except (ValueError, MemoryError) as error:
        raise UserError(f"{file}: no fastText model: {error}") from None


def label_scores(model: Any, texts: list[str]) -> list[dict[str, float]]:
    """Probability of each text's likeliest labels, the prefix left out."""
    lines = [" ".join(text.split()) for text in texts]
    names, scores = model.predict(lines, k=MOST_LABELS) if lines else ([], [])
    return [
        {name.removeprefix(PREFIX): float(score) for name, score in zip(mine, values, strict=True)}
        for mine, values in zip(names, scores, strict=True)
    ]


def share_of(model: Any, texts: list[str], wanted: list[str]) -> list[float]:
    """Probability of the `wanted` labels together, for each text."""
    return [sum(scores.get(label, 0.0) for label in wanted) for scores in label_scores(model, texts)]
