"""What is held out is never trained on, nor is anything like it."""

import json
import random

import pytest
from helpers import curated
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from llmctl.corpus.baselines import xz_bits_per_byte, xz_primed_bits_per_byte
from llmctl.corpus.builtin import standard_library
from llmctl.corpus.chat import docstring_conversations, error_conversations
from llmctl.corpus.documents import Document, read_conversations, read_documents, read_rows_of, rejects_file
from llmctl.corpus.heldout import BEGINNING, END, HeldOutLines, is_heldout
from llmctl.errors import UserError

LIKE = "like a held-out document"


@given(st.text(min_size=1), st.floats(0.01, 0.5))
def test_a_name_that_is_held_out_stays_so_when_the_share_grows(name, fraction):
    assume(not name.endswith((BEGINNING, END)))  # parts of a text that is a source by itself
    assert not is_heldout(name, 0.0)
    assert is_heldout(name, 1.0)
    if is_heldout(name, fraction):
        assert is_heldout(name, min(1.0, fraction * 2))


def test_the_share_held_out_is_as_asked():
    count = sum(is_heldout(f"module/{n}.py", 0.05) for n in range(20_000))
    assert 850 < count < 1150


@settings(deadline=None)
@given(st.integers(0, 40), st.integers(0, 40))
def test_a_near_copy_is_told_from_another_text(kept, added):
    original = [f"    value_{n} = compute_the_value({n})" for n in range(40)]
    lines = HeldOutLines()
    lines.add(Document("\n".join(original), "original", "own", "original.py"))
    text = "\n".join(original[:kept] + [f"    other_{n} = something_else({n})" for n in range(added)])
    shared_enough = kept >= 8 and kept > 0.5 * min(kept + added, 40)
    assert lines.like(text) == ("original" if shared_enough else None)


