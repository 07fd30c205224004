"""midtrain: the parent's weights and moments on a better mix, the rate straight down to zero.

Reported: held-out bits per byte on the stage's target domain and on the reference text, before and after.
"""

from llmctl import events
from llmctl.stages.measure import change, heldout_bits, opened, parent_bits
from llmctl.stages.pretrain import data
from llmctl.stages.training import Specialty, Stage


def report(stage: Stage) -> dict[str, float]:
    table = stage.table
    texts = [name for name in table.mix if name in stage.recipe.text_sources]  # of token ids nothing is held out
    target = getattr(table, "target", None) or max(texts, key=lambda name: table.mix[name], default=stage.reference_source)
    sources = dict.fromkeys([target, stage.reference_source])
    bits: dict[str, list[float]] = {source: [] for source in sources}
    for model_folder in (stage.parent_model, stage.model):
        assert model_folder is not None
        with opened(model_folder) as model:
            for source in sources:
                known = parent_bits(stage, source, table.seq_len) if model_folder == stage.parent_model else None
                bits[source].append(known or heldout_bits(stage, model, source, table.seq_len))
    events.emit(
        events.Table(
            f"{stage.name}: bits per byte, held-out",
            ("source", "before", "after", "change"),
            tuple(
                (f"{source} (target)" if source == target else source, f"{b:.3f}", f"{a:.3f}", change(b, a))
                for source, (b, a) in bits.items()
            ),
        )
    )
    metrics = {f"bits_per_byte/{source}": after for source, (_, after) in bits.items()}
    metrics |= {f"bits_per_byte_before/{source}": before for source, (before, _) in bits.items()}
    return metrics | {
        "bits_per_byte": bits[stage.reference_source][1],
        "bits_per_byte_bytes": stage.recipe.eval.bits_per_byte_bytes,
    }


SPECIALTY = Specialty(data, lambda stage: {}, report)
