"""The linear probe: features are the model's own, examples are fair, and what can be told is told."""

import numpy as np
import pytest
import torch

from llmctl.errors import UserError
from llmctl.evals.features import features, sequences_of, unusable
from llmctl.evals.probe import Contender, accuracy, best_layer, best_strength, curve, draw, validated
from llmctl.model.attention import use_packed_attention
from llmctl.model.build import ModelShape, build_model


@pytest.fixture(scope="module")
def model():
    built = build_model(ModelShape(32, 4, 2, 2, 16, 64, window=16, vocab_size=512, max_length=128), seed=1)
    use_packed_attention(built)
    return built.eval()


@pytest.mark.parametrize("begun", [False, True])
@pytest.mark.parametrize("pool", ["mean", "last"])
def test_features_are_the_hidden_states_of_each_text_alone(model, pool, begun):
    generator = np.random.default_rng(0)
    sequences = [generator.integers(0, 512, size).tolist() for size in (3, 40, 7, 100, 2, 7)]
    ours = features(model, sequences, [0, 2, 4], pool, begun, tokens_per_pass=64)
    assert ours.shape == (6, 3, 32)
    model.set_attn_implementation("sdpa")
    try:
        for sequence, found in zip(sequences, ours, strict=True):
            with torch.no_grad():
                states = model(torch.tensor([sequence]), output_hidden_states=True).hidden_states
            for place, layer in enumerate([0, 2, 4]):
                hidden = states[layer][0].numpy()
                expected = hidden[-1] if pool == "last" else hidden[int(begun) :].mean(0)
                np.testing.assert_allclose(found[place], expected, atol=1e-5)
    finally:
        use_packed_attention(model)


def test_a_layer_alone_is_that_layer_of_all_and_the_model_is_left_as_it_was(model):
    def hooks() -> int:
        return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules())

    sequences, before = [[5, 6, 7], [8, 9, 10, 11]], hooks()
    every = features(model, sequences, range(5), "mean", True)
    for layer in range(5):
        np.testing.assert_array_equal(features(model, sequences, [layer], "mean", True)[:, 0], every[:, layer])
    assert hooks() == before


def test_texts_begin_as_documents_do_and_are_cut_to_the_context(tokenizer):
    sequences, cut = sequences_of(tokenizer, ["def f():", "x = 1\n" * 50], 12)
    assert [sequence[0] for sequence in sequences] == [tokenizer.eos_token_id] * 2
    assert tokenizer.decode(sequences[0][1:]) == "def f():"
    assert (len(sequences[1]), cut) == (12, 1)


def test_a_document_without_tokens_is_an_error(model):
    with pytest.raises(UserError, match="document 1 "):
        features(model, [[1, 2], [1]], [0], "mean", True)


def test_features_that_are_no_numbers_are_found():
    found = np.zeros((4, 2, 3), dtype=np.float32)
    assert unusable(found) is None
    found[2, 1, 0] = np.nan
    assert unusable(found) == 2


def toy(classes: int = 4, each: int = 40, distance: float = 5.0) -> tuple[np.ndarray, np.ndarray]:
    """Clouds of unit width around the axes."""
    generator = np.random.default_rng(3)
    labels = np.repeat(np.arange(classes), each)
    rows = generator.normal(size=(len(labels), 16))
    rows[np.arange(len(labels)), labels] += distance
    return rows.astype(np.float32), np.array([f"class {label}" for label in labels])


def parts(labels: np.ndarray) -> tuple[list[int], list[int]]:
    return [d for d in range(len(labels)) if d % 2], [d for d in range(len(labels)) if d % 2 == 0]


def test_clouds_far_apart_are_told_and_shuffled_labels_are_not():
    rows, labels = toy(distance=40.0)
    training, test = parts(labels)
    (point,) = curve([Contender("toy", rows)], labels, [draw(labels, training, 8, seed) for seed in (1, 2)], test, [8])
    assert point.accuracies["toy"] == (1.0, 1.0)
    assert (point.chance, point.stderr("toy")) == (0.25, 0.0)
    shuffled = np.random.default_rng(0).permutation(labels)
    draws = [draw(shuffled, training, 8, seed) for seed in range(8)]
    (point,) = curve([Contender("toy", rows)], shuffled, draws, test, [8])
    assert point.mean("toy") == pytest.approx(0.25, abs=0.08)


