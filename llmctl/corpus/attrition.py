"""What is left out of a corpus on its way: by step, rule and source, in documents, bytes and tokens."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from llmctl import events

MOST_COLUMNS = 5  # sources that get a column of their own
SAMPLE = 50_000  # characters of what a rule dropped that tokens are counted in


@dataclass
class Lost:
    documents: int = 0
    bytes: int = 0
    tokens: int | None = None
    """None: not counted."""
    sample: list[str] = field(default_factory=list)
    sampled: int = 0
    """Characters in the sample."""


class Attrition:
    def __init__(self) -> None:
        self._lost: dict[tuple[str, str], dict[str, Lost]] = {}

    def add(self, source: str, step: str, rule: str, size: int, documents: int = 1, text: str = "") -> None:
        """Documents of `size` bytes together, with this `text`, are dropped; or, with 0 documents, `size` bytes are cut out of
        one that stays."""
        lost = self._lost.setdefault((step, rule), {}).setdefault(source, Lost())
        lost.documents += documents
        lost.bytes += size
        if text and lost.sampled < SAMPLE:
            lost.sample.append(text[:SAMPLE])
            lost.sampled += len(lost.sample[-1])

    def count_tokens(self, count: Callable[[list[str]], int]) -> None:
        """Estimate tokens from bytes, at the rate of the text that each rule dropped first; where there is none, of all such."""
        entries = [lost for by_source in self._lost.values() for lost in by_source.values()]
        sizes = [sum(len(text.encode()) for text in lost.sample) for lost in entries]
        counts = [count(lost.sample) if lost.sample else 0 for lost in entries]
        overall = sum(counts) / max(1, sum(sizes))
        for lost, size, tokens in zip(entries, sizes, counts, strict=True):
            lost.tokens = round(lost.bytes * (tokens / size if size else overall))

    def main_reason(self, source: str) -> str:
        """The rule that dropped most of a source's documents."""
        by_rule = {rule: lost[source].documents for (_, rule), lost in self._lost.items() if source in lost}
        return max(by_rule, key=lambda rule: by_rule[rule])

    def rows(self) -> list[dict[str, Any]]:
        """step, rule, source, documents, bytes and tokens (None where not counted) of everything that was left out."""
        return [
            {"step": step, "rule": rule, "source": source}
            | {"documents": lost.documents, "bytes": lost.bytes, "tokens": lost.tokens}
            for (step, rule), by_source in self._lost.items()
            for source, lost in by_source.items()
        ]

    def show(self, sources: Iterable[str]) -> None:
        """A table with a line for each rule: steps in their order, the rules of a step by what they dropped."""
        if not self._lost:
            return
        columns = [source for source in sources if any(source in by_source for by_source in self._lost.values())]
        columns = columns if len(columns) <= MOST_COLUMNS else []
        order = list(dict.fromkeys(step for step, _ in self._lost))
        totals = {rule: sum(lost.documents for lost in by_source.values()) for rule, by_source in self._lost.items()}
        rows = []
        for step, rule in sorted(self._lost, key=lambda key: (order.index(key[0]), -totals[key])):
            by_source = self._lost[step, rule]
            size, tokens = (sum(getattr(lost, part) or 0 for lost in by_source.values()) for part in ("bytes", "tokens"))
            counted = f"{tokens:,}" if any(lost.tokens is not None for lost in by_source.values()) else ""
            each = (f"{by_source[name].documents:,}" if name in by_source else "" for name in columns)
            rows.append((f"{step}: {rule}", f"{totals[step, rule]:,}", f"{size / 1e6:.2f} MB", counted, *each))
        events.emit(events.Table("left out", ("step and rule", "documents", "text", "tokens, about", *columns), tuple(rows)))
