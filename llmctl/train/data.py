"""Which rows a step trains on, and the micro-batches that this rank makes of them."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from llmctl.errors import UserError
from llmctl.recipe.schema import TrainTable
from llmctl.tokens.batch import Batch, collate
from llmctl.tokens.order import DataOrder
from llmctl.tokens.rows import ConcatRows, PackedRows, Row, in_pieces
from llmctl.tokens.shards import TokenShards
from llmctl.train.job import DataPart, TrainJob


def rows_of(part: DataPart, table: TrainTable) -> ConcatRows | PackedRows:
    """The rows that a part's shards are cut or packed into."""
    shards = TokenShards(Path(part.shards))
    if part.packing == "best_fit":
        documents = None if part.documents is None else np.load(part.documents)
        return PackedRows(shards, table.seq_len, documents, part.truncate)
    return ConcatRows(shards, table.seq_len, document_boundaries=table.document_boundaries)


class TrainingRows:
    """All rows of a stage in their order. The row at a position depends on the seed and the position alone: any rank
    can seek to any step, and the rows of a step do not depend on ranks or micro-batch.

    Raises:
        UserError: a source fills no row, or would be repeated more often than `max_repetition`.
    """

    def __init__(self, job: TrainJob) -> None:
        table = job.settings
        self.sources: list[ConcatRows | PackedRows] = []
        for part in job.parts:
            rows = rows_of(part, table)
            if len(rows) == 0:
                raise UserError(
                    f"[{job.stage}] source {part.name!r} fills not one row of {table.seq_len} tokens; "
                    "give it more text, take it out of the mix, or shorten seq_len"
                )
            self.sources.append(rows)
        self.order = DataOrder(
            [len(rows) for rows in self.sources],
            [part.share for part in job.parts],
            job.rows,
            f"{job.seed}/{job.stage}",  # a later stage on the same source sees other rows than the ones before it
        )
        self.steps, self.reach = table.steps, table.reach
        for part, rows, times in zip(job.parts, self.sources, self.order.repetitions, strict=True):
            most = table.most_repetitions(part.source)
            if times > most:
                raise UserError(
                    f"[{job.stage}] source {part.name!r} has {len(rows):,} rows of {table.seq_len:,} tokens, and the mix would "
                    f"pass over them {times:.1f} times (max_repetition = {most:g}); give it more text, a smaller "
                    "share, or the stage fewer tokens"
                )

    def of_step(self, step: int) -> list[tuple[int, int]]:
        """(source, row) of every row of a step, over all ranks."""
        return [self.order.at(position) for position in self.steps.rows_of(step)]

    def supervised(self, step: int) -> int:
        """Supervised tokens of the whole step, over all ranks: what its loss is divided by."""
        return max(1, sum(int(self.sources[source].supervised(row)) for source, row in self.of_step(step)))

    def micro_batches(self, step: int, micro_batch: int, data_rank: int, data_ranks: int) -> Iterator[Batch]:
        """A data rank's micro-batches of `micro_batch` rows; the data ranks together take every row of the step once."""
        places = self.of_step(step)
        reach = self.reach.at(self.steps.rows_before(step) * self.steps.seq_len)
        stride = micro_batch * data_ranks
        for first in range(data_rank * micro_batch, len(places), stride):
            rows: list[Row] = [self.sources[source].row(row) for source, row in places[first : first + micro_batch]]
            yield collate(rows if reach == self.steps.seq_len else [in_pieces(row, reach) for row in rows])
