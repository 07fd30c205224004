"""What the measurements of a longer context look like: tables, plain values, and pictures."""

from pathlib import Path
from typing import Any

from llmctl import events
from llmctl.stages.long_measure import Materials, Measured, lengths_between

Results = dict[str, Measured]
"""By the name that tables show, the parent first."""


def show(name: str, found: Materials, results: Results, guard: list[Any]) -> None:
    """Tables of loss by position, tasks, needles and the guard's `Comparison`s; `name` is the stage's."""
    show_positions(name, found, results)
    show_tasks(name, results)
    show_needles(name, results)
    if guard:
        show_guard(name, found, guard)


def coarse_edges(found: Materials) -> list[int]:
    """The parent's context, and ever twice as much."""
    return [0, *lengths_between(found.short, found.length)]


def show_positions(name: str, found: Materials, results: Results) -> None:
    from llmctl.evals.positions import by_range

    if not found.sequences:
        return
    losses = {model: by_range(measured.losses, coarse_edges(found)) for model, measured in results.items()}
    ranges = next(iter(losses.values()))
    rows = [(f"{low:,}-{high - 1:,}", *(f"{losses[model][low, high][0]:.3f}" for model in results)) for low, high in ranges]
    title = f"{name}: loss by position on {len(found.sequences)} held-out documents of {found.length:,} tokens and more"
    events.emit(events.Table(title, ("positions", *results), tuple(rows)))


def show_tasks(name: str, results: Results) -> None:
    """Choice accuracy and exact match of every model by task and length."""
    from llmctl.evals.long_context import scores_by
    from llmctl.tokens.buckets import short

    models = {model: measured.answers for model, measured in results.items() if measured.answers}
    if not models:
        return
    scores = {model: scores_by(answers, lambda one: (one.task, one.length)) for model, answers in models.items()}
    means = {model: scores_by(answers, lambda one: ("all", one.length)) for model, answers in models.items()}
    asked = next(iter(scores.values()))
    lengths, tasks = sorted({length for _, length in asked}), list(dict.fromkeys(task for task, _ in asked))
    for measure, value, error in (("choice accuracy", "chosen", "chosen_error"), ("exact match", "exact", "exact_error")):
        rows = []
        for task in [*tasks, "all"]:
            for model in models:
                found = [(scores[model] | means[model]).get((task, length)) for length in lengths]
                chance = next(score.chance for score in found if score is not None)
                cells = ["" if s is None else percent(getattr(s, value), getattr(s, error)) for s in found]
                beside = [f"{100 * chance:.0f}"] if value == "chosen" else []
                rows.append((task if model == next(iter(models)) else "", model, *beside, *cells))
        if not any(getattr(s, value) for of_model in scores.values() for s in of_model.values()):
            events.say(f"{measure}: none, by no model")
            continue
        columns = ("task", "model", *(["chance"] if value == "chosen" else []), *map(short, lengths))
        events.emit(events.Table(f"{name}: {measure} by length of the context, % ± standard error", columns, tuple(rows)))


def percent(mean: float, error: float) -> str:
    """As 40 ± 22; without an error where it is not known."""
    return f"{100 * mean:.0f}" if error != error else f"{100 * mean:.0f} ± {100 * error:.0f}"


def needle_maps(results: Results) -> dict[str, dict[tuple[float, int], Any]]:
    """Scores of the models that have a map, by depth and length."""
    from llmctl.evals.long_context import scores_by

    return {
        model: scores_by(measured.needles, lambda one: (float(one.depth or 0.0), one.length))
        for model, measured in results.items()
        if measured.needles
    }


def show_needles(name: str, results: Results) -> None:
    from llmctl.tokens.buckets import short

    maps = needle_maps(results)
    if not maps:
        return
    cells = next(iter(maps.values()))
    lengths = sorted({length for _, length in cells})
    rows = []
    for depth in sorted({depth for depth, _ in cells}):
        found = [f"{100 * scores[depth, length].chosen:.0f}" for scores in maps.values() for length in lengths]
        rows.append((f"{100 * depth:.0f} %", *found))
    columns = ("depth", *(f"{model} {short(length)}" for model in maps for length in lengths))
    asked = next(iter(cells.values()))
    title = f"{name}: needle found by depth and length, % of {asked.questions} by choice (chance {100 * asked.chance:.0f})"
    events.emit(events.Table(title, columns, tuple(rows)))


