"""The built-in questions: answerable, balanced, the same every time."""

from collections import Counter

import pytest

from llmctl.python_source import definitions, imports, parse
from llmctl.suites.builtin import builtin_tasks


@pytest.fixture(scope="module")
def documents(texts):
    return [(text, f"{number}.py") for number, text in enumerate(texts)]


@pytest.fixture(scope="module")
def suites(documents):
    return {suite.name: suite for suite in builtin_tasks(documents, 1, 200)}


def test_hundreds_of_questions_each_with_known_chance(suites):
    assert set(suites) == {"docstring", "next_line", "module", "copy", "pattern"}
    for suite in suites.values():
        assert len(suite.questions) >= 60, suite.name
        assert suite.chance == pytest.approx(0.25)
        for question in (*suite.questions, *suite.pool):
            assert len(set(question.choices)) == 4
            assert 0 <= question.answer < 4


def test_the_right_choice_stands_at_every_place_alike(suites):
    for suite in suites.values():
        places = Counter(question.answer for question in suite.questions)
        assert max(places.values()) < 0.45 * len(suite.questions), suite.name


def test_no_example_is_asked(suites):
    for suite in suites.values():
        asked = {(q.context, q.choices) for q in suite.questions}
        assert not asked & {(q.context, q.choices) for q in suite.pool}


def test_the_same_for_the_same_seed(documents, suites):
    again = {suite.name: suite for suite in builtin_tasks(documents, 1, 200)}
    assert again == suites
    assert builtin_tasks(documents, 2, 200) != list(suites.values())


def test_suites_by_name(documents):
    assert [suite.name for suite in builtin_tasks(documents, 1, 10, ["copy", "module"])] == ["module", "copy"]


def test_answers_are_true(documents, suites):
    summaries, modules = {}, {}
    for text, _ in documents:
        tree = parse(text)
        assert tree is not None
        summaries |= {d.source: d.summary for d in definitions(text, tree)}
        modules |= {name: module for _, module, name in imports(tree)}
    for question in suites["docstring"].questions:
        code = question.context.split("\n\n# What it does")[0]
        assert question.choices[question.answer].strip() == summaries[code]
    for question in suites["copy"].questions:
        first = question.context.split("\n")[0]
        shown = question.solved.split("second = [")[1]
        assert shown.rstrip(",") in first.removeprefix("first = [") + ","
    for question in suites["pattern"].questions:
        *shown, answer = question.solved.strip("[").rstrip(",").split(", ")
        assert any(shown[:-period] == shown[period:] and shown[-period] == answer for period in (2, 3))
    for question in suites["next_line"].questions:
        assert any(question.solved.rstrip() in "\n".join(map(str.rstrip, text.splitlines())) for text, _ in documents)
