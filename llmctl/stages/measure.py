"""Models opened for measuring, and the numbers that several stages report."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from llmctl.stages.training import Stage

Precision = Literal["auto", "bf16", "fp32"]


@contextmanager
def opened(
    model: str | Path, change: Callable[[Any], None] | None = None, base: str | None = None, precision: Precision = "auto"
) -> Iterator[Any]:
    """The model of a folder or a hub name on the fastest device, ready for packed scoring, without gradients; `change` is made
    to it in memory. A folder may hold an adapter, which is put on its `base` (None: as `adapted` finds it). `precision` is that
    of the products: weights are fp32."""
    import torch

    from llmctl.model.load import load_model
    from llmctl.stages.adapters import adapted, load_adapted

    device = "cuda" if torch.cuda.is_available() else "cpu"
    adapter = adapted(model, base)
    loaded = load_model(str(model), device) if adapter is None else load_adapted(adapter, device)
    if change is not None:
        change(loaded)
    with measuring(loaded, precision) as ready:
        yield ready


@contextmanager
def measuring(loaded: Any, precision: Precision = "auto") -> Iterator[Any]:
    """A model, on its device already, ready for packed scoring, without gradients."""
    import torch

    from llmctl.model.attention import use_packed_attention
    from llmctl.model.precision import multiplies_bfloat16

    device = next(loaded.parameters()).device.type
    in_bfloat16 = precision == "bf16" or (precision == "auto" and multiplies_bfloat16(device))
    use_packed_attention(loaded)
    loaded.eval()
    with torch.no_grad(), torch.autocast(device, torch.bfloat16, enabled=in_bfloat16):
        yield loaded


def tokenizer_of(stage: Stage) -> Any:
    from llmctl.tokens.tokenizer import load_tokenizer

    return load_tokenizer(str(stage.tokenizer))


def heldout_bits(stage: Stage, model: Any, source: str, seq_len: int) -> float:
    """Bits per byte of the held-out sample of `source`, in windows of `seq_len` tokens."""
    from llmctl.evals.bits import bits_per_byte
    from llmctl.stages.heldout import sample_texts

    texts = sample_texts(stage.corpus, source, stage.recipe.eval.bits_per_byte_bytes)
    return bits_per_byte(model, tokenizer_of(stage), texts, seq_len).bits_per_byte


def parent_bits(stage: Stage, source: str, seq_len: int) -> float | None:
    """The same of the parent, where it has measured itself: on the same sample of the same source, in the same windows."""
    parent = stage.parent
    table = None if parent is None else stage.recipe.stages.get(parent.stage)
    if parent is None or getattr(table, "seq_len", None) != seq_len or source != stage.reference_source:
        return None
    measured = parent.manifest["metrics"]
    return measured.get("bits_per_byte") if measured.get("bits_per_byte_bytes") == stage.recipe.eval.bits_per_byte_bytes else None


def change(before: float, after: float) -> str:
    if not before:
        return ""
    return f"{100 * (after - before) / before:+.1f} %"
