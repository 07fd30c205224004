"""A linear probe (Alain & Bengio 2016, arXiv 1610.01644): logistic regression on few examples of each class."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from llmctl import events

STRENGTHS = (1.0, 10.0, 100.0)
"""Of logistic regression's C, on rows of length 1."""
TOLERANCE = 1e-5
"""Largest entry of the loss's gradient at which the solver stops. It is a mean over the examples, of entries of rows of length 1:
with 16 examples of 77 classes it begins below 1e-3, and the solver would stop before its first step."""
FOLDS = 2
SELECTED = 8
"""Examples of a class, at most, that a layer is chosen on. C is chosen on all: with few, TF-IDF seems to want too small a one."""


@dataclass(frozen=True, slots=True)
class Contender:
    """What documents are to a classifier."""

    name: str
    rows: np.ndarray
    """[documents, D] fp32, or [documents] texts for a bag of words; by the number of the document."""
    strength: float = 10.0


@dataclass(frozen=True, slots=True)
class Point:
    """Accuracy with so many examples of each class."""

    shots: int
    classes: tuple[str, ...]
    """That have so many examples to learn from."""
    accuracies: dict[str, tuple[float, ...]]
    """Of each contender, with the examples of each seed."""

    @property
    def chance(self) -> float:
        return 1 / len(self.classes)

    def mean(self, contender: str) -> float:
        return float(np.mean(self.accuracies[contender]))

    def stderr(self, contender: str) -> float:
        """Of the mean over the draws of examples; NaN of one draw."""
        values = self.accuracies[contender]
        return float(np.std(values, ddof=1) / np.sqrt(len(values))) if len(values) > 1 else float("nan")


Draw = dict[str, np.ndarray]
"""Numbers of documents of each class, in the order in which they become examples."""


def draw(labels: Sequence[str] | np.ndarray, training: Sequence[int], shots: int, seed: int) -> Draw:
    """Up to `shots` examples of every class among the documents `training`; those of fewer shots are the first of them."""
    generator = np.random.default_rng(seed)
    members: dict[str, list[int]] = {}
    for document in training:
        members.setdefault(str(labels[document]), []).append(document)
    return {label: generator.permutation(members[label])[:shots] for label in sorted(members)}


def classifier(rows: np.ndarray, strength: float) -> Any:
    """Logistic regression with an L2 penalty on rows of length 1: standardised features, or TF-IDF of words."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import Normalizer, StandardScaler

    words = TfidfVectorizer(sublinear_tf=True, token_pattern=r"(?u)\b\w+\b")
    before = [words] if rows.ndim == 1 else [StandardScaler(), Normalizer()]
    return make_pipeline(*before, LogisticRegression(C=strength, max_iter=300, tol=TOLERANCE))


def accuracy(rows: np.ndarray, labels: np.ndarray, train: np.ndarray, test: np.ndarray, strength: float) -> float:
    """Share of the documents `test` that a classifier taught with the documents `train` names right."""
    from threadpoolctl import threadpool_limits

    # One thread: the solver's steps take milliseconds, and threads that wait for each other at every one of them, on a machine
    # that others use, took 20 times as long (2.7 s for 0.12 s, 308 rows of 576 features, 77 classes, two cores).
    with warnings.catch_warnings(), threadpool_limits(1):
        warnings.simplefilter("ignore")  # of convergence: 300 steps are enough for the accuracy
        try:
            taught = classifier(rows, strength).fit(rows[train], labels[train])
        except ValueError as error:
            if "empty vocabulary" not in str(error):
                raise
            return 1 / len(set(labels[train]))  # examples without a word: nothing to tell classes by
        return float(np.mean(taught.predict(rows[test]) == labels[test]))


def validated(rows: np.ndarray, labels: np.ndarray, examples: Draw, strength: float) -> float:
    """Mean accuracy of a cross-validation on the examples, dealt out to the folds class by class."""
    usable = [np.array(documents) for documents in examples.values() if len(documents) > 1]
    folds = min([FOLDS, *(len(documents) for documents in usable)])
    scores = []
    for fold in range(folds):
        held = np.concatenate([documents[fold::folds] for documents in usable])
        taught = np.concatenate([np.delete(documents, slice(fold, None, folds)) for documents in usable])
        scores.append(accuracy(rows, labels, taught, held, strength))
    return float(np.mean(scores))


def can_validate(examples: Draw) -> bool:
    return sum(len(documents) > 1 for documents in examples.values()) > 1


def best_strength(rows: np.ndarray, labels: np.ndarray, examples: Draw) -> float:
    """The C of the best cross-validation on training examples; the middle one where no class has two examples."""
    if not can_validate(examples):
        return STRENGTHS[1]
    return max(STRENGTHS, key=lambda strength: validated(rows, labels, examples, strength))


def best_layer(by_layer: dict[int, np.ndarray], labels: np.ndarray, examples: Draw) -> tuple[int, dict[int, float]]:
    """The layer of the best cross-validation on training examples, and the accuracy of each; without two examples of a class the
    middle one."""
    if not can_validate(examples):
        return sorted(by_layer)[len(by_layer) // 2], {}
    scores, examples = {}, {label: documents[:SELECTED] for label, documents in examples.items()}
    for done, (layer, rows) in enumerate(by_layer.items(), 1):
        scores[layer] = validated(rows, labels, examples, STRENGTHS[1])
        events.progress("choosing a layer", done, len(by_layer), "layers")
    return max(scores, key=lambda layer: scores[layer]), scores


def curve(
    contenders: Sequence[Contender], labels: np.ndarray, draws: Sequence[Draw], test: Sequence[int], shots: Sequence[int]
) -> list[Point]:
    """Accuracy of every contender, taught with the same examples and asked the same documents `test`. A class with too few
    examples for a point is left out of that point, of its questions too; a point with fewer than two classes is left out."""
    points: list[Point] = []
    done, total = 0, len(shots) * len(draws) * len(contenders)
    for count in shots:
        classes = tuple(label for label, documents in draws[0].items() if len(documents) >= count)
        asked = np.array([document for document in test if labels[document] in set(classes)], dtype=np.int64)
        if len(classes) < 2 or not len(asked):
            continue
        scores: dict[str, list[float]] = {contender.name: [] for contender in contenders}
        for examples in draws:
            taught = np.concatenate([examples[label][:count] for label in classes])
            for contender in contenders:
                scores[contender.name].append(accuracy(contender.rows, labels, taught, asked, contender.strength))
                done += 1
                events.progress("probe", done, total, "classifiers")
        points.append(Point(count, classes, {name: tuple(values) for name, values in scores.items()}))
    return points
