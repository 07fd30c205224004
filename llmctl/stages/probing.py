"""`llmctl probe`: what a frozen model's hidden states tell of labelled texts, beside a bag of words and the untrained model."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from llmctl import events
from llmctl.errors import StageFailed, UserError, require_package
from llmctl.runs.files import write_json
from llmctl.runs.store import RunStore, default_root
from llmctl.stages.labelled import Labelled, read_labelled
from llmctl.stages.measure import measuring, opened

if TYPE_CHECKING:
    from llmctl.evals.probe import Draw, Point

WORDS, UNTRAINED = "bag of words", "untrained"
MAP_CLASSES, MAP_DOCUMENTS = 12, 40
"""Classes of a map, as many as can be told apart by colour; documents of each, at most."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What is to be probed, and how."""

    text_column: str | None = None
    label_column: str | None = None
    test: Path | None = None
    shots: str = "1,2,4,8,16"
    seeds: int = 5
    seed: int = 1
    layer: str = "all"
    pool: Literal["mean", "last"] = "mean"
    test_rows: int = 1000
    map_classes: str | None = None


@dataclass(frozen=True, slots=True)
class Job:
    """Documents that are read by the model, numbered anew, and which of them teach and test."""

    texts: list[str]
    labels: np.ndarray
    places: list[str]
    draws: "list[Draw]"
    test: list[int]
    shots: list[int]


def probe_checkpoint(
    checkpoint: str, data: Path, wish: Wish, plots: Path | None, json_file: Path | None, runs: Path | None
) -> None:
    """Tables; pictures into `plots`; numbers into `json_file`.

    Raises:
        UserError: an option, the data or the checkpoint is not as expected, or scikit-learn is not installed.
        StageFailed: a text's features are no numbers.
    """
    require_package("sklearn", "llmctl probe", "scikit-learn")
    if json_file is not None and not json_file.absolute().parent.is_dir():
        raise UserError(f"--json {json_file}: there is no folder {json_file.parent}")
    from llmctl.stages.adapters import find_adapter
    from llmctl.stages.session import find_or_newest

    shots = _shots(wish.shots)
    documents = read_labelled(data, wish.test, wish.text_column, wish.label_column, wish.seed)
    chosen = _named_classes(wish.map_classes, documents)
    job = _job(documents, shots, wish)
    store = RunStore(runs or default_root())
    adapter = find_adapter(store, checkpoint)
    model = str(adapter) if adapter is not None else find_or_newest(store, checkpoint)
    if plots is not None:
        try:
            plots.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"--plots {plots}: no such folder can be made: {error.strerror}") from None
    contenders, layers = _contenders(model, _name_of(model, checkpoint), job, wish)

    from llmctl.evals.probe import curve

    points = curve([one for one, _ in contenders], job.labels, job.draws, job.test, job.shots)
    if not points:
        raise UserError(f"{data}: no number of --shots {wish.shots} leaves two classes with enough examples")
    _show(points, layers, wish)
    if plots is not None:
        _draw(points, {c.name: c.rows for c, by_model in contenders if by_model}, job, chosen, wish, plots)
    if json_file is not None:
        plain = [
            {**asdict(p), "chance": p.chance, "mean": {n: p.mean(n) for n in p.accuracies}, "stderr": _errors(p)} for p in points
        ]
        options = {key: str(value) if isinstance(value, Path) else value for key, value in asdict(wish).items()}
        write_json(json_file, {"model": model, "data": str(data), "options": options, "chosen": layers, "points": plain})


def _errors(point: "Point") -> dict[str, float | None]:
    """JSON has no NaN, which is the error of one draw."""
    return {name: point.stderr(name) if len(values) > 1 else None for name, values in point.accuracies.items()}


def _name_of(model: str, checkpoint: str) -> str:
    path = Path(model)
    folder = path.parent.name.rpartition("-")[0] if path.name == "model" and path.parent.name else ""
    return folder or path.name or checkpoint


def _shots(text: str) -> list[int]:
    try:
        found = sorted({int(part) for part in text.split(",")})
    except ValueError:
        found = []
    if not found or found[0] < 1:
        raise UserError(f"--shots {text}: expected numbers of examples of each class, from 1 on, as 1,2,4,8,16")
    return found


