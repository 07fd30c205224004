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
from llmctl.stages.measure import change, heldout_bits, opened, tokenizer_of
from llmctl.stages.training import Specialty, Stage

BYTES_PER_TOKEN_AT_MOST = 6  # of a trained tokenizer on text or code: documents this long surely fill the context


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
            f"{source} (long)",
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
    from llmctl.model.rope import RopeScaling

    rope = _table(stage).rope
    return RopeScaling(
        rope.method,
        rope.factor,
        rope.original_length or parent_length(stage),
        rope.beta_fast,
        rope.beta_slow,
        rope.layers,
    )


def parent_length(stage: Stage) -> int:
    """Context length of the parent, in tokens."""
    from llmctl.model.load import load_config

    return int(load_config(str(stage.parent_model)).max_position_embeddings)


def report(stage: Stage) -> dict[str, float]:
    from llmctl.evals.positions import loss_by_position
    from llmctl.model.load import load_model, save_model
    from llmctl.model.rope import extend_context
    from llmctl.stages.heldout import long_documents

    table, tokenizer = _table(stage), tokenizer_of(stage)
    length, short = table.seq_len, parent_length(stage)
    documents = long_documents(
        stage.corpus,
        stage.recipe.text_sources,
        length * BYTES_PER_TOKEN_AT_MOST // 2,
        4 * stage.recipe.eval.long_documents,
    )
    texts = [document.text for document in documents]
    edges = [0, short, *[e for e in (2 * short, length // 2) if short < e < length], length]
    edges = sorted(set(edges))
    source = stage.reference_source
    with tempfile.TemporaryDirectory() as scaled:
        model = load_model(str(stage.parent_model))
        extend_context(model, scaling(stage), length)
        save_model(model, tokenizer, Path(scaled) / "model")
        losses, bits = {}, {}
        for name, folder in (
            ("before", stage.parent_model),
            ("RoPE scaled alone", f"{scaled}/model"),
            ("after", stage.model),
        ):
            assert folder is not None
            with opened(folder) as model:
                losses[name] = loss_by_position(model, tokenizer, texts, length, edges, limit=stage.recipe.eval.long_documents)
                if name != "RoPE scaled alone":
                    bits[name] = heldout_bits(stage, model, source, short)
    ranges = list(losses["after"])
    events.emit(
        events.Table(
            f"{stage.name}: loss by position on held-out documents of {length:,} tokens and more",
            ("positions", *losses),
            tuple((f"{low:,}-{high - 1:,}", *(f"{losses[n][low, high]:.3f}" for n in losses)) for low, high in ranges),
        )
    )
    events.emit(
        events.Table(
            f"{stage.name}: bits per byte at {short:,} tokens, held-out {source}",
            ("before", "after", "change"),
            ((f"{bits['before']:.3f}", f"{bits['after']:.3f}", change(bits["before"], bits["after"])),),
        )
    )
    metrics = {f"bits_per_byte_{name}": value for name, value in bits.items()} | {"bits_per_byte": bits["after"]}
    for name, by_range in losses.items():
        metrics |= {f"loss/{name}/{low}-{high}": value for (low, high), value in by_range.items()}
    return metrics


SPECIALTY = Specialty(data, additions, report)
