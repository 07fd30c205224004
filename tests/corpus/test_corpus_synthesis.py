"""Synthetic long documents: the original is kept, counts are true, phrases are shared, bad replies are counted."""

import json
import random
import re
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from synthetic_text import document, long_text

from llmctl.corpus.documents import Document
from llmctl.corpus.synthesis.counting import CountingTask, common_words, verified
from llmctl.corpus.synthesis.generator import CountRequest, Request, open_generator
from llmctl.corpus.synthesis.kinds import KINDS
from llmctl.corpus.synthesis.make import synthesize
from llmctl.corpus.synthesis.partition import MOST_PARTITIONS, partitions, sections
from llmctl.corpus.synthesis.passages import RewritingTask
from llmctl.corpus.synthesis.phrases import shared_phrases
from llmctl.corpus.synthesis.quality import fault
from llmctl.corpus.synthesis.tally import Tally
from llmctl.corpus.synthesis.templates import TemplateWriter
from llmctl.recipe.long_schema import SyntheticTable


class Says:
    """A generator that answers every request by a function."""

    def __init__(self, reply: Any) -> None:
        self.reply = reply

    def write(self, requests: Any) -> list[str]:
        return [self.reply(request) for request in requests]


def questions(counts: dict[str, Any], **more: Any) -> str:
    return json.dumps({"questions": [{"question": f'How often "{word}"?', "answer": n} for word, n in counts.items()]} | more)


TEXTS = st.lists(
    st.text(st.characters(codec="utf-8", categories=("L", "N", "P", "Z", "S")), max_size=300) | st.sampled_from(
        ["# Header", "- item", "    code", "```", "is so:", "====", "", long_text(1), long_text(2), "\r"]
    ),
    max_size=40,
).map("\n\n".join)  # fmt: skip


@given(TEXTS, st.integers(0, 5))
def test_cutting_keeps_all_of_the_text_in_a_few_parts(text, seed):
    pieces = sections(text)
    groups = partitions(pieces, random.Random(seed))
    assert "".join(piece for group in groups for piece in group) == text
    assert len(groups) <= MOST_PARTITIONS
    assert len(pieces) == 1 or min(map(len, pieces)) >= 500


@pytest.mark.parametrize("paragraphs", [14, 100, 450])
def test_documents_of_any_length_have_a_few_parts(paragraphs):
    for seed in range(20):
        groups = partitions(sections(long_text(paragraphs)), random.Random(seed))
        assert 2 <= len(groups) <= 8
        sizes = [sum(map(len, group)) for group in groups]
        assert min(sizes[:-1]) >= sum(sizes) / 8


def test_lists_code_and_headers_are_not_parted():
    block = "- " + "one item of a list " * 40 + "\n\n- " + "another item " * 60
    code = "It is done so::\n\n    " + "call(); " * 90 + "\n\n    " + "more(); " * 90
    fence = "```python\n" + "x = 1\n" * 100 + "\n\nleft_margin = 2\n" + "y = 3\n" * 100 + "```"
    heading = "Of tides\n========\n\n" + "The tide turns twice. " * 30
    prose = "Ships pass by day and night. " * 20
    starts = [piece[:12] for piece in sections("\n\n".join((prose, block, code, fence, heading, prose)))]
    assert starts == ["Ships pass b", "It is done s", "```python\nx ", "Of tides\n===", "Ships pass b"]


@pytest.mark.parametrize("opening", ["What follows is this:", "# Of tides", "Of tides\n--------"])
def test_a_line_that_opens_something_stays_with_it(opening):
    text = "A ship. " * 62 + f"\n\n{opening}\n\n" + "The tide turns twice. " * 40 + ("\n\n" + "A ship. " * 120) * 2
    assert [piece[:7] for piece in sections(text)] == ["A ship."] * 3


@pytest.mark.parametrize("kind", ["cwe", "rex"])
def test_without_what_was_woven_in_the_original_is_back(kind):
    written: list[str] = []

    def reply(request: Request) -> str:
        if isinstance(request, CountRequest):
            return questions(request.counts)
        written.append(f"This is text {len(written)}, which speaks of the {request.phrase} at length. " + "So it goes on. " * 20)
        return written[-1]

    source = document()
    (made,) = synthesize(kind, [source], Says(reply), 3)
    assert made.text != source.text
    assert (made.source, made.path) == (source.source, source.path)
    assert made.id == f"doc1-{kind}"
    if kind == "cwe":
        bare = re.sub(r"\n*Question: .*\nAnswer: .*\n$", "\n", re.sub(r"Question: .*\nAnswer: .*\n\n", "", made.text))
    else:
        bare = made.text
        for text in written:
            bare = bare.replace(text.strip() + "\n\n", "").replace("\n" + text.strip() + "\n", "")
    assert bare == source.text


