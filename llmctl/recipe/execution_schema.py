"""Tables about how the work is done, which change nothing of what is made."""

from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from llmctl.recipe.fields import NAME, Table, execution
from llmctl.recipe.quantities import Duration
from llmctl_kernels.names import KERNELS, KernelName

OWN_TASKS = (".toml", ".jsonl")

TrackerName = Literal["tensorboard", "wandb", "trackio"]
TRACKERS: tuple[str, ...] = get_args(TrackerName)


def _as_path(name: str) -> str:
    """An own task's file by its whole path: the run is looked at from other folders, too."""
    return str(Path(name).expanduser().absolute()) if name.endswith(OWN_TASKS) and not name.startswith("lm-eval:") else name


SuiteName = Annotated[str, Field(min_length=1), AfterValidator(_as_path)]
"""Of a suite or a task, or the file of an own one: `llmctl eval --list` has all."""


def _known_kernels(setting: Any) -> Any:
    """One mistake, and not one for each form that the value might have had.

    Raises:
        ValueError: it is neither a word nor a list of kernels.
    """
    if isinstance(setting, list):
        for name in setting:
            if name not in KERNELS:
                near = get_close_matches(str(name), KERNELS, n=1)
                hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(KERNELS)}"
                raise ValueError(f"no kernel {name!r}; {hint}")
    elif setting not in ("auto", "torch"):
        raise ValueError(f"expected 'auto', 'torch', or a list of {', '.join(KERNELS)}")
    return setting


KernelSetting = Annotated[Literal["auto", "torch"] | list[KernelName], BeforeValidator(_known_kernels)]

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
    "sequence_parallel_size": "sequence_parallel",
    "data_parallel_size": "processes and sequence_parallel",
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
    keep_best: bool = execution(False)
    """Keep the model of the lowest held-out loss, as a Hugging Face folder in `kept/best`; needs [STAGE.eval] every_steps."""
    grace_seconds: Duration | None = execution(None, ge=1)
    """Time between a signal to stop and the kill. A checkpoint that takes longer is not begun then; left out: always."""


class LoopEvalTable(Table):
    """[STAGE.eval]: what is measured while a stage runs. It changes nothing of what is learnt."""

    every_steps: int | None = execution(None, ge=1)
    """Steps between two measurements; there is one at the end, too. Left out: none."""
    rows: int = execution(32, ge=1)
    """Held-out rows of `seq_len` tokens whose loss is measured, shared by the sources of the mix."""
    suites: list[SuiteName] = execution([])
    """Few-shot suites and tasks that are scored as well."""
    questions: int = execution(50, ge=1)
    """Questions of each task at most."""
    shots: int = execution(0, ge=0)
    """Examples in their prompts, of tasks that do not come with their own."""
    samples: list[str] = execution([])
    """Prompts that the model continues, for the reader."""
    sample_tokens: int = execution(48, ge=1)
    """Tokens of a continuation at most."""


def _known_trackers(setting: Any) -> Any:
    """One name is a list of one: `--set tracking.to=wandb`.

    Raises:
        ValueError: there is no such tracker.
    """
    names = [setting] if isinstance(setting, str) else setting
    for name in names if isinstance(names, list) else []:
        if name not in TRACKERS:
            near = get_close_matches(str(name), TRACKERS, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(TRACKERS)}"
            raise ValueError(f"no tracker {name!r}; {hint}")
    return names


class TrackingTable(Table):
    """[tracking]: where numbers go beside `metrics.jsonl`. Nothing leaves the machine unless it is told to."""

    to: Annotated[list[TrackerName], BeforeValidator(_known_trackers)] = execution([])
    """Trackers that get every number of every step, each with an extra of its name: `pip install 'llmctl[wandb]'`.
    tensorboard and wandb write into the stage's folder, trackio into its own store (TRACKIO_DIR)."""
    project: str = execution("llmctl", pattern=NAME)
    """What wandb and trackio file the run under; it is called RUN/STAGE there."""
    online: bool = execution(False)
    """Send to the W&B server while training; left out: as WANDB_MODE says, else offline, for `wandb sync` to send later."""

    @model_validator(mode="before")
    @classmethod
    def _as_before(cls, values: Any) -> Any:
        """Recipes that runs of version 0.1 have noted say `tensorboard = false`."""
        if not isinstance(values, dict) or "tensorboard" not in values:
            return values
        if values["tensorboard"]:
            raise ValueError('tensorboard = true is now to = ["tensorboard"]')
        return {key: value for key, value in values.items() if key != "tensorboard"}
