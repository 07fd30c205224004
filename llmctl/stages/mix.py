"""The mix of a stage, checked against what its sources hold and shown as a paper shows it, before anything is trained."""

from typing import Any

from llmctl import events
from llmctl.stages.training import Stage


def show_mix(stage: Stage, job: Any) -> None:
    """Raises:
    UserError: a source fills no row, or would be repeated more often than allowed.
    """
    from llmctl.train.data import TrainingRows

    rows = TrainingRows(job)
    table, sources = stage.table, stage.recipe.corpus.sources
    total = sum(rows.order.dealt)
    lines = []
    for part, mine, dealt, times in zip(job.parts, rows.sources, rows.order.dealt, rows.order.repetitions, strict=True):
        source = sources[part.source]
        lines.append(
            (
                part.name,
                source.type or source.kind,
                f"{mine.tokens:,}",
                f"{mine.documents:,}",
                f"{dealt * table.seq_len:,}",
                f"{dealt / total:.1%}",
                f"{mine.documents * times:,.0f}",
                f"{times:.2f}",
            )
        )
    columns = ("source", "type", "pool tokens", "pool documents", "mix tokens", "share", "mix documents", "passes")
    events.emit(events.Table(f"{stage.name}: mix", columns, tuple(lines)))
