"""What a long-context stage has to show: that the longer context is used, and that the old length has not suffered."""

from collections.abc import Callable, Mapping
from typing import Any

from llmctl import events
from llmctl.errors import StageFailed
from llmctl.recipe.long_schema import GuardTable
from llmctl.runs.files import staged_folder, write_json
from llmctl.stages.context import parent_length, scaling, table_of
from llmctl.stages.long_measure import Materials, Measured, materials, measure
from llmctl.stages.long_show import draw, metrics, plain, show
from llmctl.stages.measure import Precision, opened, tokenizer_of
from llmctl.stages.training import Stage

SCALED = "RoPE scaled alone"


def report(stage: Stage) -> dict[str, float]:
    """Tables, `long/scores.json` and pictures beside it; metrics.

    Raises:
        StageFailed: the short context has suffered, and the recipe's policy is to stop then.
    """
    from llmctl.model.rope import extend_context

    assert stage.parent_model is not None
    table, tokenizer = table_of(stage), tokenizer_of(stage)
    found = materials(stage.corpus, stage.recipe, tokenizer, parent_length(stage), table.seq_len, table.guard)

    def scale(model: Any) -> None:
        extend_context(model, scaling(stage), table.seq_len)

    models = {"before": stage.parent_model, SCALED: stage.parent_model, "after": str(stage.model)}
    results = prove(found, models, tokenizer, {SCALED: scale})
    guard = compare(found, results["before"], results["after"])
    show(stage.name, found, results, guard)
    with staged_folder(stage.folder / "long") as folder:
        write_json(folder / "scores.json", plain(found, results, guard))
        draw(found, results, folder)
    judge(stage.name, found.guard, guard)
    bits = {f"bits_per_byte_{when}": getattr(one, when) for one in guard[:1] for when in ("before", "after")}
    return bits | metrics(found, results)


def prove(
    found: Materials,
    models: dict[str, str],
    tokenizer: Any,
    changes: Mapping[str, Callable[[Any], None]] | None = None,
    precision: Precision = "auto",
) -> dict[str, Measured]:
    """Measure the models of these folders; those that are changed in memory first only by their loss."""
    results, changes = {}, changes or {}
    for name, folder in models.items():
        with opened(folder, changes.get(name), precision=precision) as model:
            results[name] = measure(model, tokenizer, found, curve_alone=name in changes)
    return results


def compare(found: Materials, before: Measured, after: Measured) -> list[Any]:
    """The guard's `Comparison`s: bits per byte first, then each task's score."""
    import numpy as np

    from llmctl.evals.compare import paired
    from llmctl.evals.guard import Comparison, bits_comparison

    sizes = np.array([len(text.encode()) for text in found.texts], dtype=float)
    comparisons = [bits_comparison(before.bits, after.bits, sizes, found.guard.bits_per_byte)]
    for task, result in after.tasks.items():
        one = paired(before.tasks[task], result)
        better = one.before.higher_is_better
        comparisons.append(Comparison(task, one.before.value, one.after.value, one.stderr, found.guard.accuracy, better))
    return comparisons


def judge(name: str, guard: GuardTable, comparisons: list[Any]) -> None:
    """Warn of what has become worse than allowed, or stop.

    Raises:
        StageFailed: it has, and the policy is "stop".
    """
    lost = [one for one in comparisons if one.verdict == "worse"]
    if not lost:
        return
    told = "; ".join(
        f"{one.measure} {one.before:.3f} -> {one.after:.3f} ({one.difference:+.3f} ± {one.error:.3f}, allowed "
        f"{'-' if one.higher_is_better else '+'}{one.allowed:.3f})"
        for one in lost
    )
    what = f"{name}: the short context has suffered: {told}"
    advice = "a larger share of the mix (a smaller long_share), a lower rate or fewer tokens keep more of it"
    if guard.policy == "warn":
        events.warn(f"{what}; {advice}")
        return
    raise StageFailed(
        f"{what}. The trained model stays in the stage's folder. What helps: {advice}. To take the model as it is, raise "
        f'guard.bits_per_byte or guard.accuracy of [{name}], or set guard.policy = "warn", and run the same command again: '
        "it only measures then."
    )
