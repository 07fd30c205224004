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

MOST_PACKED = 100_000  # documents that the table of packings is made for


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
    """Padding and cut documents of the stage's packing, beside the ways that others pack."""
    from llmctl.tokens.packing_table import compare
    from llmctl.tokens.shards import TokenShards

    table, found = table_of(stage), []
    for part in parts:
        lengths = TokenShards(Path(part.shards)).lengths
        lengths = lengths if part.documents is None else lengths[np.load(part.documents)]
        found.append(np.minimum(lengths, table.seq_len) if part.truncate else lengths)
    lengths = np.random.default_rng(0).permutation(np.concatenate(found))[:MOST_PACKED]
    rows = [(way.name, f"{way.rows:,}", f"{way.padding:.1%}", f"{way.cut:,}") for way in compare(lengths, table.seq_len)]
    title = f"{stage.name}: {len(lengths):,} documents in rows of {table.seq_len:,} tokens"
    events.emit(events.Table(title, ("packing", "rows", "padding", "documents cut"), tuple(rows)))


def additions(stage: Stage) -> dict[str, Any]:
    return {"rope": asdict(scaling(stage))}


SPECIALTY = Specialty(data, additions, report)