def _named_classes(text: str | None, documents: Labelled) -> list[str]:
    """Classes of the map: those named, else the most frequent."""
    counts = Counter(documents.labels[document] for document in documents.training)
    if text is None:
        return [label for label, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:MAP_CLASSES]]
    named = [part.strip() for part in text.split(",")]
    if unknown := [label for label in named if label not in counts]:
        import difflib

        near = difflib.get_close_matches(unknown[0], counts, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(sorted(counts)[:12])}"
        raise UserError(f"--map-classes: no class {unknown[0]!r}; {hint}")
    return named


def _job(documents: Labelled, shots: list[int], wish: Wish) -> Job:
    """Draw the examples and the questions; what is neither is not read."""
    from llmctl.evals.probe import draw

    seeds = range(wish.seed, wish.seed + wish.seeds)
    draws = [draw(documents.labels, documents.training, shots[-1], seed) for seed in seeds]
    asked = [document for document in documents.test if documents.labels[document] in draws[0]]
    if len(asked) > wish.test_rows:
        order = np.random.default_rng(wish.seed).permutation(len(asked))[: wish.test_rows]
        events.say(f"test: {wish.test_rows:,} of {len(asked):,} rows, drawn by seed {wish.seed} (--test-rows for more)")
        asked = [asked[place] for place in sorted(order)]
    if not asked:
        raise UserError("no test row is of a class that has training examples")
    for count in shots:
        few = [label for label, examples in draws[0].items() if len(examples) < count]
        if few:
            named = ", ".join(few[:5]) + (", ..." if len(few) > 5 else "")
            events.warn(f"{count} examples: {len(few)} of {len(draws[0])} classes have fewer and are left out there: {named}")
    used = sorted({int(d) for examples in draws for rows in examples.values() for d in rows} | set(asked))
    number = {document: place for place, document in enumerate(used)}
    renumbered = [{label: np.array([number[int(d)] for d in rows]) for label, rows in one.items()} for one in draws]
    return Job(
        [documents.texts[document] for document in used],
        np.array([documents.labels[document] for document in used]),
        [documents.places[document] for document in used],
        renumbered,
        [number[document] for document in asked],
        shots,
    )


def _contenders(model: str, name: str, job: Job, wish: Wish) -> tuple[list[tuple[Any, bool]], dict[str, dict[str, Any]]]:
    """Contenders, each with whether it is a model; and what was chosen for each."""
    import torch

    from llmctl.evals.features import sequences_of
    from llmctl.evals.probe import Contender, best_strength
    from llmctl.model.load import new_model
    from llmctl.model.loss import base_model
    from llmctl.stages.adapters import adapted, tokenizer_for_model

    adapter = adapted(model)
    whole = model if adapter is None else adapter.base
    tokenizer = tokenizer_for_model(model)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    found: list[tuple[Any, bool]] = []
    chosen: dict[str, dict[str, Any]] = {}
    for title in (name, UNTRAINED):
        with opened(model) if title == name else measuring(new_model(whole, wish.seed).to(device)) as loaded:
            longest = int(base_model(loaded).config.get_text_config().max_position_embeddings)
            sequences, cut = sequences_of(tokenizer, job.texts, longest)
            if cut and title == name:
                events.warn(f"{cut:,} texts are longer than the context of {longest:,} tokens; what is beyond is not read")
            layer, scores = _layer(loaded, sequences, tokenizer, job, wish, title)
            rows = _features(loaded, sequences, tokenizer, job, [layer], wish, range(len(job.texts)))[:, 0]
        strength = best_strength(rows, job.labels, job.draws[0])
        found.append((Contender(title, rows, strength), True))
        chosen[title] = {"layer": layer, "C": strength, "cross_validation": {str(k): v for k, v in scores.items()}}
    words = np.array(job.texts, dtype=object)
    strength = best_strength(words, job.labels, job.draws[0])
    found.insert(1, (Contender(WORDS, words, strength), False))
    chosen[WORDS] = {"C": strength}
    return found, chosen


