"""Train fastText classifiers from labelled text, and measure them on what they have not seen.

Every classifier is two models: examples are parted in two by the hash of their text, each model is trained on one half and judges
the other. No document is ever scored by a model that was trained on it, and precision and recall are over all examples.
"""

import hashlib
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from llmctl import events
from llmctl.corpus.documents import read_documents
from llmctl.corpus.fasttext_models import PREFIX, label_scores, load_model
from llmctl.corpus.rows import Faults, read_rows
from llmctl.errors import UserError
from llmctl.recipe.classifier_schema import ClassifierTable

SEED = 1
Example = tuple[str, str]
"""Label and text."""


def half_of(text: str) -> int:
    """Which half of the examples a text belongs to."""
    return hashlib.sha256(text.encode()).digest()[0] & 1


@dataclass(frozen=True, slots=True)
class Classifier:
    name: str
    table: ClassifierTable
    files: tuple[str, str]
    """Models trained on each half of the examples."""

    def scores(self, texts: list[str]) -> list[tuple[str, float]]:
        """(label, score) of each text: of the target, or of the likeliest label. By the model that has not seen the text."""
        parts = [text[: self.table.characters] for text in texts]
        halves = [half_of(part) for part in parts]
        found: list[dict[str, float]] = [{} for _ in parts]
        for half in (0, 1):
            places = [place for place, mine in enumerate(halves) if mine == half]
            judged = label_scores(load_model(self.files[1 - half]), [parts[place] for place in places])
            for place, labels in zip(places, judged, strict=True):
                found[place] = labels
        target = self.table.target
        if target is not None:
            return [(target, labels.get(target, 0.0)) for labels in found]
        return [max(labels.items(), key=lambda item: item[1]) if labels else ("", 0.0) for labels in found]


def train(name: str, table: ClassifierTable, corpus: Path, sources: list[str], out: Path) -> tuple[Classifier, dict[str, Any]]:
    """Train both models into `out`; returns the classifier and its measures.

    Raises:
        UserError: a label has too few examples.
    """
    examples = [(label, text) for label in table.labels for text in _texts(label, table, corpus, sources)]
    halves: tuple[list[Example], list[Example]] = ([], [])
    for example in examples:
        halves[half_of(example[1])].append(example)
    for half in halves:
        if missing := table.labels.keys() - {label for label, _ in half}:
            raise UserError(
                f"corpus.classifiers.{name}: too few examples of {', '.join(sorted(missing))} to train and to measure"
            )
    out.mkdir(parents=True, exist_ok=True)
    files = (str(out / f"{name}-0.bin"), str(out / f"{name}-1.bin"))
    for half, file in zip(halves, files, strict=True):
        _train_one(half, table, file)
    return Classifier(name, table, files), measures(name, table, halves, files)


def _texts(label: str, table: ClassifierTable, corpus: Path, sources: list[str]) -> Iterator[str]:
    """Beginnings of the documents of a label, an equal share of each place."""
    places = table.labels[label]
    for place in places:
        if place in sources:
            found = (document.text for document in read_documents(corpus, place, "train"))
        else:
            found = (str(row.get("text") or "") for _, row in read_rows(place, Faults("skip")))
        beginnings = (text[: table.characters] for text in found if text.strip())
        yield from islice(beginnings, max(1, table.examples // len(places)))


def _train_one(examples: list[Example], table: ClassifierTable, file: str) -> None:
    import fasttext

    with tempfile.NamedTemporaryFile("w", suffix=".txt", encoding="utf-8") as lines:
        # Labels in turn: fastText takes lines as they come, and forgets the first of two labels one after the other.
        for _, label, text in sorted((hashlib.sha256(text.encode()).digest(), label, text) for label, text in examples):
            lines.write(f"{PREFIX}{label} {' '.join(text.split())}\n")
        lines.flush()
        model = fasttext.train_supervised(
            lines.name,
            epoch=table.epochs,
            lr=table.lr,
            dim=table.dimensions,
            wordNgrams=table.word_ngrams,
            bucket=table.buckets,
            minCount=2,
            thread=1,  # so that the same examples give the same model
            seed=SEED,
            verbose=0,
        )
    model.save_model(file)


def measures(
    name: str, table: ClassifierTable, halves: tuple[list[Example], list[Example]], files: tuple[str, ...]
) -> dict[str, Any]:
    """Precision, recall and confusion over all examples, each judged by the model of the other half."""
    confusion: Counter[tuple[str, str]] = Counter()
    for half, examples in enumerate(halves):
        judged = label_scores(load_model(files[1 - half]), [text for _, text in examples])
        for (label, _), scores in zip(examples, judged, strict=True):
            confusion[label, max(scores, key=lambda found: scores[found]) if scores else ""] += 1
    labels = list(table.labels)
    found: dict[str, Any] = {"confusion": [[confusion[true, told] for told in labels] for true in labels], "labels": labels}
    rows = []
    for place, label in enumerate(labels):
        right, true = confusion[label, label], sum(found["confusion"][place])
        told = sum(row[place] for row in found["confusion"])
        found[f"precision/{label}"], found[f"recall/{label}"] = right / max(1, told), right / max(1, true)
        share = (f"{found[f'{measure}/{label}']:.3f}" for measure in ("precision", "recall"))
        rows.append((label, f"{true:,}", *share, *(f"{count:,}" for count in found["confusion"][place])))
    columns = ("label", "examples", "precision", "recall", *(f"told {label}" for label in labels))
    events.emit(events.Table(f"classifier {name}: on examples that the model has not seen", columns, tuple(rows)))
    return found
