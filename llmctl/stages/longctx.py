"""longctx: a longer context by RoPE scaling, trained on packed long documents beside the parent's kind of mix.

Reported: loss by position on held-out long documents, for the parent as it was, the parent with scaled RoPE, and the
trained model; and bits per byte at the parent's length, which must not suffer.
"""

import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from llmctl import events
from llmctl.recipe.schema import LongContextTable
from llmctl.stages.measure import change, heldout_bits, opened, parent_bits, tokenizer_of
from llmctl.stages.training import Specialty, Stage


def _table(stage: Stage) -> LongContextTable:
    assert isinstance(stage.table, LongContextTable)
    return stage.table


def data(stage: Stage) -> list[Any]:
    """Long documents of every source of the mix make `long_share` of the tokens; the mix as it is makes the rest."""
    from llmctl.tokens.shards import TokenShards
    from llmctl.train.job import DataPart

    table = _table(stage)
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


def scaling(stage: Stage) -> Any:
    return scaling_from(_table(stage), parent_length(stage))


def scaling_from(table: LongContextTable, parent_length: int) -> Any:
    """The `RopeScaling` of a stage on a parent of that context length."""
    from llmctl.model.rope import RopeScaling

    rope = table.rope
    return RopeScaling(
        rope.method,
        rope.factor,
        rope.original_length or parent_length,
        rope.beta_fast,
        rope.beta_slow,
        rope.layers,
    )


def parent_length(stage: Stage) -> int:
    """Context length of the parent, in tokens."""
    from llmctl.model.load import load_config

    return int(load_config(str(stage.parent_model)).max_position_embeddings)


def report(stage: Stage) -> dict[str, float]:
    from llmctl.model.load import load_model, save_model
    from llmctl.model.rope import extend_context

    assert stage.parent_model is not None
    with tempfile.TemporaryDirectory() as scaled:
        model = load_model(stage.parent_model)
        extend_context(model, scaling(stage), _table(stage).seq_len)
        save_model(model, tokenizer_of(stage), Path(scaled) / "model")
        return compare(stage, {"before": stage.parent_model, "RoPE scaled alone": f"{scaled}/model", "after": str(stage.model)})


def compare(stage: Stage, models: dict[str, str]) -> dict[str, float]:
    """Loss by position of every model, and bits per byte at the parent's length of the first and the last."""
    from llmctl.evals.positions import loss_by_position

    length, short = _table(stage).seq_len, parent_length(stage)
    edges = sorted({0, short, *(e for e in (2 * short, length // 2) if short < e < length), length})
    sequences = heldout_sequences(stage)
    losses: dict[str, dict[tuple[int, int], float]] = {}
    before, after = parent_bits(stage, stage.reference_source, short), 0.0
    for name, folder in models.items():
        with opened(folder) as model:
            if sequences:
                losses[name] = loss_by_position(model, sequences, edges)
            if name == "before" and before is None:
                before = heldout_bits(stage, model, stage.reference_source, short)
            elif name == "after":
                after = heldout_bits(stage, model, stage.reference_source, short)
    assert before is not None
    if sequences:
        rows = [(f"{low:,}-{high - 1:,}", *(f"{losses[n][low, high]:.3f}" for n in models)) for low, high in losses["after"]]
        title = f"{stage.name}: loss by position on {len(sequences)} held-out documents of {length:,} tokens and more"
        events.emit(events.Table(title, ("positions", *models), tuple(rows)))
    events.emit(
        events.Table(
            f"{stage.name}: bits per byte at {short:,} tokens, held-out {stage.reference_source}",
            ("before", "after", "change"),
            ((f"{before:.3f}", f"{after:.3f}", change(before, after)),),
        )
    )
    metrics = {"bits_per_byte_before": before, "bits_per_byte_after": after}
    for name, by_range in losses.items():
        metrics |= {f"loss/{name}/{low}-{high}": value for (low, high), value in by_range.items()}
    return metrics


def heldout_sequences(stage: Stage) -> list[list[int]]:
    """Held-out documents that fill the context, cut to it; said aloud where there is none."""
    from llmctl.evals.positions import long_enough
    from llmctl.stages.heldout import long_documents

    length = _table(stage).seq_len
    documents = long_documents(stage.corpus, stage.recipe.text_sources, length)
    texts = (document.text for document in documents)
    found = long_enough(tokenizer_of(stage), texts, length, stage.recipe.eval.long_documents)
    if not found:
        events.warn(f"no held-out document has {length:,} tokens: the loss by position is not measured")
    return found


SPECIALTY = Specialty(data, additions, report)