def test_counts_in_a_document_are_those_of_the_part_before_them():
    (made,) = synthesize("cwe", [document(40)], TemplateWriter(1), 1)
    places = re.split(r"((?:Question: .*\nAnswer: .*\n+)+)", made.text)
    checked = 0
    for part, asked in zip(places[0::2], places[1::2], strict=False):
        words = {word: part.split().count(word) for word in common_words(part)}
        plain = re.sub(r"[^\w\s]", " ", part).split()
        for question, answer in re.findall(r"Question: (.*)\nAnswer: (.*)", asked):
            (word,) = [word for word in words if re.search(rf"\b{word}\b", question)]
            assert re.findall(r"\d+", answer) == [str(plain.count(word))]
            checked += 1
    assert checked >= 10


@given(TEXTS, st.integers(1, 9) | st.integers(-9, -1))
def test_a_generator_that_lies_is_caught_every_time(text, lie):
    counts = common_words(text)
    tally = Tally()
    assert verified(questions({word: count + lie for word, count in counts.items()}), text, counts, tally) == []
    assert tally.dropped == ({"wrong count": len(counts)} if counts else {"unreadable reply": 1})
    honest = verified(questions(counts), text, counts, Tally())
    assert {word: count for _, word, count in honest} == counts
    assert all(len(re.findall(rf"(?<!\w){word}(?!\w)", text)) == count > 1 for word, count in counts.items())


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        ("There are many words.", "unreadable reply"),
        ('{"questions": [{"question": "How often', "unreadable reply"),
        ('[{"question": "How many words?", "answer": 3}]', "no listed word"),
        ('[{"question": "How often is ship or tide said?", "answer": 3}]', "several listed words"),
        ('[{"question": "How often is shipping said?", "answer": 3}]', "no listed word"),
        ('[{"question": "How often is ship said?", "answer": 4}]', "wrong count"),
        ('[{"question": "How often is ship said?", "answer": true}]', "no number"),
        ('[{"question": "How often is ship said?", "answer": "3 or 4"}]', "no number"),
        ('[{"question": "How often is ship said?"}]', "no number"),
        ('[{"question": ["ship"], "answer": 3}]', "no question"),
        ('[{"question": "ship?", "answer": 3}, {"question": "And ship?", "answer": 3}]', "word asked for again"),
    ],
)
def test_questions_are_dropped_by_what_is_wrong_with_them(reply, reason):
    tally = Tally()
    kept = verified(reply, "ship tide ship tide ship", {"ship": 3, "tide": 2}, tally)
    assert tally.dropped == {reason: 1}
    assert len(kept) == (1 if "again" in reason else 0)


@pytest.mark.parametrize(
    "reply",
    [
        '[{"question": "ship?", "answer": 3}]',
        'Here you are [as asked]:\n```json\n{"questions": [{"question": "ship?", "answer": "3"}]}\n```\nGood luck!',
        '{"question": "ship?", "answer": "It occurs 3 times."}',
        '{"note": [], "items": [{"question": "ship?", "answer": 3.0}]} {"more": 1}',
    ],
)
def test_json_of_a_model_is_read_with_patience(reply):
    assert verified(reply, "ship tide ship tide ship", {"ship": 3, "tide": 2}, Tally()) == [("ship?", "ship", 3)]


@pytest.mark.parametrize("kind", ["cwe", "rex"])
def test_the_outcome_depends_on_seed_and_document_alone(kind):
    documents = [document(16 + seed, seed) for seed in range(5)]

    def made(seed: int, some: list[Document], **options: Any) -> dict[str, str]:
        return {each.id: each.text for each in synthesize(kind, some, TemplateWriter(1), seed, **options)}

    all_of_them = made(1, documents)
    assert len(all_of_them) == 5
    assert made(1, documents[3:], together=1) == {name: all_of_them[name] for name in list(all_of_them)[3:]}
    assert not set(made(2, documents).values()) & set(all_of_them.values())
    assert list(made(1, documents, most=2)) == list(all_of_them)[:2]


def test_phrases_are_shared_by_their_sections_and_none_is_within_another():
    pieces = sections(long_text(30))
    phrases = shared_phrases(pieces, random.Random(1))
    assert len(phrases) >= 4
    for phrase in phrases:
        assert 2 <= len(phrase.sections) <= 8
        assert all(phrase.text.lower() in pieces[number].lower() for number in phrase.sections)
    assert not any(a is not b and f" {a.text} " in f" {b.text} " for a in phrases for b in phrases)


