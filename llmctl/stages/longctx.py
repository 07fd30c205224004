"""longctx: a longer context by RoPE scaling, trained on packed long documents beside the parent's kind of mix."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from llmctl import events
from llmctl.stages.context import scaling, table_of, told_context
from llmctl.stages.long_documents import long_parts
from llmctl.stages.long_proof import report
from llmctl.stages.long_synthetic import synthetic_parts
from llmctl.stages.training import Specialty, Stage

MOST_PACKED = 100_000  # documents of a part that the table of packings is made for


def data(stage: Stage) -> list[Any]:
    """Long documents make `long_share` of the tokens, natural ones and those with tasks woven in; the mix makes the rest."""
    from llmctl.train.job import DataPart

    events.say(told_context(stage))
    table = table_of(stage)
    natural = table.long_share - table.synthetic.cwe_share - table.synthetic.rex_share
    parts = [*(long_parts(stage, natural) if natural > 1e-9 else []), *synthetic_parts(stage)]
    short = 1 - table.long_share
    parts += [
        DataPart(source, str(stage.shards(source)), short * share, "best_fit") for source, share in table.mix.items() if short
    ]
    show_packing(stage, parts)
    return parts


def show_packing(stage: Stage, parts: list[Any]) -> None:
    """Padding and cut documents of each part's packing, beside the ways that others pack; of many documents a sample."""
    from llmctl.tokens.packing_table import compare
    from llmctl.tokens.shards import TokenShards

    table, rows = table_of(stage), []
    for part in parts:
        lengths = TokenShards(Path(part.shards)).lengths
        lengths = lengths if part.documents is None else lengths[np.load(part.documents)]
        if len(lengths) > MOST_PACKED:
            lengths = np.random.default_rng(0).choice(lengths, MOST_PACKED, replace=False)
        best, first, stream = compare(np.minimum(lengths, table.seq_len) if part.truncate else lengths, table.seq_len)
        filled = [f"{way.rows:,} rows, {way.padding:.1%}" for way in (best, first)]
        cut = (f"{stream.rows:,} rows, {stream.cut:,}", f"{best.cut:,}")
        rows.append((part.name, f"{len(lengths):,}", *filled, *cut))
    columns = ("source", "documents", "best fit: padding", "first fit: padding", "one stream: documents cut", "longer than a row")
    events.emit(events.Table(f"{stage.name}: packing in rows of {table.seq_len:,} tokens", columns, tuple(rows)))


def additions(stage: Stage) -> dict[str, Any]:
    return {"rope": asdict(scaling(stage))}


SPECIALTY = Specialty(data, additions, report)
