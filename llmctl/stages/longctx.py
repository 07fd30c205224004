"""longctx: a longer context by RoPE scaling, trained on packed long documents beside the parent's kind of mix."""

from dataclasses import asdict
from typing import Any

from llmctl import events
from llmctl.stages.context import scaling, table_of, told_context
from llmctl.stages.long_documents import long_parts
from llmctl.stages.long_proof import report
from llmctl.stages.training import Specialty, Stage


def data(stage: Stage) -> list[Any]:
    """Long documents make `long_share` of the tokens, natural ones and those with tasks woven in; the mix makes the rest."""
    from llmctl.train.job import DataPart

    events.say(told_context(stage))
    table = table_of(stage)
    natural = table.long_share
    parts = long_parts(stage, natural) if natural > 0 else []
    short = 1 - table.long_share
    return parts + [
        DataPart(source, str(stage.shards(source)), short * share, "best_fit") for source, share in table.mix.items() if short
    ]


def additions(stage: Stage) -> dict[str, Any]:
    return {"rope": asdict(scaling(stage))}


SPECIALTY = Specialty(data, additions, report)
