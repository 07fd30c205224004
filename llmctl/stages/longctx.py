"""longctx: a longer context by RoPE scaling, trained on packed long documents beside the parent's kind of mix."""

from dataclasses import asdict
from typing import Any

from llmctl import events
from llmctl.stages.context import scaling, table_of
from llmctl.stages.long_proof import report
from llmctl.stages.training import Specialty, Stage


def data(stage: Stage) -> list[Any]:
    """Long documents of every source of the mix make `long_share` of the tokens; the mix as it is makes the rest."""
    from llmctl.tokens.shards import TokenShards
    from llmctl.train.job import DataPart

    table = table_of(stage)
    available = {}
    for source in table.long_mix or table.mix:
        lengths = TokenShards(stage.shards(source)).lengths
        available[source] = int(lengths[lengths >= table.min_document_tokens].sum())
        count = int((lengths >= table.min_document_tokens).sum())
        events.say(
            f"{source}: {count:,} documents of {table.min_document_tokens:,} tokens and more, {available[source]:,} tokens"
        )
    total = sum(available.values())
    parts = [
        DataPart(
            source,
            str(stage.shards(source)),
            table.long_share * tokens / total,
            "best_fit",
            table.min_document_tokens,
        )
        for source, tokens in available.items()
        if tokens
    ]
    short = (1 - table.long_share) if parts else 1.0
    parts += [
        DataPart(source, str(stage.shards(source)), short * share, "best_fit") for source, share in table.mix.items() if short
    ]
    return parts


def additions(stage: Stage) -> dict[str, Any]:
    return {"rope": asdict(scaling(stage))}


SPECIALTY = Specialty(data, additions, report)
