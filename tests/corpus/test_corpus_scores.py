"""Classifiers and what is made of their scores."""

import random
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from llmctl.corpus.attrition import Attrition
from llmctl.corpus.classifiers import half_of, train
from llmctl.corpus.documents import Document, documents_file, read_documents, rejects_file, writing
from llmctl.corpus.fasttext_models import label_scores, load_model
from llmctl.corpus.scoring import percentiles, score_corpus, scores_file, taken, text_percentiles
from llmctl.corpus.upsampling import POWERS, solve
from llmctl.errors import UserError
from llmctl.recipe.classifier_schema import ClassifierTable
from llmctl.recipe.corpus_schema import CorpusTable


@settings(deadline=None, max_examples=40)
@given(st.floats(0.1, 5), st.floats(0, 0.8), st.floats(1, 9))
def test_a_curve_makes_the_size_and_keeps_the_limit(ratio, start, most):
    assume(ratio < 0.98 * most * (1 - start))
    curve = solve(ratio, start, most)
    assert curve.mean(0, 1) == pytest.approx(ratio, rel=1e-3)
    assert curve.buckets[-1] <= most * 1.001
    assert curve(np.array([0.0, start])).tolist() == [0.0, 0.0]
    grid = curve(np.linspace(0, 1, 500))
    assert (np.diff(grid) >= -1e-9).all()
    # The steepest that the limit allows: either it is reached, or power and rate are at their ends.
    at_the_end = curve.power == POWERS[-1] and curve.rate == 2.0
    assert at_the_end or curve.buckets[-1] > 0.8 * most


def test_more_than_may_be_repeated_is_refused():
    with pytest.raises(UserError, match="takes the best twentieth more than 7 times"):
        solve(5.0, 0.4, 7.0)


@given(st.floats(0, 7), st.integers(0, 1000))
def test_whole_times_are_right_on_average(times, seed):
    found = [taken(times, f"{seed}/{n}") for n in range(400)]
    assert set(found) <= {int(times), int(times) + 1}
    assert sum(found) / 400 == pytest.approx(times, abs=0.15)


def test_percentiles_of_documents_and_of_text():
    scores = np.array([0.9, 0.1, 0.5, 0.5])
    assert percentiles(scores).tolist() == [0.75, 0.0, 0.25, 0.5]
    assert text_percentiles(scores, np.array([10, 60, 20, 10])).tolist() == [0.95, 0.3, 0.7, 0.85]


GOOD = ["lemma", "theorem", "proof", "integral", "converges", "bounded", "sequence", "limit"]
BAD = ["click", "buy", "cheap", "offer", "discount", "subscribe", "winner", "free"]
BOTH = ["the", "of", "and", "to", "in", "that", "it", "is", "was", "for", "on", "are", "with", "as", "at", "be", "this"]


def text_of(words, seed, length=60):
    chance = random.Random(seed)
    return " ".join(chance.choice(words if chance.random() < 0.3 else BOTH) for _ in range(length)) + f" {seed}"


@pytest.fixture
def corpus(tmp_path):
    """Two sources: half of `web` is good, `books` are."""
    sources = {
        "web": [text_of(GOOD if n % 2 else BAD, n) for n in range(300)],
        "books": [text_of(GOOD, 1000 + n) for n in range(200)],
    }
    counts = {}
    for source, texts in sources.items():
        with writing(documents_file(tmp_path, source, "train")) as write:
            for number, text in enumerate(texts):
                write(Document(text, f"{source}/{number}", source, f"{source}:{number}"))
        counts[source] = Counter(train_documents=len(texts), train_bytes=sum(map(len, texts)))
    (tmp_path / "spam").mkdir()
    for n in range(200):
        (tmp_path / "spam" / f"{n}.txt").write_text(text_of(BAD, 5000 + n))
    return tmp_path, counts


def table_of(corpus, **keys):
    return ClassifierTable(labels={"good": ["books"], "spam": [str(corpus / "spam")]}, buckets=2000, dimensions=8, **keys)


def test_a_classifier_is_measured_on_what_it_has_not_seen(corpus):
    folder, _ = corpus
    table = table_of(folder)
    classifier, measures = train("quality", table, folder, ["web", "books"], folder / "models")
    assert measures["precision/good"] > 0.95
    assert measures["recall/good"] > 0.95
    assert sum(map(sum, measures["confusion"])) == 400
    texts = [document.text for document in read_documents(folder, "books", "train")]
    halves = [half_of(text) for text in texts]
    assert 60 < sum(halves) < 140
    for text, half, (_, score) in zip(texts, halves, classifier.scores(texts), strict=True):
        other = label_scores(load_model(classifier.files[1 - half]), [text])[0]
        assert score == max(other.values())


def test_scores_drop_the_lowest_and_repeat_the_best(corpus):
    folder, counts = corpus
    upsample = {"classifier": "quality", "size": 150_000, "drop_lowest": 0.5, "most": 6}
    quality = table_of(folder, target="good", sources=["web"], drop_lowest=0.1)
    sources = {"web": {"path": "x", "upsample": upsample}, "books": {"path": "y"}}
    table = CorpusTable.model_validate({"sources": sources, "classifiers": {"quality": quality.model_dump()}})
    before = {d.id: d.text for d in read_documents(folder, "web", "train")}
    attrition = Attrition()
    score_corpus(folder, ["web", "books"], table, counts, attrition)
    scores = pyarrow.parquet.read_table(scores_file(folder, "web")).to_pylist()
    assert [row["id"] for row in scores] == list(before)
    assert Counter(row["quality_vigintile"] for row in scores) == dict.fromkeys(range(1, 21), 15)
    ranked = sorted(scores, key=lambda row: row["quality_score"])
    assert all(int(row["id"].split("/")[1]) % 2 == 0 for row in ranked[:100])  # spam scores low
    left = [d.id for d in read_documents(folder, "web", "train")]
    often = Counter(name.split("#")[0] for name in left)
    assert len(left) == len(set(left))
    assert not {row["id"] for row in ranked[:140]} & often.keys()
    assert np.mean([often[row["id"]] for row in ranked[-15:]]) == pytest.approx(6, abs=1)
    assert counts["web"]["train_bytes"] == pytest.approx(150_000, rel=0.1)
    assert counts["web"]["train_documents"] == len(left)
    assert counts["books"]["train_documents"] == 200
    lost = {row["rule"]: row["documents"] for row in attrition.rows()}
    assert lost["low quality"] == 30
    assert lost["low quality"] + lost["not taken by upsampling"] + len(often) == 300
    assert rejects_file(folder, "web", "scores").stat().st_size > 1000
    assert not scores_file(folder, "books").exists()


def test_the_same_examples_give_the_same_models(corpus):
    folder, _ = corpus
    table = table_of(folder)
    files = [train("quality", table, folder, ["web", "books"], folder / name)[0].files for name in ("one", "two")]
    one, two = ([Path(file).read_bytes() for file in pair] for pair in files)
    assert one == two


def test_a_label_without_examples_is_told(corpus):
    folder, _ = corpus
    (folder / "one.txt").write_text("a single text")
    table = ClassifierTable(labels={"good": ["books"], "rare": [str(folder / "one.txt")]})
    with pytest.raises(UserError, match=r"corpus.classifiers.quality: too few examples of rare"):
        train("quality", table, folder, ["books"], folder / "models")
