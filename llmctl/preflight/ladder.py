"""Batch and peak rate from the size of the model, where the recipe leaves them out: Olmo 3's rules for small models.

OLMo-core's model ladder (`model_ladder/wsds_chinchilla_run_configurator.py`, after arXiv 2406.19146). N counts every weight but
the input embedding. Later stages keep the proportions that those of Olmo 3 7B have to its pretraining; an adapter takes ten
times the rate of full tuning ("LoRA Without Regret", Thinking Machines 2025).
"""

from math import log2

from llmctl.recipe.schema import TrainTable

FEWEST_STEPS = 100  # the rules are for 20 N tokens, thousands of steps; a short stage would have a handful
SMALLEST = 14_000_000  # of the ladder's models; for still smaller ones the rule would give rates that nothing was trained with
PROPORTIONS = {
    "pretrain": (1.0, 1.0),
    "midtrain": (0.69, 0.5),
    "longctx": (0.69, 1.0),
    "sft": (0.267, 0.25),
    "lora": (2.67, 0.25),
}
"""Peak rate and batch of each kind of stage, over those of pretraining."""


def peak_rate(parameters: int) -> float:
    """AdamW's peak rate for N parameters."""
    return 0.0047 * (max(parameters, SMALLEST) / 108e6) ** (-1 / 3) / 2


def batch_tokens(parameters: int) -> float:
    """Tokens in a step for N parameters."""
    return 2048 * 160 * (parameters / 108e6) ** (2 / 3)


def filled_in(table: TrainTable, parameters: int, budget: int) -> TrainTable:
    """The table with `lr` and `batch_tokens`, for a model of N parameters and a budget in tokens.

    The rows of a batch are a power of two, so that ranks and micro-batches divide them.
    """
    rate, batch = PROPORTIONS[table.kind]
    found: dict[str, float | int] = {}
    if table.lr is None:
        found["lr"] = float(f"{rate * peak_rate(parameters):.3g}")
    if table.batch_tokens is None:
        rows = min(batch * batch_tokens(parameters), budget / FEWEST_STEPS) / table.seq_len
        found["batch_tokens"] = table.seq_len * 2 ** round(log2(max(1.0, rows)))
    return table.model_copy(update=found)