def test_many_classes_are_learnt_although_each_gradient_is_small():
    generator = np.random.default_rng(0)
    centres = generator.normal(size=(40, 128))
    labels = np.array([f"class {number % 40}" for number in range(800)])
    rows = (centres[np.arange(800) % 40] + 0.1 * generator.normal(size=(800, 128))).astype(np.float32)
    assert accuracy(rows, labels, np.arange(640), np.arange(640, 800), 10.0) > 0.95


def test_all_contenders_are_taught_with_the_same_examples_and_none_of_the_test(monkeypatch):
    from llmctl.evals import probe

    rows, labels = toy()
    training, test = parts(labels)
    calls = []

    def noted(rows, labels, train, test, strength):
        calls.append((tuple(train), tuple(test)))
        return 0.5

    monkeypatch.setattr(probe, "accuracy", noted)
    draws = [draw(labels, training, 4, seed) for seed in (1, 2)]
    curve([Contender("one", rows), Contender("two", rows * 2)], labels, draws, test, [1, 2, 4])
    assert calls[::2] == calls[1::2]
    assert len(set(calls)) == 6
    for taught, asked in calls:
        assert set(taught) <= set(training)
        assert set(asked) == set(test)


def test_fewer_shots_are_the_first_of_more_and_seeds_draw_others():
    _, labels = toy()
    training, _ = parts(labels)
    few, more = draw(labels, training, 2, 1), draw(labels, training, 8, 1)
    assert all((few[label] == more[label][:2]).all() for label in few)
    assert any((more[label] != draw(labels, training, 8, 2)[label]).any() for label in more)


def test_a_class_with_too_few_examples_is_left_out_of_the_point_and_of_its_questions():
    rows, labels = toy(classes=3, distance=40.0)
    training, test = parts(labels)
    training = [d for d in training if labels[d] != "class 2"] + [d for d in training if labels[d] == "class 2"][:3]
    points = curve([Contender("toy", rows)], labels, [draw(labels, training, 4, 1)], test, [2, 4])
    assert [point.classes for point in points] == [("class 0", "class 1", "class 2"), ("class 0", "class 1")]
    assert points[1].mean("toy") > 0.9
    assert np.isnan(points[1].stderr("toy"))


def test_a_bag_of_words_knows_the_words_of_its_examples_alone():
    texts = np.array(["red apple", "red cherry", "blue sky", "blue sea", "red unseen", "unseen blue"], dtype=object)
    labels = np.array(["r", "r", "b", "b", "r", "b"])
    assert accuracy(texts, labels, np.arange(4), np.arange(4, 6), 10.0) == 1.0
    assert (
        accuracy(np.array(["?", "!", "?!"], dtype=object), np.array(["r", "b", "r"]), np.arange(2), np.arange(2, 3), 1.0) == 0.5
    )


def test_the_layer_is_that_which_tells_the_classes():
    rows, labels = toy(distance=6.0)
    noise = np.random.default_rng(1).normal(size=rows.shape).astype(np.float32)
    examples = draw(labels, parts(labels)[0], 8, 1)
    layer, scores = best_layer({0: noise, 1: rows, 2: noise}, labels, examples)
    assert layer == 1
    assert scores[1] > 0.8 > scores[0]
    single = draw(labels, parts(labels)[0], 1, 1)
    assert best_layer({0: noise, 1: rows, 2: noise}, labels, single) == (1, {})
    assert best_strength(rows, labels, single) == 10.0


def test_cross_validation_asks_no_document_that_it_was_taught_with(monkeypatch):
    from llmctl.evals import probe

    rows, labels = toy()
    examples = draw(labels, parts(labels)[0], 8, 1)
    asked = []

    def noted(rows, labels, train, test, strength):
        assert not set(train) & set(test)
        asked.extend(test)
        return 0.5

    monkeypatch.setattr(probe, "accuracy", noted)
    validated(rows, labels, examples, 1.0)
    assert sorted(asked) == sorted(np.concatenate(list(examples.values())))
