"""What a long-context stage has to show: that the longer context is used, and that the old length has not suffered."""

import tempfile
from pathlib import Path

from llmctl import events
from llmctl.stages.context import parent_length, scaling, table_of
from llmctl.stages.measure import change, heldout_bits, opened, parent_bits, tokenizer_of
from llmctl.stages.training import Stage


def report(stage: Stage) -> dict[str, float]:
    from llmctl.model.load import load_model, save_model
    from llmctl.model.rope import extend_context

    assert stage.parent_model is not None
    with tempfile.TemporaryDirectory() as scaled:
        model = load_model(stage.parent_model)
        extend_context(model, scaling(stage), table_of(stage).seq_len)
        save_model(model, tokenizer_of(stage), Path(scaled) / "model")
        return compare(stage, {"before": stage.parent_model, "RoPE scaled alone": f"{scaled}/model", "after": str(stage.model)})


def compare(stage: Stage, models: dict[str, str]) -> dict[str, float]:
    """Loss by position of every model, and bits per byte at the parent's length of the first and the last."""
    from llmctl.evals.positions import loss_by_position

    length, short = table_of(stage).seq_len, parent_length(stage)
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

    length = table_of(stage).seq_len
    documents = long_documents(stage.corpus, stage.recipe.text_sources, length)
    texts = (document.text for document in documents)
    found = long_enough(tokenizer_of(stage), texts, length, stage.recipe.eval.long_documents)
    if not found:
        events.warn(f"no held-out document has {length:,} tokens: the loss by position is not measured")
    return found
