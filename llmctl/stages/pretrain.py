"""pretrain: a new model on the mix. Reported: held-out bits per byte beside what `xz -9e` makes of the same text."""

from typing import Any

from llmctl import events
from llmctl.stages.measure import heldout_bits, opened
from llmctl.stages.training import Specialty, Stage


def data(stage: Stage) -> list[Any]:
    from llmctl.train.job import DataPart

    return [DataPart(source, str(stage.shards(source)), share, stage.table.packing) for source, share in stage.table.mix.items()]


def report(stage: Stage) -> dict[str, float]:
    from llmctl.corpus.baselines import xz_bits_per_byte, xz_primed_bits_per_byte
    from llmctl.corpus.documents import read_documents
    from llmctl.stages.heldout import sample_texts

    source = stage.reference_source
    texts = sample_texts(stage.corpus, source, stage.recipe.eval.bits_per_byte_bytes)
    with opened(stage.model) as model:
        bits = heldout_bits(stage, model, source, stage.table.seq_len)
    events.say("compressing the same text with xz for comparison")
    xz = xz_bits_per_byte(texts)
    primed = xz_primed_bits_per_byte((d.text for d in read_documents(stage.corpus, source, "train")), texts)
    size = sum(len(text.encode()) for text in texts)
    events.emit(
        events.Table(
            f"{stage.name}: bits per byte on {size / 1e3:,.0f} kB of held-out {source}",
            ("this model", "xz -9e", "xz -9e after the training text"),
            ((f"{bits:.3f}", f"{xz:.3f}", f"{primed:.3f}"),),
        )
    )
    return {
        "bits_per_byte": bits,
        "bits_per_byte_bytes": stage.recipe.eval.bits_per_byte_bytes,
        "xz_bits_per_byte": xz,
        "xz_primed_bits_per_byte": primed,
    }


SPECIALTY = Specialty(data, lambda stage: {}, report)