def show_guard(name: str, found: Materials, guard: list[Any]) -> None:
    rows = []
    for one in guard:
        scale, digits, unit = (100, 1, " %") if one.higher_is_better else (1, 3, "")
        change = f"{scale * one.difference:+.{digits}f} ± {scale * one.error:.{digits}f}"
        allowed = f"{'-' if one.higher_is_better else '+'}{scale * one.allowed:.{digits}f}"
        values = [f"{scale * value:.{digits}f}{unit}" for value in (one.before, one.after)]
        rows.append((one.measure, *values, change, allowed, one.verdict))
    title = f"{name}: short context, {found.short:,} tokens, held-out {found.source}"
    columns = ("measure", "before", "after", "difference ± error", "allowed", "verdict")
    events.emit(events.Table(title, columns, tuple(rows)))


def metrics(found: Materials, results: Results) -> dict[str, float]:
    """Loss by position range and accuracies by task and length, by name."""
    from llmctl.evals.long_context import scores_by
    from llmctl.evals.positions import by_range

    values: dict[str, float] = {}
    for model, measured in results.items():
        if measured.losses is not None:
            ranges = by_range(measured.losses, coarse_edges(found))
            values |= {f"loss/{model}/{low}-{high}": mean for (low, high), (mean, _) in ranges.items()}
        for (task, length), score in scores_by(measured.answers, lambda one: (one.task, one.length)).items():
            values |= {f"choice/{model}/{task}/{length}": score.chosen, f"exact/{model}/{task}/{length}": score.exact}
    return values


def plain(found: Materials, results: Results, guard: list[Any]) -> dict[str, Any]:
    """Everything as values of JSON; an error that is not known is null."""
    from dataclasses import asdict

    from llmctl.evals.long_context import scores_by

    models: dict[str, Any] = {}
    names = ("from", "to", "loss", "error")
    for model, measured in results.items():
        by_task = scores_by(measured.answers, lambda one: (one.task, one.length))
        by_depth = scores_by(measured.needles, lambda one: (one.depth, one.length))
        models[model] = {
            "loss_by_position": [dict(zip(names, part, strict=True)) for part in curve(found, measured.losses)],
            "tasks": [{"task": task, "length": length} | asdict(score) for (task, length), score in by_task.items()],
            "needles": [{"depth": depth, "length": length} | asdict(score) for (depth, length), score in by_depth.items()],
        }
    compared = [asdict(one) | {"difference": one.difference, "verdict": one.verdict} for one in guard]
    values = {"parent_length": found.short, "length": found.length, "documents": len(found.sequences)}
    return without_nan(values | {"seed": found.seed, "models": models, "guard": compared})


def without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: without_nan(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [without_nan(inner) for inner in value]
    return None if isinstance(value, float) and value != value else value


def curve(found: Materials, losses: Any) -> list[tuple[int, int, float, float]]:
    """(from, to, mean, standard error) of losses [documents, positions], or of differences of them, over ever longer ranges."""
    from llmctl.evals.positions import by_range, curve_edges

    if losses is None:
        return []
    return [(low, high, *value) for (low, high), value in by_range(losses, curve_edges(found.length)).items()]


def draw(found: Materials, results: Results, folder: Path) -> list[Path]:
    """`loss_by_position.png` and `needle.png` in `folder`, as far as they were measured; returns what was written."""
    from llmctl.evals.plots import plot_curves, plot_needles

    folder.mkdir(parents=True, exist_ok=True)
    drawn: list[Path] = []
    if found.sequences:
        losses = {model: measured.losses for model, measured in results.items()}
        first, *others = losses
        curves = {model: curve(found, of_model) for model, of_model in losses.items()}
        differences = {model: curve(found, losses[model] - losses[first]) for model in others}
        drawn.append(folder / "loss_by_position.png")
        plot_curves(curves, differences, found.short, len(found.sequences), drawn[-1])
    if maps := needle_maps(results):
        drawn.append(folder / "needle.png")
        plot_needles(maps, drawn[-1])
    return drawn