def test_a_held_out_document_stands_once_whatever_its_copies_are_called(tmp_path):
    texts = [f"A text of its own, number {n}, with words enough to be one.\n" for n in range(30)]
    file = tmp_path / "own.jsonl"
    rows = [{"id": f"{kind}{n}", "text": text} for kind in ("a", "b", "a") for n, text in enumerate(texts)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    counts, lost = curated(tmp_path / "out", 0.3, own={"path": str(file)})
    held, train = ([d.text for d in read_documents(tmp_path / "out", "own", split)] for split in ("heldout", "train"))
    assert sorted(held + train) == sorted(texts)
    assert len(held) > 3
    assert counts["own"]["train_documents"] + counts["own"]["heldout_documents"] == 30
    assert lost["own", "same text"] == 60
    rejects = [row["rule"] for row in read_rows_of(rejects_file(tmp_path / "out", "own", "split"))]
    assert rejects == ["same text"] * 60


def number_of(name: str) -> str:
    return name.rsplit("/")[-1].removeprefix("copy")


def test_documents_of_another_source_like_held_out_ones_are_dropped(tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    for folder in (first, second):
        folder.mkdir()
    for n in range(60):
        text = "\n".join(f"line {line} of text number {n} and no other" for line in range(20))
        (first / f"{n}.txt").write_text(text)
        (second / f"copy{n}.txt").write_text(text + "\nand one line more than there was before")
    out = tmp_path / "out"
    _, lost = curated(out, a={"path": str(first)}, b={"path": str(second)})
    held = [d.text for name in "ab" for d in read_documents(out, name, "heldout")]
    trained = [d.text for name in "ab" for d in read_documents(out, name, "train")]
    assert lost["a", LIKE] + lost["b", LIKE] > 5
    rejects = [row for name in "ab" for row in read_rows_of(rejects_file(out, name, "split")) if row["rule"] == LIKE]
    assert len(rejects) == lost["a", LIKE] + lost["b", LIKE]
    assert all(number_of(row["like"]) == number_of(row["id"]) for row in rejects)
    for text in held:
        number = text.splitlines()[0]
        assert not any(number in other for other in trained)


def test_the_standard_library_is_read_alike_every_time():
    first = [d.id for d in standard_library(400_000)]
    assert first == [d.id for d in standard_library(400_000)]
    assert len(first) > 10
    assert all(name.startswith("python-stdlib/") for name in first)


def test_conversations_about_held_out_files_are_held_out(tmp_path):
    size = 3_000_000
    text, talk = ({"path": f"builtin:python-{name}", "max_bytes": size} for name in ("stdlib", "docstrings"))
    curated(tmp_path, text=text, talk=talk)
    held = {d.path for d in read_documents(tmp_path, "text", "heldout")}
    train = {c.path for c in read_conversations(tmp_path, "talk", "train")}
    asked = {c.path for c in read_conversations(tmp_path, "talk", "heldout")}
    assert asked & held
    assert not train & held
    assert not train & asked
    # Nor does training ask of another file what is asked of a held-out one: many files have the same import line.
    held_questions, train_questions = (questions(tmp_path, split) for split in ("heldout", "train"))
    assert held_questions
    assert not held_questions & train_questions


def questions(folder, split) -> set[tuple[str, str]]:
    """The code asked about, with the answer, of every turn about imports."""
    found = set()
    for conversation in read_conversations(folder, "talk", split):
        for question, answer in zip(conversation.messages[::2], conversation.messages[1::2], strict=True):
            found |= {(line, answer["content"]) for line in question["content"].splitlines() if line.startswith("from ")}
    return found


def talks(path, *pairs: tuple[str, str]) -> dict:
    """A source of these questions with their answers."""
    path.write_text("".join(json.dumps({"prompt": q, "response": a}) + "\n" for q, a in pairs))
    return {"path": str(path), "kind": "chat"}


def first_questions(folder, split, *names: str) -> list[str]:
    return [c.messages[0]["content"] for name in names for c in read_conversations(folder, name, split)]


def alike(question: str) -> str:
    return " ".join(question.casefold().split())


QUESTIONS = st.lists(st.tuples(st.integers(0, 6), st.sampled_from(["a", "b", "c"])), min_size=1, max_size=20)


@settings(deadline=None, max_examples=40)
@given(st.lists(QUESTIONS, min_size=1, max_size=3), st.floats(1e-9, 0.49), st.randoms(use_true_random=False))
def test_no_first_question_is_on_both_sides(tmp_path_factory, sources, fraction, draw: random.Random):
    folder = tmp_path_factory.mktemp("talks")
    tables = {}
    for number, rows in enumerate(sources):
        # However a question is written: it is the same. Numbers beyond 6 are of one source alone, so that none asks one thing.
        rows = [*((f"question {q}", answer) for q, answer in rows), *((f"question {number}-{n}", "a") for n in range(8))]
        written = [(draw.choice([q, q.upper(), q.replace(" ", " \n ") + " "]), answer) for q, answer in rows]
        tables[f"s{number}"] = talks(folder / f"{number}.jsonl", *written)
    counts, lost = curated(folder / "out", fraction, **tables)
    held, train = ({alike(q) for q in first_questions(folder / "out", split, *tables)} for split in ("heldout", "train"))
    assert not held & train
    for number, (name, rows) in enumerate(zip(tables, sources, strict=True)):
        assert counts[name]["train_documents"]
        assert counts[name]["heldout_documents"]
        copies = lost.get((name, "same conversation"), 0)
        assert counts[name]["train_documents"] + counts[name]["heldout_documents"] + copies == len(rows) + 8
        assert held | train >= {f"question {number}-{n}" for n in range(8)}


def test_the_question_decides_and_not_the_source_or_the_place(tmp_path):
    pairs = [(f"question {n}", "a") for n in range(200)]
    curated(tmp_path / "one", 0.1, own=talks(tmp_path / "one.jsonl", *pairs))
    curated(tmp_path / "two", 0.1, other=talks(tmp_path / "two.jsonl", *((q, "b") for q, _ in reversed(pairs))))
    held = set(first_questions(tmp_path / "one", "heldout", "own"))
    assert 8 < len(held) < 35
    assert held == set(first_questions(tmp_path / "two", "heldout", "other"))


def test_the_same_conversation_stands_once(tmp_path):
    pairs = [(f"question {n % 10}", f"answer {n % 20}") for n in range(60)]
    counts, lost = curated(tmp_path / "out", own=talks(tmp_path / "own.jsonl", *pairs))
    assert counts["own"]["train_documents"] + counts["own"]["heldout_documents"] == 20
    assert lost["own", "same conversation"] == 40
    assert [row["rule"] for row in read_rows_of(rejects_file(tmp_path / "out", "own", "split"))] == ["same conversation"] * 40


def test_a_source_that_asks_one_question_alone_needs_its_held_out_ones_named(tmp_path):
    own = talks(tmp_path / "own.jsonl", *(("hello", f"answer {n}") for n in range(9)))
    with pytest.raises(UserError, match=r"begin with the same question.*\[corpus.sources.own\] heldout = PATH"):
        curated(tmp_path / "out", own=own)
    held = talks(tmp_path / "held.jsonl", ("hi", "a"))["path"]
    counts, _ = curated(tmp_path / "out", own=own | {"heldout": held})
    assert counts["own"]["train_documents"] == 9


def test_named_held_out_conversations_are_the_ones(tmp_path):
    own = talks(tmp_path / "own.jsonl", *((f"question {n}", "a") for n in range(50)))
    held = talks(tmp_path / "held.jsonl", *((f"held {n}", "a") for n in range(4)), ("question 3", "a"), ("held 1", "a"))["path"]
    _, lost = curated(tmp_path / "out", 0.4, own=own | {"heldout": held})
    assert first_questions(tmp_path / "out", "heldout", "own") == [*(f"held {n}" for n in range(4)), "question 3"]
    # What is asked in both stays: the stage that trains on it says so before it begins.
    assert first_questions(tmp_path / "out", "train", "own") == [f"question {n}" for n in range(50)]
    assert lost == {("own", "same conversation"): 1}


def test_held_out_rows_are_held_to_the_same_rules(tmp_path):
    own = talks(tmp_path / "own.jsonl", *((f"question {n}", "a") for n in range(9)))
    held = talks(tmp_path / "held.jsonl", ("held", "a"), ("empty", ""))["path"]
    with pytest.raises(UserError, match=r"held.jsonl:2: turn 2 \(assistant\) is empty"):
        curated(tmp_path / "out", own=own | {"heldout": held})
    counts, lost = curated(tmp_path / "out", own=own | {"heldout": held, "on_error": "skip"})
    assert counts["own"]["heldout_documents"] == 1
    assert lost["own", "empty answer"] == 1
    none = talks(tmp_path / "held.jsonl", ("empty", ""))["path"]
    with pytest.raises(UserError, match=r"\(\S*held.jsonl\) holds no conversation to hold out"):
        curated(tmp_path / "out", own=own | {"heldout": none, "on_error": "skip"})


SOURCE = '''
from collections.abc import Mapping

def clamp(value, low, high):
    """Force the value into the range from low to high.

    >>> clamp(5, 0, 3)
    3
    """
    if low > high:
        raise ValueError("low is above high")
    return max(low, min(high, value))
'''


def test_answers_stand_in_the_source():
    document = Document(SOURCE, "one", "own", "clamp.py")
    found = {}
    for conversation in docstring_conversations([document], "talk", seed=1):
        questions, answers = conversation.messages[::2], conversation.messages[1::2]
        for question, answer in zip(questions, answers, strict=True):
            found[answer["content"]] = question["content"]
    assert "Force the value into the range from low to high." in found
    assert any("clamp(value, low, high)" in answer and "clamp" in question for answer, question in found.items())
    assert any("collections.abc" in answer for answer in found)
    assert any(">>> clamp(5, 0, 3)\n3" in answer for answer in found)
    (error,) = error_conversations([document], "talk", seed=1)
    assert error.messages[1]["content"] == 'It raises ValueError with the message "low is above high".'


def test_phrasings_vary_by_seed_and_nothing_else_does():
    documents = [Document(SOURCE.replace("clamp", f"clamp{n}"), f"d{n}", "own", f"{n}.py") for n in range(8)]

    def texts(seed):
        return [c.messages for c in docstring_conversations(documents, "talk", seed)]

    assert texts(1) == texts(1)
    assert texts(1) != texts(2)
    answers = [sorted(m["content"] for c in texts(seed) for m in c[1::2]) for seed in (1, 2)]
    assert answers[0] == answers[1]


def test_xz_that_has_seen_the_text_needs_less():
    texts = [SOURCE, SOURCE.replace("clamp", "limit")]
    assert xz_primed_bits_per_byte([SOURCE * 3], texts) < xz_bits_per_byte(texts)
