"""What became of the documents and of the tasks that were asked for."""

from collections import Counter
from dataclasses import dataclass, field

from llmctl import events


@dataclass
class Tally:
    documents_in: int = 0
    documents_out: int = 0
    asked: int = 0
    """Requests to the generator: partitions that questions are wanted on (cwe), or texts (rex)."""
    kept: int = 0
    """Questions, or texts, that stand in the documents."""
    dropped: Counter[str] = field(default_factory=Counter)
    """Questions or texts, or replies that none could be read from, by what was wrong with them."""
    left_out: Counter[str] = field(default_factory=Counter)
    """Documents, by why nothing came of them."""

    def rows(self) -> list[tuple[str, int]]:
        rows = [("documents read", self.documents_in), ("documents written", self.documents_out)]
        rows += [(f"documents left out: {reason}", count) for reason, count in self.left_out.most_common()]
        rows += [("requests", self.asked), ("kept", self.kept)]
        return rows + [(f"dropped: {reason}", count) for reason, count in self.dropped.most_common()]

    def show(self, title: str) -> None:
        events.emit(events.Table(title, ("", "number"), tuple((name, f"{count:,}") for name, count in self.rows())))
