"""What is left out of a corpus on its way: by step, rule and source, in documents and bytes."""

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from llmctl import events

MOST_COLUMNS = 5  # sources that get a column of their own


class Attrition:
    def __init__(self) -> None:
        self._counts: dict[tuple[str, str], dict[str, list[int]]] = {}

    def add(self, source: str, step: str, rule: str, size: int, documents: int = 1) -> None:
        """Documents of `size` bytes together are dropped; or, with 0 documents, `size` bytes are cut out of one that stays."""
        counts = self._counts.setdefault((step, rule), defaultdict(lambda: [0, 0]))[source]
        counts[0] += documents
        counts[1] += size

    def main_reason(self, source: str) -> str:
        """The rule that dropped most of a source's documents."""
        by_rule = {rule: counts[source][0] for (_, rule), counts in self._counts.items() if source in counts}
        return max(by_rule, key=lambda rule: by_rule[rule])

    def rows(self) -> list[dict[str, Any]]:
        """step, rule, source, documents and bytes of everything that was left out."""
        return [
            {"step": step, "rule": rule, "source": source, "documents": documents, "bytes": size}
            for (step, rule), counts in self._counts.items()
            for source, (documents, size) in counts.items()
        ]

    def show(self, sources: Iterable[str]) -> None:
        """A table with a line for each rule: steps in their order, the rules of a step by what they dropped."""
        if not self._counts:
            return
        columns = [source for source in sources if any(source in counts for counts in self._counts.values())]
        columns = columns if len(columns) <= MOST_COLUMNS else []
        steps = list(dict.fromkeys(step for step, _ in self._counts))
        rows = []
        for step in steps:
            rules = {rule: counts for (its_step, rule), counts in self._counts.items() if its_step == step}
            for rule, counts in sorted(rules.items(), key=lambda item: -sum(size[0] for size in item[1].values())):
                documents, size = (sum(count[part] for count in counts.values()) for part in (0, 1))
                by_source = (f"{counts[name][0]:,}" if name in counts else "" for name in columns)
                rows.append((f"{step}: {rule}", f"{documents:,}", f"{size / 1e6:.2f} MB", *by_source))
        events.emit(events.Table("left out", ("step and rule", "documents", "text", *columns), tuple(rows)))
