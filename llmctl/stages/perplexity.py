"""Perplexity: how well checkpoints predict held-out text and files of the user's own, each beside its parent."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from llmctl import events
from llmctl.errors import UserError
from llmctl.recipe.schema import Recipe
from llmctl.stages.measure import Precision, opened
from llmctl.stages.score_tables import number
from llmctl.stages.scoring import Checkpoint
from llmctl.stages.texts import heldout_texts, own_texts

WINDOW = 8192  # tokens, if none are asked for: a model of the hub may take 128k, which is a day's work on a CPU
NOT_COMPARABLE = "perplexity per token compares models of one tokenizer alone; bits per byte compares all"


@dataclass(frozen=True, slots=True)
class Scored:
    """A checkpoint on one source of text."""

    losses: list[np.ndarray]
    """Nats of each token [T] of each document."""
    sizes: np.ndarray
    """UTF-8 bytes of the documents."""

    @property
    def bits(self) -> np.ndarray:
        """Of each document."""
        return np.array([float(losses.sum()) for losses in self.losses]) / math.log(2)

    @property
    def tokens(self) -> int:
        return sum(map(len, self.losses))

    @property
    def loss(self) -> float:
        """Nats per token."""
        return float(self.bits.sum()) * math.log(2) / self.tokens


Results = dict[tuple[str, str], Scored]
"""By checkpoint and source."""


def measure_perplexity(
    checkpoints: Sequence[Checkpoint],
    corpus: Path | None,
    recipe: Recipe | None,
    texts: Sequence[Path],
    stride: int | None = None,
    context: int | None = None,
    precision: Precision = "auto",
) -> dict[str, Any]:
    """Bits per byte and perplexity per token of every checkpoint, on each text source of `corpus` (held-out part) and on each of
    the user's `texts`; as a table, and as plain values.

    context: tokens of a window; None: the smallest context of the checkpoints, at most `WINDOW`. All read the same windows.
    stride: tokens between windows; None: half the context

    Raises:
        UserError: there is no text, or the stride or the context is none.
    """
    from llmctl.evals.bits import document_losses
    from llmctl.stages.adapters import tokenizer_for_model

    sources = heldout_texts(corpus, recipe) if corpus is not None and recipe is not None else {}
    sources |= {str(path): own_texts(path) for path in texts}
    if not sources:
        raise UserError("perplexity: no text to measure on; name a file with --text FILE")
    length = context_of(checkpoints, context)
    step = max(1, length // 2) if stride is None else stride
    if not 1 <= step <= length:
        raise UserError(f"perplexity: a stride of {step:,} tokens; expected 1 to {length:,}, the tokens of a window")
    results: Results = {}
    vocabularies = []
    for checkpoint in checkpoints:
        tokenizer = tokenizer_for_model(checkpoint.model, checkpoint.base)
        vocabularies.append(tokenizer.get_vocab())
        with opened(checkpoint.model, base=checkpoint.base, precision=precision) as model:
            for source, found in sources.items():
                losses = document_losses(model, tokenizer, found, length, step)
                results[checkpoint.name, source] = Scored(losses, np.array([len(text.encode()) for text in found], dtype=float))
    rows = [as_row(results, checkpoint, source) for source in sources for checkpoint in checkpoints]
    show(rows, length, step, any(vocabulary != vocabularies[0] for vocabulary in vocabularies))
    return {"context": length, "stride": step, "note": NOT_COMPARABLE, "results": rows}


def context_of(checkpoints: Sequence[Checkpoint], wanted: int | None) -> int:
    """The tokens of a window that every checkpoint can read.

    Raises:
        UserError: more are wanted.
    """
    from llmctl.model.load import load_config
    from llmctl.stages.adapters import adapted

    found = {}
    for checkpoint in checkpoints:
        adapter = adapted(checkpoint.model, checkpoint.base)
        config = load_config(checkpoint.model if adapter is None else adapter.base).get_text_config()
        found[checkpoint.name] = int(config.max_position_embeddings)
    name, smallest = min(found.items(), key=lambda one: one[1])
    if wanted is not None and not 1 <= wanted <= smallest:
        raise UserError(f"perplexity: windows of {wanted:,} tokens; expected 1 to {smallest:,}, which is the context of {name}")
    return wanted or min(smallest, WINDOW)


def as_row(results: Results, checkpoint: Checkpoint, source: str) -> dict[str, Any]:
    """Plain values. Errors are over documents, and null where there is one."""
    from llmctl.evals.bits import loss_by_range
    from llmctl.evals.guard import ratio_difference

    scored = results[checkpoint.name, source]
    bits, error = ratio_difference(np.zeros(len(scored.sizes)), scored.bits, scored.sizes)
    row = {
        "checkpoint": checkpoint.name,
        "source": source,
        "bits_per_byte": bits,
        "stderr": number(error),
        "perplexity_per_token": math.exp(min(scored.loss, 700.0)),
        "loss": scored.loss,
        "documents": len(scored.sizes),
        "bytes": int(scored.sizes.sum()),
        "tokens": scored.tokens,
        "by_position": [
            {"from": low, "to": high, "loss": loss, "stderr": number(apart), "documents": count}
            for (low, high), (loss, apart, count) in loss_by_range(scored.losses, edges(scored.losses)).items()
        ],
    }
    before = results.get((checkpoint.parent or "", source))
    if before is not None:
        difference, error = ratio_difference(before.bits, scored.bits, scored.sizes)
        row |= {"difference_to": checkpoint.parent, "difference": difference, "difference_stderr": number(error)}
    return row


def edges(losses: list[np.ndarray]) -> list[int]:
    """Of ranges of positions in a document, each four times as long as all before it."""
    longest, found = max(map(len, losses)), [0, 64]
    while found[-1] < longest:
        found.append(4 * found[-1])
    return found


def show(rows: list[dict[str, Any]], context: int, stride: int, tokenizers_differ: bool) -> None:
    """A table of all, and one of the loss by position."""
    cells = [
        (
            row["source"],
            row["checkpoint"],
            f"{row['bits_per_byte']:.4f}{told(row['stderr'])}",
            f"{row['difference']:+.4f}{told(row['difference_stderr'])} to {row['difference_to']}" if "difference" in row else "",
            f"{row['perplexity_per_token']:.4g}",
            *(f"{row[name]:,}" for name in ("documents", "bytes", "tokens")),
        )
        for row in rows
    ]
    columns = ("source", "checkpoint", "bits per byte", "difference", "perplexity per token", "documents", "bytes", "tokens")
    title = f"perplexity ± standard error over documents, windows of {context:,} tokens every {stride:,}"
    events.emit(events.Table(title, columns, tuple(cells)))
    events.say(f"{NOT_COMPARABLE}{', and these have different ones' if tokenizers_differ else ''}")
    show_positions(rows)


def show_positions(rows: list[dict[str, Any]]) -> None:
    checkpoints = list(dict.fromkeys(row["checkpoint"] for row in rows))
    found = {(row["source"], part["from"], part["to"], row["checkpoint"]): part for row in rows for part in row["by_position"]}
    cells = []
    for source, low, high in dict.fromkeys(place[:3] for place in found):
        parts = [found.get((source, low, high, name)) for name in checkpoints]
        told_parts = ("" if part is None else f"{part['loss']:.3f}{told(part['stderr'], 3)}" for part in parts)
        cells.append((source, f"{low:,}-{high - 1:,}", *told_parts))
    title = "loss by position in the document, nats per token ± standard error over documents"
    events.emit(events.Table(title, ("source", "positions", *checkpoints), tuple(cells)))


def told(error: float | None, digits: int = 4) -> str:
    return "" if error is None else f" ± {error:.{digits}f}"