def test_a_phrase_of_one_section_or_across_a_stop_word_is_none():
    pieces = ["The blue whale and the great auk. A dodo, giant tortoise.", "Every blue whale.", "That great and auk. Dodo giant."]
    assert [phrase.text for phrase in shared_phrases(pieces, random.Random(1))] == ["blue whale"]


def test_of_equal_phrases_the_longest_is_taken():
    pieces = ["Many ancient stone lighthouse towers fell.", "Some ancient stone lighthouse towers stand."]
    assert [phrase.text for phrase in shared_phrases(pieces, random.Random(1))] == ["ancient stone lighthouse towers"]


def test_texts_stand_behind_their_last_section():
    source = document(30)
    task = RewritingTask(source, 1)
    tally = Tally()
    replies = TemplateWriter(1).write(task.requests())
    text, kept = task.text(replies, tally)
    assert kept >= 2
    for phrase, reply in zip(task.phrases, replies, strict=True):
        if reply and reply in text:
            last = task.sections[phrase.sections[-1]].strip()
            assert text.index(last) < text.index(reply)
    assert len(task.phrases) == kept + tally.dropped.total()


def test_the_template_writer_has_a_good_text_of_each_kind_and_they_differ():
    (request, *_) = RewritingTask(document(30), 1).requests()
    texts = TemplateWriter(1).write([replace(request, kind=kind) for kind in KINDS])
    assert [fault(text, request.prompt, request.phrase, []) for text in texts] == [""] * 12
    openings = {text.split("\n")[0] for text in texts}
    assert len(openings) == 12


GOOD = "The harbour master keeps the book of all arrivals. " + "Ships come and go with the tide, and each is written down. " * 4


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (GOOD, ""),
        ("", "nothing written"),
        ("The harbour master is here.", "too short"),
        (GOOD.replace("harbour", "port"), "without the phrase"),
        (GOOD + "And then the", "cut off"),
        ("I'm sorry, but I cannot do that. " + GOOD, "refusal"),
        ("As an AI language model, I see. " + GOOD, "refusal"),
        ("PROMPT", "copy of the prompt"),
        (GOOD + "Write plain text of 100 to 400 words with whole sentences up to the end.", "copy of the prompt"),
    ],
)
def test_texts_are_dropped_by_what_is_wrong_with_them(text, reason):
    task = RewritingTask(document(30), 1)
    (request, *_) = task.requests()
    request = replace(request, phrase="harbour master", prompt=request.prompt.replace(request.phrase, "harbour master"))
    text = request.prompt.split("Passage 1:")[1] if text == "PROMPT" else text
    assert fault(text.strip(), request.prompt, "harbour master", []) == reason


def test_bad_texts_are_counted_and_a_document_without_good_ones_is_left_out():
    tally = Tally()
    assert list(synthesize("rex", [document(30)], Says(lambda _: "I cannot do that."), 1, tally)) == []
    assert tally.dropped == {"refusal": tally.asked}
    assert tally.left_out == {"fewer than 2 good tasks": 1}
    tally = Tally()
    same = Says(lambda request: f"{' '.join(p.text for p in task.phrases)}. " + "The tide turns. " * 20)
    task = RewritingTask(document(30), 1)
    list(synthesize("rex", [document(30)], same, 1, tally))
    assert tally.dropped["same as another"] == tally.asked - 1


def test_documents_that_give_nothing_are_left_out_by_reason():
    tally = Tally()
    plain = [Document(text, str(n), "s", "p") for n, text in enumerate(["", "short", "one line " * 500, "0 1\n\n" * 400])]
    assert list(synthesize("cwe", plain, TemplateWriter(1), 1, tally)) == []
    assert tally.left_out == {"no break to cut it at": 3, "no word recurs": 1}
    assert dict(tally.rows())["documents read"] == 4


def test_questions_name_no_other_listed_word():
    """Words of the phrasings themselves are common in some texts."""
    counts = {"word": 9, "times": 8, "part": 7, "count": 6, "occur": 5}
    text = " ".join(f"{word} " * count for word, count in counts.items())
    tally = Tally()
    replies = TemplateWriter(1).write([CountRequest("", str(seed), counts) for seed in range(20)])
    kept = [len(verified(reply, text, counts, tally)) for reply in replies]
    assert min(kept) >= 4


def test_answers_are_a_number_or_a_sentence_by_document():
    made = list(synthesize("cwe", [document(16, seed) for seed in range(12)], TemplateWriter(1), 1))
    styles = [{answer.isdigit() for answer in re.findall(r"Answer: (.*)", each.text)} for each in made]
    assert all(len(style) == 1 for style in styles)
    assert {True} in styles
    assert {False} in styles


def test_the_recipe_names_the_template_writer():
    assert isinstance(open_generator(SyntheticTable(), 1), TemplateWriter)
    assert CountingTask(document(), 1).unfit == ""
