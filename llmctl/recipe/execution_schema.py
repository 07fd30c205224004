"""Tables about how the work is done, which change nothing of what is made."""

from typing import Any

from llmctl.recipe.fields import Table, execution

OURS = {
    "train_batch_size": "batch_tokens",
    "train_micro_batch_size_per_gpu": "micro_batch",
    "gradient_accumulation_steps": "micro_batch",
    "gradient_clipping": "max_grad_norm",
    "bf16": "precision",
    "fp16": "precision",
    "data_types": "precision",
    "optimizer": "optimizer, lr and muon_lr",
    "scheduler": "schedule",
    "zero_optimization.stage": "zero_stage",
    "zero_optimization.offload_optimizer": "offload_optimizer",
}
"""Keys of DeepSpeed's configuration that keys of a stage decide."""


def decided_elsewhere(table: dict[str, Any]) -> list[tuple[str, str]]:
    """Keys of [deepspeed] that have no place there, each with what decides it."""
    zero = table.get("zero_optimization")
    inner = [f"zero_optimization.{key}" for key in zero] if isinstance(zero, dict) else []
    return [(key, OURS[key]) for key in (*table, *inner) if key in OURS]


class CheckpointTable(Table):
    """[STAGE.checkpoint]: when the trainer's state is written while a stage runs."""

    every_minutes: float = execution(2.0, gt=0)
    """Minutes between two checkpoints."""
    every_steps: int | None = execution(None, ge=1)
    """Steps between two checkpoints, beside the minutes."""
    keep: int = execution(2, ge=1)
    """Checkpoints that stay; an older one is removed when a newer one is whole."""
    keep_every: int | None = execution(None, ge=1)
    """Steps after which the model is kept for good, as a Hugging Face folder in `kept/`."""


class TrackingTable(Table):
    """[tracking]: where numbers go beside `metrics.jsonl`."""

    tensorboard: bool = execution(False)
    """Write TensorBoard event files into the stage's folder, `tensorboard/` (needs the `track` extra)."""