def _layer(
    model: Any, sequences: list[list[int]], tokenizer: Any, job: Job, wish: Wish, title: str
) -> tuple[int, dict[int, float]]:
    from llmctl.evals.features import layer_count
    from llmctl.evals.probe import SELECTED, best_layer

    count = layer_count(model)
    if wish.layer == "last":
        return count, {}
    if wish.layer != "all":
        if not wish.layer.isdecimal() or int(wish.layer) > count:
            raise UserError(f"--layer {wish.layer}: expected a number from 0 (the embedding) to {count}, `last`, or `all`")
        return int(wish.layer), {}
    layers = list(range(count + 1))
    examples = {label: documents[:SELECTED] for label, documents in job.draws[0].items()}
    documents = np.concatenate(list(examples.values()))
    found = _features(model, sequences, tokenizer, job, layers, wish, documents.tolist())
    number = {int(document): place for place, document in enumerate(documents)}
    own = {label: np.array([number[int(d)] for d in rows]) for label, rows in examples.items()}
    layer, scores = best_layer({layer: found[:, place] for place, layer in enumerate(layers)}, job.labels[documents], own)
    told = ", ".join(f"{layer}: {100 * score:.0f} %" for layer, score in scores.items())
    events.say(f"{title}: layer {layer} of {count} by cross-validation on training examples ({told or 'too few for one'})")
    return layer, scores


def _features(
    model: Any,
    sequences: list[list[int]],
    tokenizer: Any,
    job: Job,
    layers: list[int],
    wish: Wish,
    documents: Sequence[int],
) -> np.ndarray:
    """[documents, layers, D] of those `documents`."""
    from llmctl.evals.features import features, unusable

    begun = tokenizer.eos_token_id is not None
    found = features(model, [sequences[document] for document in documents], layers, wish.pool, begun)
    if (wrong := unusable(found)) is not None:
        document = documents[wrong]
        text = job.texts[document]
        raise StageFailed(f"{job.places[document]}: the model's features of {text[:60]!r} are no numbers (NaN or infinite)")
    return found


def _show(points: "Sequence[Point]", chosen: dict[str, dict[str, Any]], wish: Wish) -> None:
    names = list(points[0].accuracies)
    rows = tuple(
        (
            str(point.shots),
            str(len(point.classes)),
            *(f"{100 * point.mean(n):.1f}" + (f" ± {100 * point.stderr(n):.1f}" if wish.seeds > 1 else "") for n in names),
            f"{100 * point.chance:.1f}",
        )
        for point in points
    )
    draws = f"{wish.seeds} draw{'s' if wish.seeds > 1 else ''} of examples"
    events.emit(events.Table(f"linear probe, accuracy % ± error of {draws}", ("shots", "classes", *names, "chance"), rows))
    layers = [f"{name}: " + ", ".join(f"{k} {v:g}" for k, v in chosen[name].items() if k in ("layer", "C")) for name in names]
    events.say(f"chosen on training examples: {'; '.join(layers)}; pool {wish.pool}")


def _draw(
    points: "Sequence[Point]", by_model: dict[str, np.ndarray], job: Job, classes: list[str], wish: Wish, folder: Path
) -> None:
    from llmctl.evals.probe_plots import flat, plot_curve, plot_map

    drawn = plot_curve(points, f"Linear probe, {len(points[0].classes)} classes, mean ± standard error", folder)
    shown = [document for label in classes for document in np.flatnonzero(job.labels == label)[:MAP_DOCUMENTS].tolist()]
    if len(shown) > 3:
        title = f"t-SNE of {len(shown)} documents of {len(classes)} of {len(job.draws[0])} classes"
        panels = {name: flat(rows[shown], wish.seed) for name, rows in by_model.items()}
        drawn += plot_map(panels, [str(job.labels[document]) for document in shown], title, folder)
        if wish.map_classes is None and len(classes) < len(job.draws[0]):
            events.say(f"map: the {len(classes)} most frequent classes (--map-classes names others): {', '.join(classes)}")
    events.say(f"pictures: {', '.join(map(str, drawn))}")
